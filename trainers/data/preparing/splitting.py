"""Which rows are for training, validation and test: the same whatever the order of files, and without leakage.

Every row has a key; within its stratum, rows are ordered by it and cut where the shares say. Rows of one key are never
parted. What the key is makes the split:

    at random     a hash of the row's content: rows that repeat one another stay together
    by group      a hash of the group: a group stays together
    by time       the time: what is older goes to training, and one moment is never parted
    stratified    as at random, within each value of the column
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.float64]
Hashes = npt.NDArray[np.uint64]
Parts = npt.NDArray[np.uint8]

PARTS = ("train", "validation", "test")
DROPPED = 255
"""The part of rows that cleaning removed."""


def assign(keys: Keys, strata: Hashes, split: tuple[float, float, float]) -> Parts:
    """The part [n] of each row, an index into `PARTS`."""
    parts = np.empty(len(keys), dtype=np.uint8)
    order = np.lexsort((keys, strata))
    edges = np.flatnonzero(np.diff(strata[order])) + 1
    for rows in np.split(order, edges):
        first, second = _cuts(keys[rows], split)
        parts[rows[:first]], parts[rows[first:second]], parts[rows[second:]] = 0, 1, 2
    return parts


def _cuts(ordered: Keys, split: tuple[float, float, float]) -> tuple[int, int]:
    """Where validation and test begin among ascending keys: between two different ones, as near as that can be."""
    size = len(ordered)
    first, second = round(size * split[0]), round(size * (split[0] + split[1]))
    return _between(ordered, first), _between(ordered, second)


def _between(ordered: Keys, place: int) -> int:
    if not 0 < place < len(ordered) or ordered[place - 1] != ordered[place]:
        return place
    low = int(np.searchsorted(ordered, ordered[place], side="left"))
    high = int(np.searchsorted(ordered, ordered[place], side="right"))
    return low if place - low < high - place else high


def repeats(hashes: Hashes) -> npt.NDArray[np.bool_]:
    """True [n] for every row whose content an earlier one has."""
    repeated = np.ones(len(hashes), dtype=bool)
    repeated[np.unique(hashes, return_index=True)[1]] = False
    return repeated
