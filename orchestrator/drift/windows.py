"""Live rows cut into windows: by count, by time, or adaptively.

An adaptive window is as long as the evidence needs: rows are cut by count, and each judgement looks at the newest window
alone and merged with those before it, in spans that double, as ADWIN does with single values (Bifet and Gavalda 2007).
Summaries merge, so that costs no row.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from orchestrator.drift.rows import Layout, RowSample, Vectors
from orchestrator.drift.sketches import NUMBER_K, Coded, Column, TableSummary

ADAPTIVE_SPANS = (1, 2, 4)
_SEED = 1_985


@dataclass(frozen=True)
class Cut:
    """How windows end: after `rows` (count, adaptive) or at whole multiples of `length_s` since the epoch (time), where rows
    may come `late_s` after others of a later time.
    """

    by: Literal["count", "time", "adaptive"] = "adaptive"
    rows: int = 500
    length_s: float = 3600.0
    late_s: float = 0.0

    @property
    def spans(self) -> tuple[int, ...]:
        return ADAPTIVE_SPANS if self.by == "adaptive" else (1,)


@dataclass
class Window:
    """Rows of the times [start, end], as summaries, and some of them as they are where that is asked for."""

    start: float
    end: float
    table: TableSummary = field(default_factory=TableSummary)
    sample: RowSample | None = None

    @property
    def rows(self) -> int:
        return self.table.rows


@dataclass(frozen=True)
class _Rows:
    """Of a batch."""

    columns: Mapping[str, Column]
    vectors: Mapping[str, Vectors]


@dataclass
class Windows:
    """Takes batches in and gives windows back as they end. `late`: rows that came after their window had ended. `layout`: of
    the rows that are kept as rows; None: none are.
    """

    cut: Cut
    open: dict[int, Window] = field(default_factory=dict)
    recent: deque[Window] = field(default_factory=lambda: deque(maxlen=ADAPTIVE_SPANS[-1]))
    closed_before: int | None = None
    late: int = 0
    layout: Layout | None = None
    offered: int = 0  # to samples: another seed for each batch

    def add(
        self, columns: Mapping[str, Column], times: npt.NDArray[Any], vectors: Mapping[str, Vectors] | None = None
    ) -> list[Window]:
        """Take in rows with their times (seconds since the epoch); the windows that they end, oldest first. `vectors` are of
        use to rows that are kept as rows, and to nothing else.

        Raises ValueError where there is not one finite time a row, and SketchError as `TableSummary.update` does; the rows
        of this batch before the one in question are in the window then.
        """
        at = np.asarray(times, dtype=np.float64)
        rows = {len(each.codes if isinstance(each, Coded) else each) for each in columns.values()} or {0}
        if rows != {len(at)} or not np.isfinite(at).all():
            raise ValueError(f"{len(at)} times for columns of {sorted(rows)} rows: every row has one finite time")
        if not len(at):
            return []
        rows_of = _Rows(columns, vectors or {})
        ended = self._by_time(rows_of, at) if self.cut.by == "time" else self._by_count(rows_of, at)
        self.recent.extend(ended)
        return ended

    def merge(self, table: TableSummary, at: float) -> list[Window]:
        """Take in rows that are known by their summary, all as of the time `at`; the windows that they end. A summary
        cannot be cut: a window by count may hold more rows than were asked for. Raises SketchError where a column is of
        another kind.
        """
        by_time = self.cut.by == "time"
        number = math.floor(at / self.cut.length_s) if by_time else 0
        if by_time and self.closed_before is not None and number < self.closed_before:
            self.late += table.rows
            return []
        start = number * self.cut.length_s if by_time else math.inf
        end = start + self.cut.length_s if by_time else -math.inf
        window = self.open.setdefault(number, Window(start, end))
        window.table.merge(table)
        if by_time:
            ended = self.ended_by(at - self.cut.late_s)
        else:
            window.start, window.end = min(window.start, at), max(window.end, at)
            ended = [self.open.pop(0)] if window.rows >= self.cut.rows else []
        self.recent.extend(ended)
        return ended

    def spans(self) -> list[Window]:
        """The newest window, and it merged with those before it: each span of which there are enough windows."""
        return [merged(list(self.recent)[-span:]) for span in self.cut.spans if span <= len(self.recent)]

    def _by_count(self, given: _Rows, at: npt.NDArray[np.float64]) -> list[Window]:
        ended, begin = [], 0
        if 0 in self.open and self.open[0].rows >= self.cut.rows:
            ended.append(self.open.pop(0))  # windows were to be longer when this one began
        while begin < len(at):
            window = self.open.setdefault(0, Window(math.inf, -math.inf))
            end = min(len(at), begin + self.cut.rows - window.rows)
            self._add_to(window, given, slice(begin, end), end - begin)
            first, last = float(at[begin:end].min()), float(at[begin:end].max())
            window.start, window.end = min(window.start, first), max(window.end, last)
            if window.rows >= self.cut.rows:
                ended.append(self.open.pop(0))
            begin = end
        return ended

    def _by_time(self, given: _Rows, at: npt.NDArray[np.float64]) -> list[Window]:
        numbers = np.floor(at / self.cut.length_s).astype(np.int64)
        for number in np.unique(numbers).tolist():
            places = np.flatnonzero(numbers == number)
            if self.closed_before is not None and number < self.closed_before:
                self.late += len(places)
                continue
            start = number * self.cut.length_s
            window = self.open.setdefault(number, Window(start, start + self.cut.length_s))
            self._add_to(window, given, places, len(places))
        return self.ended_by(float(at.max()) - self.cut.late_s)

    def _add_to(self, window: Window, given: _Rows, which: slice | npt.NDArray[np.intp], rows: int) -> None:
        columns = {name: _rows(column, which) for name, column in given.columns.items()}
        window.table.update(columns)
        if self.layout is None:
            return
        if window.sample is None:
            window.sample = RowSample(self.layout.rows)
        vectors = {name: each[which] for name, each in given.vectors.items()}
        window.sample.update(self.layout, columns, rows, (_SEED, self.offered), vectors)
        self.offered += rows

    def ended_by(self, time: float) -> list[Window]:
        """Close the time windows that no row can still come for; `time` is what the stream, or a clock, has reached."""
        first_open = math.floor(time / self.cut.length_s)
        if self.closed_before is None or first_open > self.closed_before:
            self.closed_before = first_open
        return [self.open.pop(number) for number in sorted(self.open) if number < self.closed_before]


def merged(windows: Sequence[Window]) -> Window:
    """One window of all their rows; a single one is given back as it is."""
    if len(windows) == 1:
        return windows[0]
    table = TableSummary(k=max((each.table.k for each in windows), default=NUMBER_K))
    for window in windows:
        table.merge(window.table)
    return Window(min(each.start for each in windows), max(each.end for each in windows), table)


def _rows(column: Column, which: slice | npt.NDArray[np.intp]) -> Column:
    if isinstance(column, Coded):
        return Coded(column.codes[which], column.words)
    if isinstance(column, np.ndarray):
        return column[which]
    return column[which] if isinstance(which, slice) else [column[int(place)] for place in which]
