"""Which examples an optimizer step consumes: a function of the seed and of how many samples were consumed before.

The samples of a run are one stream: epoch after epoch, each a permutation of its own of all examples. A global batch is
the next piece of that stream, always of the same size, so a batch may begin in one epoch and end in the next. Over an
epoch every example is consumed once: at every world size, for ranks cut the same global batch into equal blocks, and
through restarts, for nothing is kept between steps and the cursor of a checkpoint is one number. A smaller last batch
would do the same, but its gradient would be noisier at the same learning rate, and its size would have to be divisible
by every world size.

Permutations are computed, not stored: neither memory nor the time to resume depends on the number of examples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from trainers.errors import BadConfig

Indices = npt.NDArray[np.int64]
Unsigned = npt.NDArray[np.uint64]

ORDER = 2  # of the examples, as a cursor names it: 1 left the rest of every epoch out

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_ODD = np.uint64(0x94D049BB133111EB)
_HALF = np.uint64(32)
_ROUNDS = 12
_AHEAD = 8192  # positions of the stream that are computed at once


def mix(seed: int, counters: Unsigned) -> Unsigned:
    """SplitMix64 of each counter under `seed`: the same numbers on every machine, numpy version and world size."""
    with np.errstate(over="ignore"):
        z = counters * _GOLDEN + _scramble(np.array([seed & 0xFFFFFFFFFFFFFFFF], dtype=np.uint64) + _GOLDEN)
        return _scramble(z + _GOLDEN)


def _scramble(z: Unsigned) -> Unsigned:
    with np.errstate(over="ignore"):
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def shuffled(size: int, seed: int) -> Indices:
    """A permutation of `range(size)` that depends on nothing but its arguments, held in memory: for splits."""
    return np.argsort(mix(seed, np.arange(size, dtype=np.uint64)), kind="stable")


class Permutations:
    """Keyed bijections of `range(size)`, one for each number, that can be asked for any place.

    The generalised Feistel network with cycle walking of Black and Rogaway, "Ciphers with Arbitrary Finite Domains"
    (CT-RSA 2002): a number is a pair of digits to two bases near the root of `size`, each round adds a hash of one digit
    to the other, and what falls outside `size`, at most one in its root, goes round again.
    """

    def __init__(self, size: int, seed: int) -> None:
        """`size` is at most 2^62."""
        left = math.isqrt(max(size - 1, 0)) + 1
        self._size, self._seed = np.uint64(size), seed
        self._bases = np.uint64(left), np.uint64(-(-size // left))

    def at(self, which: Unsigned, places: Unsigned) -> Unsigned:
        """For each element [n], the number at one of the `places`, which are below `size`, of permutation `which`."""
        numbers = self._encrypted(which, places)
        outside = np.flatnonzero(numbers >= self._size)
        while outside.size:
            numbers[outside] = self._encrypted(which[outside], numbers[outside])
            outside = outside[numbers[outside] >= self._size]
        return numbers

    def _encrypted(self, which: Unsigned, numbers: Unsigned) -> Unsigned:
        different, places = np.unique(which, return_inverse=True)
        left, right = np.divmod(numbers, self._bases[1])
        for number in range(0, _ROUNDS, 2):
            keys = mix(self._seed, different * np.uint64(_ROUNDS) + np.uint64(number))[places]
            left = _added(left, right ^ keys, self._bases[0])
            right = _added(right, left ^ ~keys, self._bases[1])
        joined: Unsigned = left * self._bases[1] + right
        return joined


def _added(digit: Unsigned, hashed: Unsigned, base: np.uint64) -> Unsigned:
    """`digit`, which is below `base`, and a hash, added modulo `base`, which is at most 2^31."""
    with np.errstate(over="ignore"):
        hashed = hashed * _GOLDEN
        hashed = (hashed ^ (hashed >> _HALF)) * _ODD
        total = digit + (((hashed >> _HALF) * base) >> _HALF)
        return np.minimum(total, total - base)  # below `base` the difference wraps around to something large


@dataclass
class Sampler:
    """The order of a training set of `size` examples. Raises BadConfig when it holds less than one global batch."""

    size: int
    global_batch: int
    seed: int
    _from: int = field(default=0, init=False, repr=False)  # of what was computed ahead
    _order: Indices = field(default_factory=lambda: np.empty(0, dtype=np.int64), init=False, repr=False)
    _keys: Indices = field(default_factory=lambda: np.empty(0, dtype=np.int64), init=False, repr=False)

    def __post_init__(self) -> None:
        self._permutations = Permutations(self.size, self.seed)
        if self.size < self.global_batch:
            raise BadConfig(
                "train.global_batch", self.global_batch, f"must not exceed the {self.size} training examples"
            )

    @property
    def steps_per_epoch(self) -> int:
        """Steps until the first epoch has ended; later ones take as many, or one less."""
        return self.steps_of(1)

    def steps_of(self, epochs: int) -> int:
        """Steps until so many epochs have ended. The last of them may reach into the epoch after."""
        return -(-epochs * self.size // self.global_batch)

    def epoch_of(self, consumed: int) -> int:
        """The epoch that the sample after `consumed` samples belongs to, counted from 0."""
        return consumed // self.size

    def ends_epoch(self, consumed: int) -> bool:
        """Whether the step that brought the samples to `consumed` consumed the last one of an epoch."""
        return consumed // self.size > (consumed - self.global_batch) // self.size

    def batch(self, consumed: int) -> Indices:
        """Indices [global_batch] of the examples that come after `consumed` samples."""
        where = self._ahead(consumed)
        return self._order[where]

    def keys(self, consumed: int) -> Indices:
        """One random key [global_batch] for each sample of the batch, for dropout: see `trainers.models.dropout`."""
        where = self._ahead(consumed)
        return self._keys[where]

    def stream(self, start: int, count: int) -> Indices:
        """Indices [count] of the examples at the positions `start` to `start + count` of the run's stream."""
        positions = np.arange(start, start + count, dtype=np.uint64)
        return self._permutations.at(*np.divmod(positions, np.uint64(self.size))).view(np.int64)

    def _ahead(self, consumed: int) -> slice:
        """Where the batch after `consumed` samples lies in what was computed ahead."""
        start = consumed - self._from
        if not 0 <= start <= len(self._order) - self.global_batch:
            count = max(self.global_batch, _AHEAD)
            self._order = self.stream(consumed, count)
            positions = np.arange(consumed, consumed + count, dtype=np.uint64)
            self._keys = mix(self.seed ^ 0x5EED, positions).view(np.int64)
            self._from, start = consumed, 0
        return slice(start, start + self.global_batch)

    def cursor(self, consumed: int) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {
            "samples": consumed,
            "size": self.size,
            "global_batch": self.global_batch,
            "seed": self.seed,
            "order": ORDER,
        }

    def resume(self, cursor: Mapping[str, Any]) -> int:
        """Samples consumed at `cursor`. Raises BadConfig when it was taken over other data, or in another order."""
        for key, path in (("size", "data.source"), ("global_batch", "train.global_batch"), ("seed", "train.seed")):
            now = getattr(self, key)
            if cursor[key] != now:
                raise BadConfig(
                    path, now, f"the checkpoint was taken with {key} {cursor[key]}: submit a new run instead"
                )
        if cursor.get("order", 1) != ORDER:
            raise BadConfig(
                "data",
                {"order": ORDER},
                "the checkpoint was taken over another order of the data, by another version "
                "of Evertrain: go on with that version, or submit a new run instead",
            )
        return int(cursor["samples"])
