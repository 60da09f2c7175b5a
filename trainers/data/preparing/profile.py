"""What the training part looks like, small enough to be kept with a model version: drift is judged against it.

    {"format": 1, "rows": 1258,
     "numbers": {"dep_delay": {"count", "missing", "mean", "deviation", "min", "max", "quantiles": [101 values]}},
     "categories": {"carrier": {"count", "missing", "values": {"UA": 411, ...}, "other": 3}},
     "label": {"name", and as above, of a number or of a category},
     "channels": [{"count", "mean", "deviation", "min", "max"}]}

`quantiles` are those at 0, 0.01, ... 1 of the raw values, from `trainers.data.preparing.fitting.SAMPLE_ROWS` rows at most:
their ranks are off by 0.002 (standard deviation at the median) then, and exact where there are fewer.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt

from trainers.data.preparing.fitting import Moments, Statistics, numbers
from trainers.data.preparing.transform import Fitted

FORMAT = 1
QUANTILES = 101
_VALUES = 100
"""A category's most frequent values are counted one by one."""


def profile_of(statistics: Statistics, fitted: Fitted) -> dict[str, Any]:
    """The profile as JSON holds it."""
    roles = fitted.roles
    profile: dict[str, Any] = {"format": FORMAT, "rows": statistics.rows, "numbers": {}, "categories": {}}
    for place, name in enumerate(roles.numbers):
        profile["numbers"][name] = _number(statistics, name, statistics.numbers, place)
    for name in roles.categories:
        profile["categories"][name] = _category(statistics.categories[name], statistics.nulls[name])
    if roles.label is not None:
        label = (
            _category(statistics.labels[0], 0)
            if roles.classes
            else _number(statistics, roles.label, statistics.label_moments, 0)
        )
        profile["label"] = {"name": roles.label, **label}
    if statistics.numbers is not None and not roles.numbers:
        profile["channels"] = [_moments(statistics.numbers, place) for place in range(len(fitted.scales))]
    return profile


def _number(statistics: Statistics, name: str, moments: Moments | None, place: int) -> dict[str, Any]:
    assert moments is not None  # of columns that are there
    values = known_values(statistics, name)
    quantiles = (
        [float(f"{each:.6g}") for each in np.quantile(values, np.linspace(0, 1, QUANTILES))] if len(values) else []
    )
    return {**_moments(moments, place), "missing": statistics.nulls[name], "quantiles": quantiles}


def known_values(statistics: Statistics, name: str) -> npt.NDArray[np.float64]:
    """The finite values of a number among the sampled rows."""
    values = numbers(statistics.sample, [name])[:, 0]
    return values[np.isfinite(values)]


def _moments(moments: Moments, place: int) -> dict[str, Any]:
    return {
        "count": int(moments.count[place]),
        "mean": float(moments.mean[place]),
        "deviation": float(moments.deviation[place]),
        "min": float(moments.low[place]),
        "max": float(moments.high[place]),
    }


def _category(counts: Counter[Any], missing: int) -> dict[str, Any]:
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], str(pair[0])))
    return {
        "count": sum(counts.values()),
        "missing": missing,
        "values": {str(value): count for value, count in ordered[:_VALUES]},
        "other": sum(count for _, count in ordered[_VALUES:]),
    }
