"""The shapes of the recipes' models: what may be known of a model before torch is imported.

A shape is a pure function of the keys under `model:` and of facts about the data. The planner reckons with it; a test
holds each to the parameters of the real model, one by one. Standard library only.
"""

from __future__ import annotations

import functools
import math
import pydoc_data.topics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

Value = int | float | str | bool
Keys = Mapping[str, Value]
Facts = Mapping[str, int]

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
    output: float = 0  # handed to the next layer: all that activation checkpointing keeps
    count: int = 1

    @property
    def elements(self) -> int:
        """Of all parameters of one of these layers."""
        return sum(each.elements * each.number for each in self.parameters)


@dataclass(frozen=True)
class ModelShape:
    """Layers in the order of the forward pass. What a model has none of stays None, and divides nothing."""

    layers: tuple[Layer, ...]
    tokens: int = 1  # that one sample passes through the layers
    blocks: int | None = None  # repeated layers, which pipeline stages are cut from
    context: int | None = None  # positions, which sequence parallelism divides
    experts: int | None = None
    wrong: tuple[
        tuple[str, object, str], ...
    ] = ()  # keys that no such model can be built from: which, got, what is right

    @property
    def elements(self) -> int:
        """Of all parameters."""
        return sum(each.elements * each.count for each in self.layers)


Shape = Callable[[Keys, Facts], ModelShape]
Examples = Callable[[Keys, Facts, float], int]
"""How many examples a share of the data makes."""

DIGITS: Facts = {"samples": 1797, "channels": 1, "height": 8, "width": 8, "classes": 10}


@functools.cache
def pydoc_topics() -> Facts:
    """Of the standard library's help, which grows from one Python to the next."""
    text = "\n\n".join(topic for _, topic in sorted(pydoc_data.topics.topics.items()))
    return {"characters": len(text), "vocabulary": len(set(text))}


KNOWN_SOURCES: Mapping[str, Callable[[], Facts]] = {
    "sklearn://digits": lambda: DIGITS,
    "text://pydoc_topics": pydoc_topics,
}
"""Facts about the sources that are the same everywhere."""


def labelled_examples(keys: Keys, facts: Facts, share: float) -> int:
    """One a sample, cut as `trainers.data.sources.split_points` does."""
    return round(facts["samples"] * share)


