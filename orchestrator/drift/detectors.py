"""Concept drift, item by item: has a model begun to err more often?

The default is Page's cumulative sum as Page-Hinkley's test applies it (Page 1954; Hinkley 1971): with a slack of half the
smallest shift that matters and a threshold that follows from the false-alarm probability asked for, by the Markov chain of
Brook and Evans (1972), in place of constants that fit no stream. `adwin` and `hddm_a` are river's, at the confidence that
holds the same probability.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from orchestrator.errors import Refused

_STATES = 150
_RATE_STEPS = 100
"""Thresholds are computed for rates in steps of a hundredth, and used for all rates around."""
_SHIFT_DEVIATIONS = 0.25
_LEAST_SHIFT = 0.02
WARM_UP = 200
"""Items before which no alarm is raised where there is no reference: a rate must be known before it can have changed."""


@dataclass(frozen=True)
class FalseAlarms:
    """The probability of at least one false alarm in so many items of a stream whose error rate does not change."""

    probability: float = 0.01
    items: int = 10_000

    def __post_init__(self) -> None:
        if not 0 < self.probability < 1 or self.items < 1:
            raise ValueError(f"a probability between 0 and 1 in at least one item, not {self}")


@dataclass(frozen=True)
class Alarm:
    """The error rate rose: at which item that was seen, where it began, and from which rate to which."""

    item: int
    since_item: int
    before: float
    after: float

    @property
    def words(self) -> str:
        return (
            f"the error rate rose from {self.before:.3g} to {self.after:.3g} at about item {self.since_item}, "
            f"seen {self.item - self.since_item} items later"
        )


class Detector(Protocol):
    def update(self, errors: npt.NDArray[Any]) -> Alarm | None:
        """Take in errors between 0 and 1, in their order, up to the first alarm; what follows it is not looked at."""
        ...


@dataclass
class PageHinkley:
    """One-sided, for losses between 0 and 1. `errors` and `items` begin as those of the reference, so that the rate is
    known from the first item on; the stream's own join them. `shift` None: a quarter of the losses' deviation.
    """

    alarms: FalseAlarms = FalseAlarms()
    items: int = 0
    errors: float = 0.0
    shift: float | None = None
    seen: int = 0
    total: float = 0.0
    since: int = 0
    since_errors: float = 0.0

    def update(self, errors: npt.NDArray[Any]) -> Alarm | None:
        values = np.asarray(errors, dtype=np.float64)
        if len(values) and not (values.min() >= 0.0 and values.max() <= 1.0):
            raise ValueError("errors lie between 0 and 1: divide losses by their greatest value")
        for value in values.tolist():
            self.seen += 1
            self.items += 1
            self.errors += value
            if self.items < WARM_UP:
                continue
            rate = self.errors / self.items
            shift, threshold = _limits(round(rate * _RATE_STEPS), self.alarms, self.shift)
            self.total += value - rate - shift / 2
            self.since_errors += value
            if self.total <= 0.0:
                self.total, self.since, self.since_errors = 0.0, self.seen, 0.0
            elif self.total > threshold:
                return self._alarm()
        return None

    def _alarm(self) -> Alarm:
        length = self.seen - self.since
        earlier = self.items - length
        before = (self.errors - self.since_errors) / earlier if earlier else 0.0
        return Alarm(self.seen, self.since, before, self.since_errors / length)

    def state(self) -> dict[str, float]:
        """What `from_state` goes on from, as JSON holds it."""
        names = ("items", "errors", "seen", "total", "since", "since_errors")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def from_state(cls, state: Mapping[str, Any], alarms: FalseAlarms, shift: float | None = None) -> PageHinkley:
        return cls(alarms=alarms, shift=shift, **state)


@lru_cache(maxsize=4096)
def _limits(rate_step: int, alarms: FalseAlarms, shift: float | None) -> tuple[float, float]:
    """The shift to look for and the threshold, of rates around `rate_step` hundredths.

    The threshold is that of a quarter of the probability, for a rate that is known. One that is learned from the stream
    doubles it, as simulations have it; the rest is a margin.
    """
    rate = min(max(rate_step / _RATE_STEPS, 0.5 / _RATE_STEPS), 1 - 0.5 / _RATE_STEPS)
    looked_for = shift or max(_LEAST_SHIFT, _SHIFT_DEVIATIONS * math.sqrt(rate * (1 - rate)))
    return looked_for, threshold(rate, looked_for, 4 * alarms.items / alarms.probability)


def threshold(rate: float, shift: float, run_length: float) -> float:
    """At which the cumulative sum of Bernoulli errors, less their rate and half the shift, alarms once in `run_length` items
    on average. Losses between 0 and 1 of that mean alarm no sooner: none vary more.
    """
    low, high = 1.0, 2.0
    while _run_length(rate, shift, high) < run_length:
        low, high = high, 2 * high
    while high > 1.01 * low:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if _run_length(rate, shift, middle) < run_length else (low, middle)
    return high


def _run_length(rate: float, shift: float, limit: float) -> float:
    """Mean number of items from 0 to above the limit: steps between two states go to both, with their mean kept."""
    cell, slack = limit / _STATES, rate + shift / 2
    stay = np.zeros((_STATES, _STATES))
    places = np.arange(_STATES)
    for step, probability in (((1 - slack) / cell, rate), (-slack / cell, 1 - rate)):
        whole = math.floor(step)
        for jump, share in ((whole, 1 - (step - whole)), (whole + 1, step - whole)):
            to = np.maximum(places + jump, 0)
            inside = to < _STATES
            np.add.at(stay, (places[inside], to[inside]), probability * share)
    return float(np.linalg.solve(np.eye(_STATES) - stay, np.ones(_STATES))[0])


class _Rivers:
    """A detector of river's, which keeps the rate before for the words."""

    def __init__(self, detector: Any, *, ones: bool) -> None:
        self._detector, self._ones = detector, ones
        self._seen, self._errors = 0, 0.0

    def update(self, errors: npt.NDArray[Any]) -> Alarm | None:
        for value in np.asarray(errors, dtype=np.float64).tolist():
            self._seen += 1
            before = self._errors / (self._seen - 1) if self._seen > 1 else 0.0
            self._errors += value
            self._detector.update(bool(value) if self._ones else value)
            if self._detector.drift_detected and (after := self._after(before)) > before:
                return Alarm(self._seen, self._since(), before, after)
        return None

    def _after(self, before: float) -> float:
        return float(getattr(self._detector, "estimation", math.nextafter(before, 1.0)))

    def _since(self) -> int:
        return self._seen - int(getattr(self._detector, "width", 0))


@contextlib.contextmanager
def _river_installed(detector: str) -> Iterator[None]:
    """Raises Refused in an installation without river: it brings scipy, and a server's image is small without."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != "river":
            raise
        raise Refused(
            f"the detector {detector!r} needs river: install evertrain[monitors], or choose another"
        ) from error


def adwin(alarms: FalseAlarms = FalseAlarms()) -> Detector:
    """Adaptive windows (Bifet and Gavalda 2007). Its state does not outlive the process, nor does it merge."""
    with _river_installed("adwin"):
        from river.drift import ADWIN

    return _Rivers(ADWIN(delta=alarms.probability), ones=False)


def hddm_a(alarms: FalseAlarms = FalseAlarms()) -> Detector:
    """Hoeffding's bound on averages (Frias-Blanco et al. 2015), for errors that are 0 or 1. Each item is one test of the
    bound, but neighbours are nearly the same test: 200 simulated streams of 10,000 items raised no alarm at 1 % with the
    probability divided by items^(3/4), and 5 with it divided by their root.
    """
    with _river_installed("hddm_a"):
        from river.drift.binary import HDDMA

    return _Rivers(HDDMA(drift_confidence=alarms.probability / alarms.items**0.75), ones=True)
