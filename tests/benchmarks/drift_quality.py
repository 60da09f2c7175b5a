"""How often drift is cried for nothing, and how soon and surely it is found.

    python -m tests.benchmarks.drift_quality [--quick] [--seeds N]

Features: streams of 10,000 rows and 50 features against a reference of 10,000 rows, cut and judged with the defaults. In half
of them nothing moves: any verdict of drift or of broken data is a false alarm. In the other half one normal feature moves by
0.3 deviations at a row that is drawn by chance, and must be found within 2,000 rows. evidently's preset judges the same kind
of stream in windows of 1,000 rows, of fewer seeds.

Errors: streams of 10,000 items at an error rate of 0.2, or with a rise to 0.3 in the middle, given to our detector at its
default and to river's at theirs. Delays count from the rise; an alarm before it is a false one.

Elec2 (with ../shared/data/elec.csv): see `elec2`.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
from river.drift import ADWIN
from river.drift import PageHinkley as RiversPageHinkley
from river.drift.binary import DDM, HDDMA

from orchestrator.drift.bounds import Adwin, HddmA
from orchestrator.drift.detectors import FalseAlarms, PageHinkley
from orchestrator.drift.sketches import REFERENCE_K, TableSummary
from orchestrator.drift.verdicts import History, Policy, Status, judge
from orchestrator.drift.windows import Cut, Windows
from tests.benchmarks import elec2
from tests.benchmarks.drift_streams import errors, features, part
from tests.benchmarks.harness import Figure, median, report
from tests.benchmarks.peers.evidently_venv import false_alarm_share

SEEDS, QUICK_SEEDS = 200, 20
ROWS, BEFORE, WITHIN, SHIFT = 10_000, 5_000, 2_000, 0.3
_ALARMS = (Status.DRIFT, Status.DATA_FAULT)


def judged(seed: int, shift: float) -> tuple[int, list[int]]:
    """The row at which one feature of a stream moves, and the rows at which alarms were raised."""
    generator = np.random.default_rng(seed)
    reference = TableSummary(k=REFERENCE_K)
    reference.update(features(generator, ROWS))
    live, at = features(generator, ROWS), BEFORE + int(generator.integers(0, 1_000))
    if shift:
        live["normal 7"][at:] += shift  # type: ignore[index]
    windows, history, alarms = Windows(Cut()), History(), []
    for begin in range(0, ROWS, windows.cut.rows):
        end = begin + windows.cut.rows
        for _ in windows.add(part(live, begin, end), np.arange(begin, end)):
            verdict, history = judge(reference, windows.spans(), history, Policy())
            if verdict.status in _ALARMS:
                alarms.append(end)
    return at, alarms


def feature_figures(seeds: int, pool: ProcessPoolExecutor) -> list[Figure]:
    still = list(pool.map(judged, range(seeds), [0.0] * seeds))
    moved = list(pool.map(judged, range(seeds, 2 * seeds), [SHIFT] * seeds))
    false = sum(bool(alarms) for _, alarms in still) / seeds
    delays = [next((row - at for row in alarms if row > at), ROWS) for at, alarms in moved]
    power = sum(delay <= WITHIN for delay in delays) / seeds
    return [
        Figure("family-wise false alarms, 50 features", false, "share", 0.01),
        Figure("power at 0.3 deviations in 2,000 rows", power, "share", 0.95, "higher"),
        Figure("rows until a feature's drift is told", median(delays), "rows"),
    ]


def rivers(detector: Any, values: np.ndarray[Any, Any], *, ones: bool) -> int | None:
    for item, value in enumerate(values.tolist(), 1):
        detector.update(bool(value) if ones else value)
        if detector.drift_detected:
            return item
    return None


def ours(detector: Any, values: np.ndarray[Any, Any]) -> int | None:
    alarm = detector.update(values)
    return alarm.item if alarm else None


DETECTORS: Mapping[str, Callable[[np.ndarray[Any, Any]], int | None]] = {
    "ours": lambda values: ours(PageHinkley(FalseAlarms()), values),
    "ours, ADWIN": lambda values: ours(Adwin(FalseAlarms()), values),
    "ours, HDDM-A": lambda values: ours(HddmA(FalseAlarms()), values),
    "river ADWIN": lambda values: rivers(ADWIN(), values, ones=False),
    "river Page-Hinkley": lambda values: rivers(RiversPageHinkley(), values, ones=False),
    "river HDDM-A": lambda values: rivers(HDDMA(), values, ones=True),
    "river DDM": lambda values: rivers(DDM(), values, ones=True),
}


def detected(seed: int) -> dict[str, tuple[int | None, int | None]]:
    """By detector: the item of its first alarm on a stream that stands still, and on one that rises in the middle."""
    generator = np.random.default_rng(10_000 + seed)
    still, rising = errors(generator, (ROWS, 0.2)), errors(generator, (BEFORE, 0.2), (BEFORE, 0.3))
    return {name: (detect(still), detect(rising)) for name, detect in DETECTORS.items()}


def error_figures(seeds: int, pool: ProcessPoolExecutor) -> list[Figure]:
    found = list(pool.map(detected, range(seeds)))
    figures = []
    for name in DETECTORS:
        bounds = (0.01, 400.0, 0.0) if name == "ours" else (None, None, None)
        false = sum(each[name][0] is not None for each in found) / seeds
        rises = [each[name][1] for each in found]
        delays = [item - BEFORE for item in rises if item is not None and item > BEFORE]
        missed = sum(item is None for item in rises)
        figures += [
            Figure(f"{name}: false alarms in 10,000 items", false, "share", bounds[0]),
            Figure(f"{name}: delay of 0.2 -> 0.3", median(delays), "items", bounds[1]),
            Figure(f"{name}: missed", missed, "streams", bounds[2]),
        ]
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_SEEDS} seeds instead of {SEEDS}")
    parser.add_argument("--seeds", type=int)
    asked = parser.parse_args()
    seeds = asked.seeds or (QUICK_SEEDS if asked.quick else SEEDS)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        figures = error_figures(seeds, pool) + feature_figures(seeds, pool)
    streams = 1 if asked.quick else 10
    figures.append(Figure("evidently's preset: false alarms", false_alarm_share(streams), "share"))
    report("drift_quality", figures + elec2.figures())


if __name__ == "__main__":
    main()
