"""How a model and a batch are divided over the ranks, as arithmetic: the server asks it at submit, a rank again before it
begins.

A world holds pipeline x data x sequence x tensor ranks. What the other degrees leave over is data parallelism. Experts
are spread over ranks that see different samples or different parts of them, so their degree multiplies nothing.
`global batch = micro-batch x accumulation x data-parallel ranks`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from trainers.catalogue import RECIPES, Degree, RecipeCard
from trainers.shapes import Value, feed_width

DEGREES: tuple[Degree, ...] = ("tensor", "pipeline", "sequence", "expert")


@dataclass(frozen=True)
class Degrees:
    """`parallelism:` of the run file."""

    zero: int = 0
    tensor: int = 1
    pipeline: int = 1
    sequence: int = 1
    expert: int = 1

    @property
    def ranks_per_sample(self) -> int:
        """Ranks that work on one sample together; those of one group of so many consume the same samples."""
        return self.pipeline * self.sequence * self.tensor

    def data_size(self, world_size: int) -> int:
        """Parts into which the global batch is cut."""
        return world_size // self.ranks_per_sample

    def __str__(self) -> str:
        above = [f"{name} {getattr(self, name)}" for name in DEGREES if getattr(self, name) > 1]
        return ", ".join([f"ZeRO {self.zero}", *above])


@dataclass(frozen=True)
class Layout(Degrees):
    """Degrees in a world that they divide."""

    workers: int = field(default=1, kw_only=True)

    @property
    def data(self) -> int:
        """Ranks that compute micro-batches of their own."""
        return max(1, self.data_size(self.workers))

    @property
    def zero_ranks(self) -> int:
        """Ranks that hold the same parameters: what ZeRO divides. Sequence-parallel ranks are among them."""
        return self.data * self.sequence


@dataclass(frozen=True)
class BatchPlan:
    """global_batch = micro_batch x accumulation x data."""

    global_batch: int
    micro_batch: int
    accumulation: int
    data: int  # ranks that see different samples

    def __str__(self) -> str:
        return f"{self.global_batch} = {self.micro_batch} x {self.accumulation} x {self.data}"


@dataclass(frozen=True)
class Coordinates:
    """A rank's place along each axis, counted from 0. Along the last ones, tensor and sequence, ranks are neighbours."""

    stage: int
    data: int
    sequence: int
    tensor: int


class Wrong(NamedTuple):
    """`path` in the run file holds `got`, which cannot work; `advice` says what would be right."""

    path: str
    got: int
    advice: str


def coordinates(rank: int, degrees: Degrees, world_size: int) -> Coordinates:
    """The order of DeepSpeed's own grid: pipeline stage, data, sequence, tensor."""
    rest, tensor = divmod(rank, degrees.tensor)
    rest, sequence = divmod(rest, degrees.sequence)
    stage, data = divmod(rest, degrees.data_size(world_size))
    return Coordinates(stage, data, sequence, tensor)


def expert_rank(rank: int, degrees: Degrees) -> int:
    """Which part of the experts the rank holds: DeepSpeed spreads them over neighbours with equal tensor coordinates."""
    return rank // degrees.tensor % degrees.expert


