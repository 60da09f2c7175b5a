"""The words in which a model is described before torch is imported. Standard library only.

A shape is a pure function of the keys under `model:` and of facts about the data: `trainers.recipe_shapes` has one for each
recipe, `trainers.facts` what is known of data. The planner reckons with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

Value = int | float | str | bool
Keys = Mapping[str, Value]
Facts = Mapping[str, Any]
"""Of data, by name: counts, and where there are many a tuple of them."""
NOTHING: Facts = {}

Divisor = Literal["tensor", "expert"]


@dataclass(frozen=True)
class Tensor:
    """`number` parameters alike. Tensor parallelism divides the elements of each, expert parallelism their number."""

    elements: int  # of one of them
    by: frozenset[Divisor] = frozenset()  # what divides them, beside ZeRO
    number: int = 1


BY_TENSOR: frozenset[Divisor] = frozenset(("tensor",))
BY_BOTH: frozenset[Divisor] = frozenset(("tensor", "expert"))


@dataclass(frozen=True)
class Layer:
    """`count` layers alike; every size is one layer's, in elements, and activations are one sample's."""

    name: str
    parameters: tuple[Tensor, ...]
    saved: float = 0  # kept for the backward pass, in the type of the arithmetic
    saved_split: float = 0  # of `saved`: what tensor parallelism divides
    saved_fp32: float = 0  # kept in fp32 whatever the arithmetic: what a loss is computed from
    saved_once: float = 0  # kept beside, once a micro-batch whatever its size
    output: float = 0  # handed to the next layer: all that activation checkpointing keeps
    count: int = 1

    @property
    def elements(self) -> int:
        """Of all parameters of one of these layers."""
        return sum(each.elements * each.number for each in self.parameters)


@dataclass(frozen=True)
class Rows:
    """Of a table that is dealt out row by row over all ranks: float32, with one number a row of its own optimizer's."""

    number: int
    width: int


@dataclass(frozen=True)
class ModelShape:
    """Layers in the order of the forward pass. What a model has none of stays None, and divides nothing."""

    layers: tuple[Layer, ...]
    tokens: int = 1  # that one sample passes through the layers
    blocks: int | None = None  # repeated layers, which pipeline stages are cut from
    context: int | None = None  # positions, which sequence parallelism divides
    experts: int | None = None
    rows: Rows | None = None  # beside the layers
    wrong: tuple[
        tuple[str, object, str], ...
    ] = ()  # keys that no such model can be built from: which, got, what is right

    @cached_property
    def elements(self) -> int:
        """Of all parameters of the layers."""
        return sum(each.elements * each.count for each in self.layers)


@dataclass(frozen=True)
class Unknown:
    """A model whose shape cannot be told without building it, and why."""

    why: str


Shape = Callable[[Keys, Facts], ModelShape | Unknown]
Examples = Callable[[Keys, Facts, float], int]
"""How many examples a share of the data makes."""


def feed_width(width: int) -> int:
    """Of a gated feed-forward layer: two thirds of four times the width, as the gate costs a third matrix; a multiple
    of 32."""
    return 32 * math.ceil(8 * width / 3 / 32)
