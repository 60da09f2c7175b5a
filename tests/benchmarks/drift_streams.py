"""Streams of 50 features for the benchmarks of drift: normal, heavy-tailed and skewed numbers, and skewed categories."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from orchestrator.drift.sketches import Coded, Column

WORDS = [f"value {number}" for number in range(20)]
_SHARES = 1.0 / np.arange(1, len(WORDS) + 1) ** 1.5
_SHARES /= _SHARES.sum()


def features(generator: np.random.Generator, rows: int) -> dict[str, Column]:
    """30 normal columns, 5 of Student's t with 2 degrees of freedom, 5 log-normal ones, 10 categories."""
    columns: dict[str, Column] = {f"normal {place}": generator.normal(size=rows) for place in range(30)}
    columns |= {f"heavy {place}": generator.standard_t(2, size=rows) for place in range(5)}
    columns |= {f"skewed {place}": generator.lognormal(size=rows) for place in range(5)}
    for place in range(10):
        columns[f"category {place}"] = Coded(generator.choice(len(WORDS), rows, p=_SHARES), WORDS)
    return columns


def part(columns: dict[str, Column], begin: int, end: int) -> dict[str, Column]:
    return {
        name: Coded(each.codes[begin:end], each.words) if isinstance(each, Coded) else each[begin:end]
        for name, each in columns.items()
    }


def errors(generator: np.random.Generator, *rates: tuple[int, float]) -> npt.NDArray[np.float64]:
    """Errors of a model, so many at each rate."""
    return np.concatenate([(generator.random(items) < rate).astype(np.float64) for items, rate in rates])