def share_batch(global_batch: int, micro_batch: int | None, data: int, stages: int = 1) -> BatchPlan | None:
    """How `data` ranks share the global batch; None where they cannot evenly.

    `micro_batch` is an upper bound, so that a run keeps its global batch when it gets more or fewer ranks: the largest
    divisor of a rank's share within the bound is taken. Without one a pipeline gets as many micro-batches as it has
    `stages`, or some of them would idle.
    """
    if global_batch % data:
        return None
    share = global_batch // data
    micro = _largest_divisor(share, min(micro_batch or max(1, share // stages), share))
    return BatchPlan(global_batch, micro, share // micro, data)


def _largest_divisor(number: int, bound: int) -> int:
    """Of those within the bound."""
    if number % bound == 0:
        return bound
    low = [each for each in range(1, math.isqrt(number) + 1) if number % each == 0]
    return max(each for each in (*low, *(number // each for each in low)) if each <= bound)


def problems(
    degrees: Degrees, world_size: int, recipe: str | None, model: Mapping[str, Value], *, bf16: bool = False
) -> Iterator[Wrong]:
    """All that cannot work. `recipe` None: a model that only its rank knows; `model`: what the run file says of it."""
    yield from problems_of_the_world(degrees, world_size)
    yield from problems_of_deepspeed(degrees, bf16=bf16)
    if recipe is not None:
        yield from problems_of_the_model(degrees, recipe, model)


def problems_of_the_world(degrees: Degrees, world_size: int) -> Iterator[Wrong]:
    """What holds whatever the model and its arithmetic; ZeRO is not looked at."""
    apart = degrees.ranks_per_sample
    if world_size % apart:
        named = " x ".join(f"{name} {getattr(degrees, name)}" for name in DEGREES[:3] if getattr(degrees, name) > 1)
        yield Wrong("resources.workers", world_size, f"must be a multiple of {apart} ({named})")
    elif (world_size // degrees.tensor // degrees.pipeline) % degrees.expert:
        among = world_size // degrees.tensor // degrees.pipeline
        yield Wrong("parallelism.expert", degrees.expert, f"must divide the {among} ranks that experts are spread over")


def problems_of_deepspeed(degrees: Degrees, *, bf16: bool) -> Iterator[Wrong]:
    """What its pipeline refuses whatever the model."""
    if degrees.pipeline == 1:
        return
    if degrees.zero == 0 and bf16:  # it passes its optimizer's state on in a form that its optimizer cannot read
        yield Wrong("parallelism.zero", 0, "must be 1 for a pipeline in bf16, which could not resume without")
    if degrees.zero > 1:
        yield Wrong("parallelism.zero", degrees.zero, "must be 0 or 1 where parallelism.pipeline is above 1")


def problems_of_the_model(degrees: Degrees, recipe: str, model: Mapping[str, Value]) -> Iterator[Wrong]:
    """What the recipe's model, of the shape that `model` gives it, cannot be divided into."""
    card = RECIPES[recipe]
    shape = card.keys(model)
    refused = list(problems_of_the_card(degrees, card))
    sizes = {name: int(each) for name, each in shape.items() if not isinstance(each, str)}
    yield from refused or _of_the_shape(degrees, sizes)


def problems_of_the_card(degrees: Degrees, card: RecipeCard) -> Iterator[Wrong]:
    """What no model of the recipe knows, of each degree by itself."""
    if degrees.zero > card.most_zero:
        yield Wrong("parallelism.zero", degrees.zero, f"must be at most {card.most_zero}: {card.why_not_more}")
    for name in DEGREES:
        degree = getattr(degrees, name)
        if degree > 1 and name not in card.degrees:
            able = ", ".join(other.name for other in RECIPES.values() if name in other.degrees)
            yield Wrong(
                f"parallelism.{name}",
                degree,
                f"must be 1: the model of {card.name} is not divided so (that of {able} is)",
            )


def _of_the_shape(degrees: Degrees, shape: Mapping[str, int]) -> Iterator[Wrong]:
    experts = shape.get("experts", 0)
    if experts and degrees.zero == 3:
        yield Wrong("parallelism.zero", 3, "must be at most 2 where model.experts is above 0")
    divided = (
        ("expert", degrees.expert, "model.experts", experts),
        ("pipeline", degrees.pipeline, "model.layers", shape.get("layers", 0)),
        ("sequence", degrees.sequence, "model.context", shape.get("context", 0)),
        ("tensor", degrees.tensor, "the feed-forward width", feed_width(shape.get("width", 0))),
    )
    for name, degree, what, size in divided:
        if degree > 1 and (size == 0 or size % degree):
            yield Wrong(f"parallelism.{name}", degree, f"must divide {what}, {size}")
    heads, apart = shape.get("heads", 0), degrees.tensor * degrees.sequence
    if apart > 1 and heads % apart:
        name, degree = ("tensor", degrees.tensor) if heads % degrees.tensor else ("sequence", degrees.sequence)
        of_each = "" if degrees.tensor == 1 or name == "tensor" else f" / {degrees.tensor} of each tensor rank"
        yield Wrong(f"parallelism.{name}", degree, f"must divide model.heads, {heads}{of_each}")
