"""Tests of one feature: the reference's summary against a window's.

Each yields an `Evidence`: an effect size, and the probability of such an effect where nothing has moved, by the sizes of both
samples and the rank errors of both sketches. All are computed from the summaries; no row is needed.

    ks            Kolmogorov-Smirnov distance of the two distributions, less both rank errors (Smirnov 1948)
    rank_sum      Mann-Whitney: how far P(reference < current) is from a half (1947); strongest against a moved level
    psi           population stability index on the reference's deciles; n PSI is chi-squared (Yurdakul and Naranjo 2020)
    jensen_shannon  divergence in nats on the same bins, chi-squared likewise
    wasserstein   area between the distribution functions over the reference's range, in the reference's deviations; its tail
                  by the Borell-TIS inequality: the area under |B(F(x))|, B a Brownian bridge, has mean
                  sqrt(2/pi) * integral of sqrt(F(1-F)) and concentrates with the variance of the feature
    chi_squared   of the table of categories; cells that expect few are taken together
    missing, range, new_categories   exact tests of a share (Fisher; exchangeability with the reference's extremes)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from orchestrator.drift.distributions import (
    beyond_the_maximum,
    chi_squared_tail,
    kolmogorov_tail,
    more_often,
    normal_tail,
)
from orchestrator.drift.sketches import EXTREMES, CategorySummary, Floats, NumberSummary, Summary

BINS = 10
_POINTS = np.linspace(0.005, 0.995, 100)
_LEAST_EXPECTED = 10.0
_Z_OF_RANK_ERROR = 2.576  # a sketch's rank error is told with 99 % confidence


@dataclass(frozen=True)
class Evidence:
    """`p`: of an effect at least as large with nothing moved. `n`, `m`: values in the window and in the reference."""

    test: str
    effect: float
    p: float
    n: int
    m: int
    rank_error: float = 0.0  # of both sketches together
    detail: str = ""


@dataclass(frozen=True)
class _Grid:
    """Both distributions on common points: shares in (points[i-1], points[i]], the last cell beyond all points."""

    points: Floats
    reference: Floats  # distribution function at the points
    current: Floats
    n: int
    m: int
    rank_error: float

    @property
    def size(self) -> float:
        """Of one sample that would vary as much as the difference of these two."""
        return self.n * self.m / (self.n + self.m)


def deciding(reference: Summary, current: Summary) -> list[Evidence]:
    """The tests that a judgement rests on: few, for each more costs power. Summaries of two kinds have none."""
    if isinstance(reference, NumberSummary) and isinstance(current, NumberSummary):
        tests = [_missing(reference, current)]
        if reference.count and current.count + current.infinite:
            tests.append(_range(reference, current))
        if reference.count and current.count:
            grid = _grid(reference, current)
            tests += [_ks(grid), _rank_sum(grid, reference, current)]
        return tests
    if isinstance(reference, CategorySummary) and isinstance(current, CategorySummary):
        tests = [_missing(reference, current)]
        if reference.count and current.count:
            tests += [_new_categories(reference, current), _chi_squared(reference, current)]
        return tests
    return []


def describing(reference: Summary, current: Summary) -> list[Evidence]:
    """The measures that people know, with their own significance; no judgement waits for them."""
    if not reference.rows - reference.missing or not current.rows - current.missing:
        return []
    if isinstance(reference, NumberSummary) and isinstance(current, NumberSummary):
        if not reference.count or not current.count:
            return []
        return [*_binned(reference, current), _wasserstein(_grid(reference, current), reference)]
    if isinstance(reference, CategorySummary) and isinstance(current, CategorySummary):
        error = reference.rank_error + current.rank_error
        return _divergences(*_table(reference, current), current.count, reference.count, error)
    return []


def _grid(reference: NumberSummary, current: NumberSummary) -> _Grid:
    points = np.unique(np.concatenate([reference.quantiles(_POINTS), current.quantiles(_POINTS)]))
    return _Grid(
        points,
        reference.ranks(points),
        current.ranks(points),
        current.count,
        reference.count,
        reference.rank_error + current.rank_error,
    )


def _ks(grid: _Grid) -> Evidence:
    distance = float(np.abs(grid.reference - grid.current).max())
    p = kolmogorov_tail(max(0.0, distance - grid.rank_error), grid.size)
    return Evidence("ks", distance, p, grid.n, grid.m, grid.rank_error)


def _rank_sum(grid: _Grid, reference: NumberSummary, current: NumberSummary) -> Evidence:
    mine, theirs = np.diff(grid.current, prepend=0.0, append=1.0), np.diff(grid.reference, prepend=0.0, append=1.0)
    below = np.concatenate([[0.0], grid.reference])
    shift = float((mine * (below + theirs / 2)).sum()) - 0.5
    pooled = (grid.n * mine + grid.m * theirs) / (grid.n + grid.m)
    variance = (1.0 - float((pooled**3).sum())) / (12.0 * grid.size)
    variance += (reference.rank_error**2 + current.rank_error**2) / _Z_OF_RANK_ERROR**2
    p = normal_tail(shift / math.sqrt(variance)) if variance > 0 else 1.0
    return Evidence("rank_sum", 2.0 * shift, p, grid.n, grid.m, grid.rank_error)


def _binned(reference: NumberSummary, current: NumberSummary) -> list[Evidence]:
    edges = np.unique(reference.quantiles(np.linspace(0, 1, BINS + 1)[1:-1]))
    shares = [np.diff(each.ranks(edges), prepend=0.0, append=1.0) for each in (reference, current)]
    filled = shares[0] + shares[1] > 0  # the last bin is empty where an edge is the greatest value
    error = reference.rank_error + current.rank_error
    return _divergences(shares[0][filled], shares[1][filled], current.count, reference.count, error)


def _divergences(expected: Floats, found: Floats, n: int, m: int, error: float) -> list[Evidence]:
    """PSI and Jensen-Shannon. Empty cells count half a row: their logarithms must exist."""
    cells, size = len(expected), n * m / (n + m)
    q, p = (expected * m + 0.5) / (m + 0.5 * cells), (found * n + 0.5) / (n + 0.5 * cells)
    psi = float(((p - q) * np.log(p / q)).sum())
    middle = (p + q) / 2
    js = float((p * np.log(p / middle) + q * np.log(q / middle)).sum()) / 2
    return [
        Evidence("psi", psi, chi_squared_tail(size * psi, cells - 1), n, m, error),
        Evidence("jensen_shannon", js, chi_squared_tail(8.0 * size * js, cells - 1), n, m, error),
    ]


def _wasserstein(grid: _Grid, reference: NumberSummary) -> Evidence:
    unit = robust_deviation(reference)
    inside = (grid.points >= reference.low) & (grid.points <= reference.high)
    points = grid.points[inside]
    if len(points) < 2 or unit == 0:
        return Evidence("wasserstein", 0.0, 1.0, grid.n, grid.m, grid.rank_error)
    widths = np.diff(points) / unit
    gaps = np.abs(grid.reference - grid.current)[inside][:-1]
    f = np.clip(grid.reference[inside][:-1], 0.0, 1.0)
    area = float((gaps * widths).sum())
    usual = math.sqrt(2 / math.pi) * float((np.sqrt(f * (1 - f)) * widths).sum())
    middles = (points[:-1] + points[1:]) / 2 / unit
    masses = np.diff(grid.reference[inside])
    variance = float((masses * middles**2).sum() - (masses * middles).sum() ** 2 / max(masses.sum(), 1e-12))
    surely = max(0.0, area - grid.rank_error * float(widths.sum()))
    excess = math.sqrt(grid.size) * surely - usual
    p = math.exp(-excess * excess / (2 * variance)) if excess > 0 and variance > 0 else 1.0
    return Evidence("wasserstein", area, p, grid.n, grid.m, grid.rank_error)


def robust_deviation(summary: NumberSummary) -> float:
    """What the deviation would be of a normal distribution with these quartiles; of a lump, the deviation itself."""
    low, high = summary.quantiles(np.array([0.25, 0.75]))
    return float(high - low) / 1.349 or summary.deviation


def _table(reference: CategorySummary, current: CategorySummary) -> tuple[Floats, Floats]:
    """Shares of the cells that expect enough rows on both sides, then of all others together."""
    n, m = current.count, reference.count
    large, smaller = [], min(n, m) / (n + m)
    for value, times in reference.values.items():
        if (times + current.values.get(value, 0)) * smaller >= _LEAST_EXPECTED:
            large.append(value)
    expected = np.array([reference.values[value] for value in large], dtype=np.float64)
    found = np.array([current.values.get(value, 0) for value in large], dtype=np.float64)
    expected, found = np.append(expected, m - expected.sum()), np.append(found, n - found.sum())
    filled = expected + found > 0
    return expected[filled] / m, found[filled] / n


def _chi_squared(reference: CategorySummary, current: CategorySummary) -> Evidence:
    """Where all that is rare expects too few rows together, one row of it would outweigh all others: it joins the smallest
    cell, and whether there is more of it is an exact test of its own (of two, the smaller probability counts twice).
    """
    n, m, error = current.count, reference.count, reference.rank_error + current.rank_error
    expected, found = _table(reference, current)
    distance = float(np.abs(found - expected).sum()) / 2
    of_rare: float | None = None
    pooled = (found * n + expected * m) / (n + m)
    if len(pooled) > 1 and pooled[-1] * min(n, m) < _LEAST_EXPECTED:
        of_rare = more_often(round(max(0.0, found[-1] - error) * n), n, round(expected[-1] * m), m)
        expected, found, pooled = (_with_last(each, int(pooled[:-1].argmin())) for each in (expected, found, pooled))
    gaps = np.maximum(np.abs(found - expected) - error, 0.0)
    statistic = n * m / (n + m) * float((gaps**2 / pooled).sum())
    p = chi_squared_tail(statistic, len(expected) - 1)
    if of_rare is not None:
        p = min(1.0, 2 * min(p, of_rare))
    return Evidence("chi_squared", distance, p, n, m, error)


def _with_last(shares: Floats, place: int) -> Floats:
    """The last cell taken together with the one at this place."""
    joined = shares[:-1].copy()
    joined[place] += shares[-1]
    return joined


def _missing(reference: Summary, current: Summary) -> Evidence:
    n, m = current.rows, reference.rows
    if not n or not m:
        return Evidence("missing", 0.0, 1.0, n, m)
    more = more_often(current.missing, n, reference.missing, m)
    less = more_often(n - current.missing, n, m - reference.missing, m)
    return Evidence("missing", current.missing / n - reference.missing / m, min(1.0, 2 * min(more, less)), n, m)


def _range(reference: NumberSummary, current: NumberSummary) -> Evidence:
    n, m = current.count + current.infinite, reference.count
    below = _beyond(current, int((current.lowest < reference.low).sum()), reference.low, upper=False)
    above = _beyond(current, int((current.highest > reference.high).sum()), reference.high, upper=True)
    above += current.infinite
    p = min(1.0, 2 * min(beyond_the_maximum(below, n, m), beyond_the_maximum(above, n, m)))
    reach = f"[{current.low:.4g}, {current.high:.4g}] against [{reference.low:.4g}, {reference.high:.4g}]"
    infinite = f", {current.infinite} of them infinite" if current.infinite else ""
    return Evidence("range", (below + above) / n, p, n, m, current.rank_error, reach + infinite)


def _beyond(current: NumberSummary, extremes: int, edge: float, *, upper: bool) -> int:
    """How many values lie beyond the edge: exact while not all kept extremes do, by the sketch then."""
    if extremes < EXTREMES:
        return extremes
    share = float(current.ranks(np.array([edge]))[0])
    return max(extremes, round(current.count * (1.0 - share if upper else share)))


def _new_categories(reference: CategorySummary, current: CategorySummary) -> Evidence:
    """A reference has not met all that is rare: as many more as it met once may be expected (Good 1953)."""
    new = {value: times for value, times in current.values.items() if value not in reference.values}
    unknown = sum(new.values()) + current.other
    once = sum(times == 1 for times in reference.values.values())
    p = more_often(unknown, current.count, reference.other + once + 1, reference.count + 1)
    most = sorted(new, key=lambda value: (-new[value], value))[:3]
    share = unknown / current.count - reference.other / reference.count
    names = ", ".join(most) + (f" and {len(new) - 3} more" if len(new) > 3 else "")
    return Evidence("new_categories", max(0.0, share), p, current.count, reference.count, current.rank_error, names)
