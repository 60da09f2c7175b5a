"""Rows that are kept as rows, because what goes together shows in rows alone: few of them, whatever comes.

A sample holds the rows with the smallest of random keys: a uniform sample without replacement of all that were offered,
which merges with others and needs no end (bottom-k; Cohen and Kaplan 2007). Keys come from a seed and the number of rows
that were offered before, so that the same rows in the same batches make the same sample.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from orchestrator.drift.sketches import Coded, Column, Floats

Cells = npt.NDArray[np.float32]
Vectors = npt.NDArray[np.float32]

MOST_ROWS = 500
MOST_CELLS = 32_768
"""Of a window's sample: 128 kB, 500 rows of 65 columns."""
LEAST_ROWS = 100
"""With fewer nothing can be told of how features go together."""
WORDS = 15
"""Of a category, its most frequent ones have a code each; the others share one."""
PROJECTED = 32
"""Places of a vector, whatever its dimensions: projected at random, its distances stay (Johnson and Lindenstrauss 1984)."""
NO_ROWS: Cells = np.empty((0, 0), dtype=np.float32)
_OTHER = -1.0


@dataclass(frozen=True)
class Layout:
    """The places of columns in a row of numbers. `words`: of each category, what its codes 0, 1, ... stand for. `vectors`:
    embeddings, which follow the columns with PROJECTED places each.
    """

    columns: tuple[str, ...]
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    vectors: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        return len(self.columns) + PROJECTED * len(self.vectors)

    @property
    def rows(self) -> int:
        """That a sample of such rows may hold."""
        return min(MOST_ROWS, MOST_CELLS // max(1, self.width))

    def places_of(self, vector: str) -> slice:
        begin = len(self.columns) + PROJECTED * self.vectors.index(vector)
        return slice(begin, begin + PROJECTED)

    def coded(
        self, columns: Mapping[str, Column], places: npt.NDArray[np.intp], vectors: Mapping[str, Vectors] | None = None
    ) -> Cells:
        """These rows of a batch, [rows, width]; what is missing, or of another kind than the reference's, is NaN."""
        coded = np.full((len(places), self.width), np.nan, dtype=np.float32)
        for name in self.vectors:
            if vectors is not None and name in vectors:
                coded[:, self.places_of(name)] = _projected(vectors[name][places])
        with np.errstate(over="ignore"):  # beyond what a float32 holds is infinite: absurd either way
            for place, name in enumerate(self.columns):
                column = columns.get(name)
                if column is not None:
                    words = self.words.get(name)
                    coded[:, place] = _numbers(column, places) if words is None else _codes(column, places, words)
        return coded

    def described(self, rows: Cells, without: frozenset[str] = frozenset()) -> Floats:
        """[rows, k]: numbers as they are, and of each category one column of 0 and 1 for each of its words; without the
        columns that are named."""
        parts = []
        for place, name in enumerate(self.columns):
            if name in without:
                continue
            column = rows[:, place].astype(np.float64)
            words = self.words.get(name)
            if words is None:
                parts.append(column[:, None])
            else:
                one_of = (column[:, None] == np.arange(len(words))).astype(np.float64)
                parts.append(np.where(np.isnan(column)[:, None], np.nan, one_of))
        return np.concatenate(parts, axis=1) if parts else np.zeros((len(rows), 0))

    def names(self, without: frozenset[str] = frozenset()) -> list[str]:
        """Of the columns of `described`."""
        return [
            each
            for name in self.columns
            if name not in without
            for each in ([name] if name not in self.words else [f"{name} {word}" for word in self.words[name]])
        ]


@dataclass
class RowSample:
    """`keys` ascend. `offered`: rows that it is a sample of."""

    most: int
    keys: Floats = field(default_factory=lambda: np.empty(0))
    rows: Cells = field(default_factory=lambda: NO_ROWS)
    offered: int = 0

    def update(
        self,
        layout: Layout,
        columns: Mapping[str, Column],
        rows: int,
        seed: tuple[int, int],
        vectors: Mapping[str, Vectors] | None = None,
    ) -> None:
        """Offer a batch of so many rows. `seed`: another one for each batch."""
        keys = np.random.default_rng(seed).random(rows)
        places = np.flatnonzero(keys < self.keys[-1]) if len(self.keys) == self.most else np.arange(rows)
        if len(places) > self.most:
            places = places[np.argpartition(keys[places], self.most)[: self.most]]
        if len(places):
            self._take(keys[places], layout.coded(columns, places, vectors))
        self.offered += rows

    def merge(self, other: RowSample) -> None:
        if len(other.rows):
            self._take(other.keys, other.rows)
        self.offered += other.offered

    def _take(self, keys: Floats, rows: Cells) -> None:
        joined = np.concatenate([self.keys, keys])
        lowest = np.argsort(joined, kind="stable")[: self.most]
        self.rows = (np.concatenate([self.rows, rows]) if len(self.rows) else rows)[lowest]
        self.keys = joined[lowest]

    def state(self) -> dict[str, Any]:
        return {
            "most": self.most,
            "offered": self.offered,
            "shape": list(self.rows.shape),
            "keys": _text(self.keys.astype("<f8")),
            "rows": _text(self.rows.astype("<f4")),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> RowSample:
        """Raises ValueError for a state that is none."""
        keys, rows = read_cells(state["keys"], "<f8"), read_cells(state["rows"], "<f4")
        return cls(state["most"], keys.astype(np.float64), rows.reshape(state["shape"]), state["offered"])


def _projected(vectors: Vectors) -> Cells:
    """[rows, PROJECTED], the same for all vectors of so many dimensions."""
    dimensions = vectors.shape[1]
    projected: Cells = (vectors @ _projection(dimensions)).astype(np.float32)
    return projected


@lru_cache(maxsize=8)
def _projection(dimensions: int) -> Cells:
    fixed: Cells = (np.random.default_rng(dimensions).normal(size=(dimensions, PROJECTED)) / PROJECTED**0.5).astype(
        np.float32
    )
    return fixed


def read_cells(text: str, kind: str) -> npt.NDArray[Any]:
    """Raises ValueError for text that is no base64 of such numbers."""
    cells: npt.NDArray[Any] = np.frombuffer(base64.b64decode(text, validate=True), dtype=kind).copy()
    return cells


def _text(cells: npt.NDArray[Any]) -> str:
    return base64.b64encode(cells.tobytes()).decode()


def _numbers(column: Column, places: npt.NDArray[np.intp]) -> npt.NDArray[Any]:
    if isinstance(column, np.ndarray) and column.dtype.kind in "fiub":
        return column[places]
    return np.full(len(places), np.nan)


def _codes(column: Column, places: npt.NDArray[np.intp], words: Sequence[str]) -> npt.NDArray[Any]:
    known = {word: float(code) for code, word in enumerate(words)}
    if isinstance(column, Coded):
        of_words = np.array([*(known.get(str(word), _OTHER) for word in column.words), np.nan])
        codes: Floats = of_words[np.maximum(column.codes[places], -1)]  # the last one is for what is missing
        return codes
    if isinstance(column, np.ndarray) and column.dtype.kind in "fiub":
        return np.full(len(places), np.nan)
    texts = (column[int(place)] for place in places)
    return np.array([np.nan if each is None or each != each else known.get(str(each), _OTHER) for each in texts])
