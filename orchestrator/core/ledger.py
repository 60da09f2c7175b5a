"""The goodput ledger: every worker-nanosecond belongs to exactly one class.

A `WorkerClock` is one worker's account: it is always in some class, and moving to the next one books the time since. All
arithmetic is on integers, so the parts add up to the whole exactly. A clock that goes backwards books nothing.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace


class TimeClass(enum.StrEnum):
    QUEUED = "queued"
    STARTING = "starting"
    RESTORING = "restoring"
    TRAINING = "training"
    RECOMPUTING = "recomputing"
    CHECKPOINT = "checkpoint"
    EVALUATING = "evaluating"
    HUNG = "hung"
    IDLE = "idle"
    STOPPING = "stopping"


@dataclass(frozen=True)
class Ledger:
    """Worker-nanoseconds by class; absent classes are zero."""

    ns: Mapping[TimeClass, int] = field(default_factory=dict)

    @property
    def total_ns(self) -> int:
        return sum(self.ns.values())

    def seconds(self, time_class: TimeClass) -> float:
        return self.ns.get(time_class, 0) / 1e9

    def plus(self, time_class: TimeClass, ns: int) -> Ledger:
        """Raises ValueError for negative time."""
        if ns < 0:
            raise ValueError(f"a ledger cannot take {ns} ns of {time_class}")
        return Ledger({**self.ns, time_class: self.ns.get(time_class, 0) + ns}) if ns else self

    def without(self, time_class: TimeClass) -> Ledger:
        return Ledger({each: ns for each, ns in self.ns.items() if each is not time_class})

    @property
    def goodput(self) -> float | None:
        """Share of all time that trained something new; None before any time was booked."""
        return self.ns.get(TimeClass.TRAINING, 0) / self.total_ns if self.total_ns else None


def add(ledgers: Iterable[Ledger]) -> Ledger:
    total: dict[TimeClass, int] = {}
    for ledger in ledgers:
        for time_class, ns in ledger.ns.items():
            total[time_class] = total.get(time_class, 0) + ns
    return Ledger(total)


@dataclass(frozen=True)
class WorkerClock:
    """One worker's account. `since_ns` is where the running interval of `current` began."""

    current: TimeClass
    since_ns: int
    booked: Ledger = field(default_factory=Ledger)

    def switch(self, time_class: TimeClass, at_ns: int) -> WorkerClock:
        """Book the time up to `at_ns` and go on in `time_class`. An `at_ns` in the past books nothing and moves no time."""
        at_ns = max(at_ns, self.since_ns)
        return WorkerClock(time_class, at_ns, self.booked.plus(self.current, at_ns - self.since_ns))

    def at(self, now_ns: int) -> Ledger:
        """The account as of `now_ns`, the running interval included."""
        return self.switch(self.current, now_ns).booked

    def declare_hung(self, last_sign_ns: int, now_ns: int) -> WorkerClock:
        """The worker has shown nothing since `last_sign_ns`: what follows it was not work."""
        cut = min(max(last_sign_ns, self.since_ns), max(now_ns, self.since_ns))
        return replace(self.switch(TimeClass.HUNG, cut))
