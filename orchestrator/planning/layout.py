"""How ranks share a model and a batch, and what does not divide.

Tensor, pipeline and sequence degrees multiply; the ranks that they leave over are data parallel, and experts are spread
over those. `global batch = micro-batch x accumulation x data-parallel size`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from orchestrator.errors import Problem
from trainers.layout import DEGREES, Degrees, problems
from trainers.shapes import Value


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
    def degrees(self) -> Degrees:
        return Degrees(self.zero, self.tensor, self.pipeline, self.sequence, self.expert)

    @property
    def model(self) -> int:
        """Ranks that together compute one micro-batch."""
        return self.degrees.ranks_per_sample

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
    """`micro_batch` is an upper bound, as it is to the ranks; without it a pipeline gets as many micro-batches as it has
    stages. None where the ranks cannot share the batch evenly."""
    if global_batch % layout.data:
        return None
    share = global_batch // layout.data
    bound = min(micro_batch or max(1, share // layout.pipeline), share)
    micro = max(each for each in _divisors_of(share) if each <= bound)
    return Batch(global_batch, micro, share // micro, layout.data)


def undivided(
    layout: Layout, recipe: str | None, model: Mapping[str, Value], global_batch: int, *, bf16: bool = False
) -> Iterator[Problem]:
    """What the layout does not divide: the ranks, the model, the batch."""
    wrong = [
        Problem(path, str(got), advice)
        for path, got, advice in problems(layout.degrees, layout.workers, recipe, model, bf16=bf16)
    ]
    yield from wrong
    if not wrong and global_batch % layout.data:
        lower = global_batch // layout.data * layout.data
        right = f"{lower} or {lower + layout.data}" if lower else str(layout.data)
        words = f"must be divisible by the {layout.data} data-parallel ranks: {right} is"
        yield Problem("train.global_batch", str(global_batch), words)


def _divisors_of(number: int) -> set[int]:
    low = [each for each in range(1, math.isqrt(number) + 1) if number % each == 0]
    return {*low, *(number // each for each in low)}
