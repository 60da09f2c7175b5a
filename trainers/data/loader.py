"""From indices to tensors: the micro-batches of one rank.

A batch is a dictionary of tensors, all with the same first dimension. To what the examples hold the loader adds
`keys` (int64), one random key a sample, and in evaluation `weight` (float32): 0 for the copies that fill the last batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from trainers.data.sampler import Indices, Sampler
from trainers.layout import BatchPlan

Batch = dict[str, torch.Tensor]


class Examples(Protocol):
    """A set of examples in a fixed order. `take` may read from disk; it must not depend on the rank."""

    def __len__(self) -> int: ...

    def take(self, indices: Indices) -> Mapping[str, torch.Tensor]:
        """The examples at `indices` [n], as named tensors [n, ...] on the CPU."""
        ...


class Varied(Examples, Protocol):
    """Examples that look different each time that they are trained on: see `trainers.data.augment`."""

    def vary(self, batch: Batch, keys: Indices) -> Batch:
        """The batch as this time's random `keys` [n], one a sample, change it."""
        ...


@dataclass(frozen=True)
class Splits:
    """What a task trains on, and what it is judged by. An empty `validation` or `test` is not evaluated."""

    train: Examples
    validation: Examples
    test: Examples


@dataclass(frozen=True)
class Tensors:
    """Examples held in memory: named tensors with one first dimension."""

    columns: Mapping[str, torch.Tensor]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def take(self, indices: Indices) -> Mapping[str, torch.Tensor]:
        where = torch.from_numpy(indices)
        return {name: column.index_select(0, where) for name, column in self.columns.items()}


@dataclass(frozen=True)
class Loader:
    """Cuts batches into what this rank computes, on its device and in its precision."""

    plan: BatchPlan
    rank: int
    device: torch.device
    dtype: torch.dtype  # of floating-point inputs

    def training(self, examples: Examples, sampler: Sampler, consumed: int) -> Iterator[Batch]:
        """The micro-batches of this rank for the optimizer step that follows `consumed` samples."""
        share = self.plan.global_batch // self.plan.data
        mine = slice(self.rank * share, (self.rank + 1) * share)
        indices, keys = sampler.batch(consumed)[mine], sampler.keys(consumed)[mine]
        vary = getattr(examples, "vary", None)  # asking a protocol costs a tenth of a millisecond
        for start in range(0, share, self.plan.micro_batch):
            part = slice(start, start + self.plan.micro_batch)
            self._seed_generators(int(keys[start]))
            batch = dict(examples.take(indices[part]))
            if vary is not None:
                batch = vary(batch, keys[part])
            yield self._place({**batch, "keys": torch.from_numpy(keys[part])})

    def evaluation(self, examples: Examples) -> Iterator[Batch]:
        """Every example once over all ranks. Every rank gets equally many batches: ZeRO-3 gathers in each."""
        micro_batch = self.plan.micro_batch
        for start in range(0, len(examples), micro_batch * self.plan.data):
            positions = np.arange(start + self.rank * micro_batch, start + (self.rank + 1) * micro_batch)
            real = positions < len(examples)
            batch = dict(examples.take(np.where(real, positions, 0)))
            batch["keys"] = torch.zeros(micro_batch, dtype=torch.int64)
            batch["weight"] = torch.from_numpy(real.astype(np.float32))
            yield self._place(batch)

    def _seed_generators(self, key: int) -> None:
        # Random numbers that a task draws itself belong to the samples too, not to the process's past. Not by
        # torch.manual_seed: it asks every accelerator and costs a tenth of a millisecond.
        torch.default_generator.manual_seed(key)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(key)

    def _place(self, batch: Mapping[str, torch.Tensor]) -> Batch:
        return {
            name: column.to(self.device, self.dtype if column.is_floating_point() and name != "weight" else None)
            for name, column in batch.items()
        }
