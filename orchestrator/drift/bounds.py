"""Detectors of concept drift that need no rate to begin with: a bound on means says when two of them cannot be one.

    adwin   adaptive windows (Bifet and Gavalda 2007): the stream's end is kept in buckets of doubling sizes, and cut where
            the means before and after differ by more than Bernstein's bound allows
    hddm_a  Hoeffding's bound on averages (Frias-Blanco et al. 2015): the mean since the beginning against the lowest that
            it surely had

Both are one-sided here: that a model errs less often is no alarm. What they remember is JSON, so that they outlive a process.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

from orchestrator.drift.detectors import Alarm, FalseAlarms, read_errors

_BUCKETS = 5
"""Of one size, before the two oldest become one of the next."""
_EVERY = 32  # items between two looks: neighbours are nearly the same test
_LEAST_WINDOW, _LEAST_SIDE = 10, 5


@dataclass
class Adwin:
    """`levels[i]`: buckets of 2^i items, oldest first: their sum, and their squared deviations from the mean."""

    alarms: FalseAlarms = field(default_factory=FalseAlarms)
    seen: int = 0
    width: int = 0
    total: float = 0.0
    spread: float = 0.0
    levels: list[list[tuple[float, float]]] = field(default_factory=list)

    def update(self, errors: npt.NDArray[Any]) -> Alarm | None:
        for value in read_errors(errors):
            self._insert(value)
            if self.seen % _EVERY == 0 and self.width > _LEAST_WINDOW and (alarm := self._cut()) is not None:
                return alarm
        return None

    def _insert(self, value: float) -> None:
        if self.width:
            self.spread += (value - self.total / self.width) ** 2 * self.width / (self.width + 1)
        self.seen, self.width, self.total = self.seen + 1, self.width + 1, self.total + value
        full, level = (value, 0.0), 0
        while True:
            if level == len(self.levels):
                self.levels.append([])
            self.levels[level].append(full)
            if len(self.levels[level]) <= _BUCKETS:
                return
            (one, its), (other, others) = self.levels[level][:2]
            del self.levels[level][:2]
            full, level = (one + other, its + others + (one - other) ** 2 / (2 << level)), level + 1

    def _cut(self) -> Alarm | None:
        """Drop the oldest buckets while what follows differs from them; an alarm where it is more."""
        alarm, dropped, errors = None, 0, 0.0
        while (rise := self._difference()) is not None:
            level = len(self.levels) - 1
            items, (total, spread) = 1 << level, self.levels[level].pop(0)
            while self.levels and not self.levels[-1]:
                self.levels.pop()
            rest = self.width - items
            apart = total / items - (self.total - total) / rest
            self.spread = max(0.0, self.spread - spread - items * rest / self.width * apart**2)
            self.width, self.total = rest, self.total - total
            dropped, errors = dropped + items, errors + total
            if rise > 0:
                alarm = Alarm(self.seen, self.seen - rest, errors / dropped, self.total / rest)
        return alarm

    def _difference(self) -> float | None:
        """By how much the mean after some cut is above that before it, where that is no chance."""
        items, total = 0, 0.0
        variance = self.spread / self.width if self.width else 0.0
        doubt = math.log(2.0 * math.log(max(self.width, 2)) / self.alarms.probability)
        for level in range(len(self.levels) - 1, -1, -1):
            for errors, _ in self.levels[level]:
                items, total = items + (1 << level), total + errors
                rest = self.width - items
                if rest < _LEAST_SIDE:
                    return None
                if items < _LEAST_SIDE:
                    continue
                share = 1.0 / (items - _LEAST_SIDE + 1) + 1.0 / (rest - _LEAST_SIDE + 1)
                rise = (self.total - total) / rest - total / items
                if abs(rise) > math.sqrt(2.0 * share * variance * doubt) + 2.0 / 3.0 * doubt * share:
                    return rise
        return None

    def state(self) -> dict[str, Any]:
        names = ("seen", "width", "total", "spread", "levels")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def from_state(cls, state: Mapping[str, Any], alarms: FalseAlarms) -> Adwin:
        levels = [[(total, spread) for total, spread in level] for level in state["levels"]]
        return cls(alarms, **{**state, "levels": levels})


@dataclass
class HddmA:
    """Each item is one test of the bound, but neighbours are nearly the same test: 200 simulated streams of 10,000 items
    raised no alarm at 1 % with the probability divided by items^(3/4), and 5 with it divided by their root.
    """

    alarms: FalseAlarms = field(default_factory=FalseAlarms)
    seen: int = 0
    total: float = 0.0
    lowest: int = 0  # after so many items the mean was surely lowest
    lowest_total: float = 0.0

    def update(self, errors: npt.NDArray[Any]) -> Alarm | None:
        doubt = -math.log(self.alarms.probability / self.alarms.items**0.75)
        for value in read_errors(errors):
            self.seen, self.total = self.seen + 1, self.total + value
            mean = self.total / self.seen
            upto = mean + math.sqrt(doubt / (2 * self.seen))
            if not self.lowest or self.lowest_total / self.lowest + math.sqrt(doubt / (2 * self.lowest)) >= upto:
                self.lowest, self.lowest_total = self.seen, self.total
                continue
            before, later = self.lowest_total / self.lowest, self.seen - self.lowest
            if mean - before >= math.sqrt(later / (2.0 * self.lowest * self.seen) * (doubt + math.log(2.0))):
                return Alarm(self.seen, self.lowest, before, (self.total - self.lowest_total) / later)
        return None

    def state(self) -> dict[str, Any]:
        names = ("seen", "total", "lowest", "lowest_total")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def from_state(cls, state: Mapping[str, Any], alarms: FalseAlarms) -> HddmA:
        return cls(alarms, **state)
