"""Concept drift, item by item: has a model begun to err more often?

The default is Page's cumulative sum as Page-Hinkley's test applies it (Page 1954; Hinkley 1971): with a slack of half the
smallest shift that matters and a threshold that follows from the false-alarm probability asked for, by the Markov chain of
Brook and Evans (1972), in place of constants that fit no stream. Those that need no rate to begin with are in `bounds`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

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

    def state(self) -> dict[str, Any]:
        """What it has seen, as JSON holds it: constant in size, or of the logarithm of the items."""
        ...


def read_errors(errors: npt.NDArray[Any]) -> list[float]:
    """Raises ValueError for losses that are not between 0 and 1."""
    values = np.asarray(errors, dtype=np.float64)
    if len(values) and not (values.min() >= 0.0 and values.max() <= 1.0):
        raise ValueError("errors lie between 0 and 1: divide losses by their greatest value")
    read: list[float] = values.tolist()
    return read


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
        for value in read_errors(errors):
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
    if slack >= 1:
        return math.inf  # no error raises the sum: a rate so high cannot rise by half the shift
    stay = np.zeros((_STATES, _STATES))
    places = np.arange(_STATES)
    for step, probability in (((1 - slack) / cell, rate), (-slack / cell, 1 - rate)):
        whole = math.floor(step)
        for jump, share in ((whole, 1 - (step - whole)), (whole + 1, step - whole)):
            to = np.maximum(places + jump, 0)
            inside = to < _STATES
            np.add.at(stay, (places[inside], to[inside]), probability * share)
    return float(np.linalg.solve(np.eye(_STATES) - stay, np.ones(_STATES))[0])