def window_examples(keys: Keys, facts: Facts, share: float) -> int:
    """One a window of `context` characters, as `trainers.tasks.language_modelling.Windows` counts."""
    return max(0, (round(facts["characters"] * share) - 1) // _count(keys, "context"))


def _count(keys: Keys, name: str) -> int:
    return int(keys[name])


def _linear(inputs: int, outputs: int) -> tuple[Tensor, ...]:
    return (Tensor(inputs * outputs), Tensor(outputs))


def _convolution(inputs: int, outputs: int, kernel: int, bias: bool) -> tuple[Tensor, ...]:
    weight = Tensor(inputs * outputs * kernel * kernel)
    return (weight, Tensor(outputs)) if bias else (weight,)


def digits_cnn(keys: Keys, facts: Facts) -> ModelShape:
    """`trainers.models.cnn.Cnn`."""
    width, blocks, norm = _count(keys, "width"), _count(keys, "blocks"), str(keys["norm"])
    normed = norm != "none"
    pixels, fewer = facts["height"] * facts["width"], -(-facts["height"] // 2) * -(-facts["width"] // 2)
    plain = _residual("residual", width, width, (pixels, pixels), norm)
    halving = _residual("halving", width, 2 * width, (pixels, fewer), norm)
    wide = _residual("wide residual", 2 * width, 2 * width, (fewer, fewer), norm)
    features = 2 * width * 16  # of the grid's cells
    dropped = 2 if float(keys["dropout"]) > 0 else 0
    first = Layer(
        "first",
        _convolution(facts["channels"], width, 3, norm != "batch"),
        facts["channels"] * pixels,
        output=width * pixels,
    )
    last = Layer(
        "head",
        (*_norm(2 * width, normed), *_linear(features, facts["classes"])),
        (1 + normed) * 2 * width * fewer + (1 + dropped) * features,
        saved_fp32=facts["classes"],
        output=facts["classes"],
    )
    repeated = (replace(plain, count=blocks), halving, replace(wide, count=blocks - 1))
    return ModelShape((first, *(each for each in repeated if each.count), last))


def _residual(name: str, inputs: int, outputs: int, pixels: tuple[int, int], norm: str) -> Layer:
    """`trainers.models.cnn.Residual`: its norms and convolutions keep their inputs, its ReLUs what they pass on."""
    (before, after), normed, bias = pixels, norm != "none", norm != "batch"
    shortcut = () if inputs == outputs else _convolution(inputs, outputs, 1, bias)
    parameters = (
        *_norm(inputs, normed),
        *_convolution(inputs, outputs, 3, bias),
        *_norm(outputs, normed),
        *_convolution(outputs, outputs, 3, bias),
        *shortcut,
    )
    kept = (1 + (normed or bool(shortcut))) * inputs * before + (1 + normed) * outputs * after
    return Layer(name, parameters, kept, output=outputs * after)


def _norm(channels: int, normed: bool) -> tuple[Tensor, ...]:
    return (Tensor(channels), Tensor(channels)) if normed else ()


def feed_width(width: int) -> int:
    """Of a gated feed-forward layer: two thirds of four times the width, as the gate costs a third matrix; a multiple
    of 32."""
    return 32 * math.ceil(8 * width / 3 / 32)


def _feed(width: int, experts: int) -> tuple[Tensor, ...]:
    """A gated layer, or a router and as many of them as there are experts."""
    feed = feed_width(width)
    if not experts:
        return (Tensor(2 * feed * width, BY_TENSOR), Tensor(feed * width, BY_TENSOR))
    matrices = (2 * feed * width, feed * width)
    return (Tensor(width * experts), *(Tensor(each, BY_BOTH, experts) for each in matrices))


def text_transformer(keys: Keys, facts: Facts) -> ModelShape:
    """`trainers.models.transformer.Transformer` as a language model."""
    width, context, heads = _count(keys, "width"), _count(keys, "context"), _count(keys, "heads")
    feed, vocabulary, experts = feed_width(width), facts["vocabulary"], _count(keys, "experts")
    dropped = 1 if float(keys["dropout"]) > 0 else 0
    # Of a position: the inputs of both norms and of both first matrices; query, key and value as they were multiplied and
    # once more turned; attention's result; gate, up, their activation and their product; the masks of dropout.
    saved = (10 + 2 * dropped) * width + 4 * feed
    # Two experts compute a token: their inputs, gates and answers, sorted by expert and back again.
    if experts:
        saved += (min(2, experts) - 1) * 4 * feed + min(2, experts) * 3 * width
    block = Layer(
        "block",
        (
            Tensor(width),
            Tensor(3 * width * width, BY_TENSOR),
            Tensor(width * width, BY_TENSOR),
            Tensor(width),
            *_feed(width, experts),
        ),
        saved=context * saved,
        saved_split=context * (6 * width + (2 if experts > 1 else 1) * 4 * feed),
        output=context * width,
        count=_count(keys, "layers"),
    )
    return ModelShape(
        (
            Layer("tokens", (Tensor(vocabulary * width),), context * dropped * width, output=context * width),
            block,
            Layer("norm", (Tensor(width),), context * width, output=context * width),
            Layer(
                "head",
                (Tensor(width * vocabulary),),
                context * width,
                saved_fp32=context * vocabulary,
                output=context * vocabulary,
            ),
        ),
        tokens=context,
        blocks=block.count,
        context=context,
        experts=experts or None,
        wrong=(("width", width, f"must be a multiple of twice model.heads, {2 * heads}"),)
        if width % (2 * heads)
        else (),
    )
