"""How ranks share a model and a batch, and what does not divide.

Tensor, pipeline and sequence degrees multiply; the ranks that they leave over are data parallel, and experts are spread
over those. `global batch = micro-batch x accumulation x data-parallel size`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.errors import Problem
from trainers.shapes import ModelShape

DEGREES = ("tensor", "pipeline", "sequence", "expert")


@dataclass(frozen=True)
class Layout:
    """Of `workers` ranks."""

    workers: int
    zero: int = 0
    tensor: int = 1
    pipeline: int = 1
    sequence: int = 1
    expert: int = 1

    @property
    def model(self) -> int:
        """Ranks that together compute one micro-batch."""
        return self.tensor * self.pipeline * self.sequence

    @property
    def data(self) -> int:
        """Ranks that compute micro-batches of their own."""
        return max(1, self.workers // self.model)

    @property
    def zero_ranks(self) -> int:
        """Ranks that hold the same parameters: what ZeRO divides. Sequence-parallel ranks are among them."""
        return self.data * self.sequence

    def __str__(self) -> str:
        degrees = [f"{name} {getattr(self, name)}" for name in DEGREES if getattr(self, name) > 1]
        return ", ".join([f"ZeRO {self.zero}", *degrees])


@dataclass(frozen=True)
class Batch:
    """Of one optimizer step."""

    global_batch: int
    micro_batch: int
    accumulation: int
    data: int

    def __str__(self) -> str:
        return f"{self.global_batch} = {self.micro_batch} x {self.accumulation} x {self.data}"


def batch_of(global_batch: int, micro_batch: int | None, layout: Layout) -> Batch | None:
    """`micro_batch` is an upper bound, as it is to the ranks. None where the ranks cannot share the batch evenly."""
    if global_batch % layout.data:
        return None
    share = global_batch // layout.data
    bound = min(micro_batch or share, share)
    micro = max(each for each in _divisors_of(share) if each <= bound)
    return Batch(global_batch, micro, share // micro, layout.data)


def undivided(layout: Layout, shape: ModelShape | None, global_batch: int) -> Iterator[Problem]:
    """What the layout does not divide: the ranks, the batch, the model."""
    if layout.workers % layout.model:
        words = f"the product of tensor, pipeline and sequence must divide resources.workers ({layout.workers})"
        yield Problem("parallelism", f"{layout.model} = {_product(layout)}", words)
        return
    if layout.zero_ranks % layout.expert:
        words = f"must divide the {layout.zero_ranks} ranks that hold the same layers: one of {_divisors(layout.zero_ranks)}"
        yield Problem("parallelism.expert", str(layout.expert), words)
    if global_batch % layout.data:
        lower = global_batch // layout.data * layout.data
        right = f"{lower} or {lower + layout.data}" if lower else str(layout.data)
        words = f"must be divisible by the {layout.data} data-parallel ranks: {right} is"
        yield Problem("train.global_batch", str(global_batch), words)
    if shape is not None:
        yield from _undivided_model(layout, shape)


def _undivided_model(layout: Layout, shape: ModelShape) -> Iterator[Problem]:
    tensor, sequence = layout.tensor, layout.sequence
    divided: list[tuple[str, int, str, int | None]] = [
        ("pipeline", layout.pipeline, "layers", shape.blocks),
        ("tensor", tensor, "heads", shape.heads),
        *(("tensor", tensor, what, width) for what, width in (shape.inner or {}).items()),
        ("sequence", sequence, "positions", shape.context),
        ("expert", layout.expert, "experts", shape.experts),
    ]
    for name, degree, what, number in divided:
        if degree > 1 and number is None:
            yield Problem(f"parallelism.{name}", str(degree), f"must be 1: this model has no {what} to divide")
        elif degree > 1 and number is not None and number % degree:
            words = f"must divide the model's {number} {what}: one of {_divisors(number)}"
            yield Problem(f"parallelism.{name}", str(degree), words)
    if sequence > 1 and shape.heads is not None and shape.heads % (tensor * sequence):
        words = (
            f"must divide the heads that tensor leaves over ({shape.heads} / {tensor}): all-to-all hands them around"
        )
        yield Problem("parallelism.sequence", str(sequence), words)


def _product(layout: Layout) -> str:
    return " x ".join(f"{name} {getattr(layout, name)}" for name in ("tensor", "pipeline", "sequence"))


def _divisors(number: int) -> str:
    return ", ".join(str(each) for each in sorted(_divisors_of(number))[:20])


def _divisors_of(number: int) -> set[int]:
    low = [each for each in range(1, math.isqrt(number) + 1) if number % each == 0]
    return {*low, *(number // each for each in low)}
