"""Tail probabilities of the distributions that the tests refer to. All are upper tails, accurate where they are small."""

from __future__ import annotations

import math

import numpy as np

_EXACT_BELOW = 2_000
_TERMS = 400


def normal_tail(z: float) -> float:
    """P(|Z| >= |z|)."""
    return math.erfc(abs(z) / math.sqrt(2.0))


def kolmogorov_tail(distance: float, n: float) -> float:
    """P(D >= distance) of the two-sample statistic, `n` the harmonic size nm / (n + m): Smirnov's limit, a little
    conservative for finite samples.
    """
    scaled = distance * distance * n
    if scaled < 0.04:  # the series would need many terms to say 1
        return 1.0
    terms = (math.exp(-2.0 * scaled * k * k) * (1 if k % 2 else -1) for k in range(1, 20))
    return min(1.0, max(0.0, 2.0 * sum(terms)))


def chi_squared_tail(statistic: float, degrees: int) -> float:
    """P(X >= statistic): the regularized upper incomplete gamma function, by series or by Lentz's continued fraction."""
    if degrees < 1 or statistic <= 0:
        return 1.0
    a, x = degrees / 2.0, statistic / 2.0
    front = math.exp(a * math.log(x) - x - math.lgamma(a))
    return 1.0 - front * _lower_series(a, x) if x < a + 1.0 else front * _upper_fraction(a, x)


def _lower_series(a: float, x: float) -> float:
    term = total = 1.0 / a
    for step in range(1, _TERMS):
        term *= x / (a + step)
        total += term
        if term < total * 1e-16:
            break
    return total


def _upper_fraction(a: float, x: float) -> float:
    b = x + 1.0 - a
    c, d = 1e300, 1.0 / b
    fraction = d
    for step in range(1, _TERMS):
        weight = -step * (step - a)
        b += 2.0
        d = 1.0 / (weight * d + b)
        c = b + weight / c
        fraction *= c * d
        if abs(c * d - 1.0) < 1e-15:
            break
    return fraction


def more_often(hits: int, rows: int, reference_hits: int, reference_rows: int) -> float:
    """P(at least so many hits among `rows`) if both samples have one rate: Fisher's exact test, upper tail; with the normal
    limit where hits are so many that it is one.
    """
    if hits <= 0 or not rows or not reference_rows:
        return 1.0
    total, everything = hits + reference_hits, rows + reference_rows
    if min(total, everything - total) >= _EXACT_BELOW:
        share = total / everything
        spread = math.sqrt(share * (1 - share) * (1 / rows + 1 / reference_rows))
        z = (hits / rows - reference_hits / reference_rows) / spread
        return 0.5 * math.erfc(z / math.sqrt(2.0))
    if everything - total < total:  # count the rarer outcome: at least `hits` is at most so many misses
        return _hypergeometric(rows - hits, rows, everything - total, everything, upper=False)
    return _hypergeometric(hits, rows, total, everything, upper=True)


def _hypergeometric(hits: int, drawn: int, marked: int, everything: int, *, upper: bool) -> float:
    low, high = max(0, drawn + marked - everything), min(drawn, marked)
    k = np.arange(low, high)
    ratios = np.log((marked - k) * (drawn - k)) - np.log((k + 1.0) * (everything - marked - drawn + k + 1.0))
    logs = np.concatenate([[0.0], np.cumsum(ratios)])
    weights = np.exp(logs - logs.max())
    part = weights[hits - low :] if upper else weights[: hits - low + 1]
    return min(1.0, float(part.sum() / weights.sum()))


def beyond_the_maximum(hits: int, rows: int, reference_rows: int) -> float:
    """P(at least so many of `rows` exceed the greatest of `reference_rows`) where all are exchangeable; no distribution
    is assumed. With ties it is an upper bound.
    """
    if hits <= 0 or not reference_rows:
        return 1.0
    k = np.arange(min(hits, rows))
    return float(np.exp(np.log((rows - k) / (rows + reference_rows - k)).sum()))
