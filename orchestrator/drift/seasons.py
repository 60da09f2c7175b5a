"""A reference for each hour of the day or day of the week: what is usual on a Monday morning is no drift.

It is learned from the first cycles of live traffic, and once it is full it stays as it is: a world that moves slowly is not
followed. Until then windows of that season are judged against the training profile. All seasons together are bounded: the
more of them there are, and the more columns, the coarser their sketches.
"""

from __future__ import annotations

import base64
import datetime
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from orchestrator.drift.rows import RowSample
from orchestrator.drift.sketches import MOST_VALUES, CategorySummary, NumberSummary, TableSummary
from orchestrator.drift.windows import Window

Season = Literal["none", "hour", "weekday", "hour_of_week"]
LEAST_ROWS = 1_000
"""Of a season, before it is judged against itself and not against the whole reference."""
LEAST_CYCLES = 2
"""Days, or weeks, that these rows are of: one Monday is not how Mondays are."""
_NUMBERS: Mapping[Season, int] = {"none": 1, "hour": 24, "weekday": 7, "hour_of_week": 168}
_NAMES: Mapping[Season, tuple[str, str]] = {
    "hour": ("hour of the day", "days"),
    "weekday": ("weekday", "weeks"),
    "hour_of_week": ("hour of the week", "weeks"),
}
_KS = (350, 200, 100, 50)
_BYTES_OF_K = 24  # of a full sketch, for each unit of k
_ALL_BYTES = 4 * 2**20
_ALL_CELLS = 2**18
"""Of the rows that are kept as rows, over all seasons: 1 MB."""
_DAY_S, _MONDAY_S = 86_400.0, 4 * 86_400.0  # 1970-01-05 was a Monday


def season_of(time: float, season: Season, utc_offset_s: float = 0.0) -> int:
    """The number of the season that a time (seconds since the epoch) falls into; Monday is 0."""
    zone = datetime.timezone(datetime.timedelta(seconds=utc_offset_s))
    local = datetime.datetime.fromtimestamp(time, zone)
    match season:
        case "none":
            return 0
        case "hour":
            return local.hour
        case "weekday":
            return local.weekday()
        case "hour_of_week":
            return local.weekday() * 24 + local.hour


def cycle_of(time: float, season: Season, utc_offset_s: float = 0.0) -> int:
    """Days, or weeks, since the epoch: two times of one season and one cycle are of one and the same hour, or day."""
    local = time + utc_offset_s
    return math.floor(local / _DAY_S) if season == "hour" else math.floor((local - _MONDAY_S) / (7 * _DAY_S))


@dataclass
class Part:
    """What was seen of one season. `newest`: the cycle that was last learned from."""

    table: TableSummary
    sample: RowSample | None = None
    cycles: int = 0
    newest: int | None = None

    @property
    def full(self) -> bool:
        return self.table.rows >= LEAST_ROWS and self.cycles >= LEAST_CYCLES

    def state(self) -> dict[str, Any]:
        return {
            "table": base64.b64encode(self.table.to_bytes()).decode(),
            "sample": self.sample.state() if self.sample is not None else None,
            "cycles": self.cycles,
            "newest": self.newest,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Part:
        """Raises SketchError for a table that cannot be read."""
        table = TableSummary.from_bytes(base64.b64decode(state["table"]))
        sample = RowSample.from_state(state["sample"]) if state["sample"] else None
        return cls(table, sample, state["cycles"], state["newest"])


@dataclass
class Seasons:
    season: Season = "none"
    utc_offset_s: float = 0.0
    parts: dict[int, Part] = field(default_factory=dict)

    def at(self, time: float) -> tuple[Part | None, str]:
        """What rows of that time are judged against, and in words what that is. None: the training profile."""
        if self.season == "none":
            return None, ""
        name, cycles = _NAMES[self.season]
        part = self.parts.get(season_of(time, self.season, self.utc_offset_s))
        if part is not None and part.full:
            return part, f"against the same {name} before: {part.table.rows:,} rows of {part.cycles} {cycles}"
        rows, seen = (part.table.rows, part.cycles) if part is not None else (0, 0)
        return None, (
            f"against the training profile, for of this {name} {rows:,} of {LEAST_ROWS:,} rows are known, from {seen} of "
            f"{LEAST_CYCLES} {cycles}"
        )

    def learn(self, window: Window, known: TableSummary) -> None:
        """Take in a window of usual rows, of the columns that are `known`. A season that is full learns nothing more."""
        number = season_of(window.start, self.season, self.utc_offset_s)
        part = self.parts.setdefault(number, Part(TableSummary(k=self._k(known))))
        if part.full or self.season == "none":
            return
        columns = {name: each for name, each in window.table.columns.items() if name in known.columns}
        for name, each in columns.items():
            if isinstance(each, CategorySummary) and name not in part.table.columns:
                part.table.columns[name] = CategorySummary(most=min(MOST_VALUES, part.table.k), missing=part.table.rows)
        part.table.merge(TableSummary(window.rows, columns, window.table.k))
        cycle = cycle_of(window.start, self.season, self.utc_offset_s)
        part.cycles, part.newest = part.cycles + (cycle != part.newest), cycle
        if window.sample is not None and len(window.sample.rows):
            if part.sample is None:
                width = window.sample.rows.shape[1]
                part.sample = RowSample(min(window.sample.most, _ALL_CELLS // _NUMBERS[self.season] // width))
            part.sample.merge(window.sample)

    def _k(self, known: TableSummary) -> int:
        """The finest sketch that all seasons' columns have room for."""
        numbers = sum(isinstance(each, NumberSummary) for each in known.columns.values())
        all_of_them = _NUMBERS[self.season] * max(1, numbers)
        return next((k for k in _KS if all_of_them * k * _BYTES_OF_K <= _ALL_BYTES), _KS[-1])
