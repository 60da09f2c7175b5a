"""Whether a version that was promoted is taken back: its live performance against what it is held to.

Looked at as often as anybody likes: the evidence is a mixture of likelihood ratios, a test martingale, which exceeds 1 / p
with probability p at most, ever (Ville 1939; Robbins 1970). So a promotion that did no harm is taken back with probability
`Policy.false_alarms` at most, however often labels come.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from functools import lru_cache

_RATES = 64
"""Error rates above the one that is held to, over which the evidence is mixed."""
_SURE = 1.645  # one-sided 95 % of a normal distribution
UNWATCHED = "its live performance is not watched, as no accuracy was proven that it could be held to"


class Standing(enum.StrEnum):
    WATCHING = "watching"
    PASSED = "passed"
    ROLL_BACK = "roll_back"


@dataclass(frozen=True)
class Policy:
    """`drop`: by how much the error rate may rise. 0 `length_s`: no probation."""

    length_s: float = 86_400.0
    drop: float = 0.02
    false_alarms: float = 0.01


@dataclass(frozen=True)
class Answers:
    """Those of a version whose labels are known."""

    rows: int
    errors: int

    def __post_init__(self) -> None:
        if not 0 <= self.errors <= self.rows:
            raise ValueError(f"{self.errors} errors in {self.rows} answers")

    @property
    def rate(self) -> float:
        return self.errors / self.rows if self.rows else 0.0


@dataclass(frozen=True)
class Verdict:
    standing: Standing
    words: str
    until: float  # end of the probation


def judge(promoted_at: float, now: float, before: Answers, since: Answers, policy: Policy) -> Verdict:
    """`before`: what it is held to, such as its answers in the proof. `since`: its live answers of the probation so far.

    Where nothing is known of before, there is nothing to hold it to: it is not watched.
    A rise that shows only after the probation has ended is drift, not a bad promotion: it is passed.
    """
    until = promoted_at + policy.length_s
    allowed = min(_upper(before) + policy.drop, 1.0)
    rates = f"error rate {since.rate:.3g} on {since.rows:,} labelled rows, {before.rate:.3g} on {before.rows:,} before"
    if evidence(since, allowed) >= 1 / policy.false_alarms and policy.length_s:
        words = f"falls short in its probation: {rates}, and {allowed:.3g} is allowed"
        return Verdict(Standing.ROLL_BACK, words, until)
    if now < until:
        return Verdict(Standing.WATCHING, f"on probation: {rates}", until)
    if not before.rows:
        return Verdict(Standing.PASSED, f"its probation has ended: {UNWATCHED}", until)
    if not since.rows:
        return Verdict(
            Standing.PASSED, "its probation has ended without a labelled row: nothing speaks against it", until
        )
    return Verdict(Standing.PASSED, f"has passed its probation: {rates}", until)


def evidence(answers: Answers, allowed: float) -> float:
    """How much likelier the errors are at higher rates than at `allowed`: their mean over rates spread evenly above it.

    Of answers whose true rate is at most `allowed` it is ever 1 / p or more with probability p at most.
    """
    if not 0 < allowed < 1:
        return float("inf") if allowed <= 0 and answers.errors else 0.0
    right = answers.rows - answers.errors
    ratios = [answers.errors * wrong + right * well for wrong, well in _ratios(allowed)]
    highest = max(ratios)
    if highest > 700:  # more than a float holds, and more than anybody asks for
        return float("inf")
    return math.exp(highest) * sum(math.exp(each - highest) for each in ratios) / _RATES


@lru_cache(maxsize=256)
def _ratios(allowed: float) -> list[tuple[float, float]]:
    """Of each rate above: by how much a wrong and a right answer are likelier at it, as logarithms."""
    rates = [allowed + (1 - allowed) * (place + 0.5) / _RATES for place in range(_RATES)]
    return [(math.log(rate / allowed), math.log((1 - rate) / (1 - allowed))) for rate in rates]


def _upper(answers: Answers) -> float:
    """What the rate that so few answers show may really be (Wilson's bound). Nothing known: no rate is too high."""
    if not answers.rows:
        return 1.0
    rate, n, square = answers.rate, answers.rows, _SURE**2
    middle = rate + square / (2 * n)
    spread = _SURE * math.sqrt(rate * (1 - rate) / n + square / (4 * n * n))
    return (middle + spread) / (1 + square / n)
