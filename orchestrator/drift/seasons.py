"""A reference for each hour of the day or day of the week: what is usual on a Monday morning is no drift."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from typing import Literal

from orchestrator.drift.sketches import REFERENCE_K, TableSummary

Season = Literal["none", "hour", "weekday", "hour_of_week"]
LEAST_ROWS = 1_000
"""Of a season, before it is judged against itself and not against the whole reference."""


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


@dataclass
class SeasonalReference:
    """The reference of a model, and of each season once enough rows of it were learned."""

    whole: TableSummary
    season: Season = "none"
    utc_offset_s: float = 0.0
    parts: dict[int, TableSummary] = field(default_factory=dict)

    def at(self, time: float) -> tuple[TableSummary, str]:
        """What rows of that time are judged against, and its name in words."""
        part = self.parts.get(season_of(time, self.season, self.utc_offset_s))
        if self.season == "none" or part is None or part.rows < LEAST_ROWS:
            return self.whole, "the training profile"
        return part, f"the same {self.season.replace('_', ' ')} before"

    def learn(self, time: float, rows: TableSummary) -> None:
        """Take in rows that are known to be usual: of the reference period, or of a window that was judged stable."""
        number = season_of(time, self.season, self.utc_offset_s)
        self.parts.setdefault(number, TableSummary(k=REFERENCE_K)).merge(rows)
