"""Which trials of a sweep are worth going on with: asynchronous halving that looks at every trial again and again.

Asynchronous successive halving (Li et al. 2020, arXiv 1810.05934) compares a trial at its rungs with all that passed them
before. Once points are proposed by what was learned, those before are the bad ones of the beginning: whatever comes later
passes every rung, runs to its end, and few are tried. Here a trial is compared with those that are still in the race or got
as far, at the last report that both have made, so that it also yields to a better one that began after it. And it ends
when even going on as steeply as of late would not bring it to the best value that there is.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field

from orchestrator.core.sweeps import Mode, Trial, TrialState

BELIEVED = 1 / 9
"""Of a whole trial: before that a curve's slope says nothing of where it ends, for some begin late."""


@dataclass
class _Course:
    """What was heard of one trial: its reports, and the best value until each, the more the better."""

    reports: list[int] = field(default_factory=list)
    bests: list[float] = field(default_factory=list)
    live: bool = True
    counts: bool = True  # False: its configuration cannot work

    @property
    def last(self) -> int:
        return self.reports[-1] if self.reports else 0

    @property
    def best(self) -> float:
        return self.bests[-1] if self.bests else -math.inf

    def hear(self, report: int, value: float) -> None:
        if report > self.last and math.isfinite(value):
            self.reports.append(report)
            self.bests.append(max(self.best, value))

    def at(self, report: int) -> float:
        """The best until this report; the first value where that came later."""
        return self.bests[max(0, bisect_right(self.reports, report) - 1)]


class Halving:
    """Of `reduction` trials about one goes on to the next rung, `reduction` times as far, and is looked at halfway as well.

    `most`: reports of a whole trial. `known`: trials from before, whose reports need not be heard again.
    """

    def __init__(self, mode: Mode, *, grace: int, reduction: int, most: int, known: Iterable[Trial] = ()) -> None:
        self._sign = 1 if mode == "max" else -1
        self._grace, self._most = grace, most
        self.milestones = milestones(grace, reduction, most)
        self._courses: dict[int, _Course] = {}
        for trial in known:
            course = self._courses[trial.number] = _Course(live=trial.live)
            course.counts = trial.state is not TrialState.INFEASIBLE
            for report, value in trial.curve:
                course.hear(report, self._sign * value)

    def hear(self, number: int, report: int, value: float) -> str | None:
        """Why the trial should end with this report; None: it goes on. A report that is not news changes nothing."""
        course = self._courses.setdefault(number, _Course())
        before = course.last
        course.hear(report, self._sign * value)
        passed = bisect_right(self.milestones, course.last) > bisect_right(self.milestones, before)
        return (self._flat(course) or self._behind(course)) if course.live and passed else None

    def end(self, number: int, *, infeasible: bool = False) -> None:
        course = self._courses.setdefault(number, _Course())
        course.live = False
        course.counts = course.counts and not infeasible

    def _behind(self, course: _Course) -> str | None:
        """Of all trials only a share goes on from here, by the rank among those that still could."""
        told = [each for each in self._courses.values() if each.counts and each.reports]
        ahead = sum(1 for each in told if each is not course and _ahead(each, course))
        places = max(1.0, len(told) * self._grace / (course.last + self._grace))
        if ahead + 1 <= places:
            return None
        return (
            f"{ahead} are ahead of it at report {course.last}, and of {len(told)} trials {math.floor(places)} may go on"
        )

    def _flat(self, course: _Course) -> str | None:
        """Learning curves flatten out by the logarithm of time: a straight line along it is the most that can come."""
        at, earlier = course.last, max(1, course.last // 2)
        if at < 2 or at < BELIEVED * self._most:
            return None
        others = (each for each in self._courses.values() if each is not course and each.counts)
        held = max((each.best for each in others), default=-math.inf)
        slope = (course.best - course.at(earlier)) / math.log(at / earlier)
        reached = course.best + slope * math.log(self._most / at)
        if reached >= held:
            return None
        told, there = self._sign * reached, self._sign * held
        return f"going on as since report {earlier} it would come to {told:.4g}, and {there:.4g} is there"


def milestones(grace: int, reduction: int, most: int) -> tuple[int, ...]:
    """The rungs and the reports halfway between them, by factors. The last report is none where there is another: there a
    trial ends by itself.
    """
    found = [grace]
    while (at := round(grace * math.sqrt(reduction) ** len(found))) < most:
        found.append(max(at, found[-1] + 1))
    return tuple(each for each in found if each < most) or (grace,)


def _ahead(other: _Course, course: _Course) -> bool:
    """Whether it was better at the last report of both. One that ended on the way was judged the worse already."""
    common = min(other.last, course.last)
    return (other.live or other.last >= course.last) and other.at(common) > course.at(common)
