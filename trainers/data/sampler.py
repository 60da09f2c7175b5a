"""Which examples an optimizer step consumes: a function of the seed and of how many samples were consumed before.

The order does not depend on the world size: ranks cut the same global batch into equal blocks. An epoch holds
`size // global_batch` whole batches; the rest of its order, less than one batch, is left out of that epoch (each epoch
has another order, so another rest). Nothing is kept between steps, so the cursor of a checkpoint is one number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from trainers.errors import BadConfig

Indices = npt.NDArray[np.int64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def mix(seed: int, counters: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """SplitMix64 of each counter under `seed`: the same numbers on every machine, numpy version and world size."""
    with np.errstate(over="ignore"):
        z = counters * _GOLDEN + _scramble(np.array([seed & 0xFFFFFFFFFFFFFFFF], dtype=np.uint64) + _GOLDEN)
        return _scramble(z + _GOLDEN)


def _scramble(z: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    with np.errstate(over="ignore"):
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def shuffled(size: int, seed: int) -> Indices:
    """A permutation of `range(size)` that depends on nothing but its arguments."""
    return np.argsort(mix(seed, np.arange(size, dtype=np.uint64)), kind="stable")


@dataclass
class Sampler:
    """The order of a training set of `size` examples. Raises BadConfig when it holds less than one global batch."""

    size: int
    global_batch: int
    seed: int
    _epoch: int = field(default=-1, init=False, repr=False)
    _order: Indices = field(default_factory=lambda: np.empty(0, dtype=np.int64), init=False, repr=False)

    def __post_init__(self) -> None:
        if self.size < self.global_batch:
            raise BadConfig(
                "train.global_batch", self.global_batch, f"must not exceed the {self.size} training examples"
            )

    @property
    def steps_per_epoch(self) -> int:
        return self.size // self.global_batch

    def epoch_of(self, consumed: int) -> int:
        """The epoch that the sample after `consumed` samples belongs to, counted from 0."""
        return consumed // (self.steps_per_epoch * self.global_batch)

    def batch(self, consumed: int) -> Indices:
        """Indices [global_batch] of the examples that come after `consumed` samples, a multiple of the batch."""
        epoch = self.epoch_of(consumed)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, shuffled(self.size, self.seed * 1_000_003 + epoch)
        start = consumed - epoch * self.steps_per_epoch * self.global_batch
        return self._order[start : start + self.global_batch]

    def keys(self, consumed: int) -> Indices:
        """One random key [global_batch] for each sample of the batch, for dropout: see `trainers.models.dropout`."""
        positions = np.arange(consumed, consumed + self.global_batch, dtype=np.uint64)
        return mix(self.seed ^ 0x5EED, positions).view(np.int64)

    def cursor(self, consumed: int) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"samples": consumed, "size": self.size, "global_batch": self.global_batch, "seed": self.seed}

    def resume(self, cursor: Mapping[str, Any]) -> int:
        """Samples consumed at `cursor`. Raises BadConfig when it was taken over other data, or in another order."""
        for key, path in (("size", "data.source"), ("global_batch", "train.global_batch"), ("seed", "train.seed")):
            now = getattr(self, key)
            if cursor[key] != now:
                raise BadConfig(
                    path, now, f"the checkpoint was taken with {key} {cursor[key]}: submit a new run instead"
                )
        return int(cursor["samples"])
