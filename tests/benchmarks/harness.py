"""What every benchmark shares: figures with bounds, paired statistics, and the JSON line that ends the output."""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

PAIRS, QUICK_PAIRS = 10, 3


@dataclass(frozen=True)
class Figure:
    """One number. `bound` None: told, but not held to anything."""

    name: str
    value: float
    unit: str
    bound: float | None = None
    better: Literal["lower", "higher"] = "lower"

    @property
    def holds(self) -> bool:
        if self.bound is None:
            return True
        if math.isnan(self.value):
            return False
        return self.value <= self.bound if self.better == "lower" else self.value >= self.bound


def report(benchmark: str, figures: Sequence[Figure]) -> None:
    """Print a table for people and, last, the line for machines. A missed bound is printed as missed."""
    for figure in figures:
        print(f"{figure.name:<44} {figure.value:>12.4g} {figure.unit:<8}{_against(figure)}")
    lines = [
        {key: value for key, value in {**asdict(each), "holds": each.holds}.items() if key != "better"}
        for each in figures
    ]
    for line in lines:
        line["value"] = None if math.isnan(line["value"]) else round(line["value"], 6)
    print(json.dumps({"benchmark": benchmark, "holds": all(each.holds for each in figures), "figures": lines}))


def _against(figure: Figure) -> str:
    if figure.bound is None:
        return ""
    sign = "<=" if figure.better == "lower" else ">="
    return f"  bound {sign} {figure.bound:g}: {'holds' if figure.holds else 'MISSED'}"


def arguments(description: str, pairs: int = PAIRS) -> argparse.Namespace:
    """`--quick`: three pairs instead of `pairs`. `--pairs N`: as many as asked."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_PAIRS} pairs instead of {pairs}")
    parser.add_argument("--pairs", type=int, help="number of interleaved pairs")
    parsed = parser.parse_args()
    parsed.pairs = parsed.pairs or (QUICK_PAIRS if parsed.quick else pairs)
    return parsed


def median(values: Sequence[float]) -> float:
    """NaN for none: a figure without a measurement misses every bound."""
    return statistics.median(values) if values else math.nan


def lower_bound(ratios: Sequence[float], *, confidence: float = 0.95, draws: int = 10_000, seed: int = 0) -> float:
    """Lower end of the one-sided bootstrap interval of the median of paired ratios (percentile method)."""
    if not ratios:
        return math.nan
    generator = random.Random(seed)
    medians = sorted(statistics.median(generator.choices(ratios, k=len(ratios))) for _ in range(draws))
    return medians[int((1 - confidence) * draws)]
