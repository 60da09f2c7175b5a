"""The Elec2 stream (45,312 half hours of New South Wales' electricity market): what retraining is worth, and how little does.

Prequential: a logistic regression predicts each day's 48 rows, and is told the labels. Every arm trains the same model.

Ours: its errors go to our detector; `core.retraining` decides, for an alarm or for 1,250 new rows, with a cooldown of
1,050; each retraining trains one model, on the newest 500 rows. It stands by, as do those of before, 16 in all with the
champion: `core.recall` lets the one serve that was surely better (at 80 %) on the newest day's rows, which none was trained
on; none is promoted otherwise. Beside it: never, every 500, 1,000 and 2,000 rows, and whenever river's ADWIN says so. Each
of these has the snapshots, of 500, 1,000, 2,000 or 4,000 newest rows, that suit it best on this whole stream, told in
hindsight. Ours was set before, on the first 15,104 rows and on synthetic streams (SEA's concepts in turn, a rotating
hyperplane, a threshold that wanders): so the rows after those are told apart. Labels of Elec2 resemble their neighbours,
which favours whoever changes often (Zliobaite 2013).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from river.drift import ADWIN
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from orchestrator.core import recall
from orchestrator.core.retraining import Action, Cause, Mode, Policy, Retraining, Situation, Trigger, decide, due
from orchestrator.drift.detectors import FalseAlarms, PageHinkley
from tests.benchmarks.harness import Figure
from tests.shared_data import SHARED_DATA

DAY, FIRST, CHOSEN_ON = 48, 2_000, 15_104
SCHEDULES, SNAPSHOTS = (500, 1_000, 2_000), (500, 1_000, 2_000, 4_000)
HALF_HOUR_S = 1_800.0
NEWEST = 500
ALARMS = FalseAlarms(0.1, 1_000)
POLICY = Policy(
    causes=frozenset({Cause.PERFORMANCE, Cause.DATA_VOLUME}),
    mode=Mode.AUTO,
    cooldown_s=1_050 * HALF_HOUR_S,
    least_new_rows=NEWEST,
    volume_rows=1_250,
)
RECALL = recall.Policy(versions=16, rows=DAY, confidence=0.8)
Array = np.ndarray[Any, Any]
Wanted = Callable[[int, Array], bool]
"""Told the rows so far and the newest errors: whether to train now."""


def fitted(table: Array, begin: int, end: int) -> Any:
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200))
    return model.fit(table[max(0, begin) : end, :-1], table[max(0, begin) : end, -1])


class Loop(Protocol):
    trainings: int

    def errors(self, begin: int, end: int) -> Array:
        """1 where the model that serves is wrong about a row, else 0; then, whatever follows from that."""
        ...


@dataclass
class Replaced:
    """A model that is trained on the newest rows serves at once."""

    table: Array
    wanted: Wanted
    newest: int
    trainings: int = 0

    def __post_init__(self) -> None:
        self.model = fitted(self.table, 0, FIRST)

    def errors(self, begin: int, end: int) -> Array:
        errors = wrong(self.model, self.table, begin, end)
        if self.wanted(end, errors) and end < len(self.table):
            self.trainings += 1
            self.model = fitted(self.table, end - self.newest, end)
        return errors


def wrong(model: Any, table: Array, begin: int, end: int) -> Array:
    return np.asarray(model.predict(table[begin:end, :-1]) != table[begin:end, -1], dtype=np.float64)


def scheduled(every: int) -> Wanted:
    last = FIRST

    def wanted(rows: int, errors: Array) -> bool:
        nonlocal last
        if rows - last < every:
            return False
        last = rows
        return True

    return wanted


def by_adwin() -> Wanted:
    detector = ADWIN()

    def wanted(rows: int, errors: Array) -> bool:
        nonlocal detector
        alarmed = False
        for error in errors.tolist():
            detector.update(error)
            alarmed = alarmed or detector.drift_detected
        if alarmed:
            detector = ADWIN()
        return alarmed

    return wanted


@dataclass
class Ours:
    table: Array
    trainings: int = 0
    recalls: int = 0
    champion: int = 1
    detector: PageHinkley = field(default_factory=lambda: PageHinkley(ALARMS))
    trigger: Trigger | None = None
    past: list[Retraining] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.models = {1: fitted(self.table, 0, FIRST)}
        self.served = {1: float(FIRST)}  # the row at which each version last did, or was trained

    def errors(self, begin: int, end: int) -> Array:
        errors = {version: wrong(model, self.table, begin, end) for version, model in self.models.items()}
        served = errors[self.champion]
        self.served[self.champion] = end
        self._recall(errors, end - begin)
        if end < len(self.table) and self._retrains(end, served):
            self._train(end)
        return served

    def _recall(self, errors: dict[int, Array], rows: int) -> None:
        served = errors[self.champion]
        pairs = [
            recall.Paired(version, rows, int((served > each).sum()), int((each > served).sum()))
            for version, each in errors.items()
            if version != self.champion
        ]
        if (found := recall.judge(self.champion, pairs, RECALL).version) != 0:
            self.champion, self.recalls = found, self.recalls + 1
            # As the judging loop does: it watches another version now.
            self.detector, self.trigger = PageHinkley(ALARMS), None

    def _retrains(self, rows: int, errors: Array) -> bool:
        now = rows * HALF_HOUR_S
        since = self.past[-1].at / HALF_HOUR_S if self.past else FIRST
        situation = Situation(now, int(rows - since), self.past)
        if self.trigger is None and (alarm := self.detector.update(errors)):
            self.trigger = Trigger(Cause.PERFORMANCE, f"performance/{rows}", now, alarm.words)
        triggers = [self.trigger] if self.trigger is not None else []
        for each in [*triggers, *due(POLICY, situation, FIRST * HALF_HOUR_S)]:
            if decide(each, POLICY, situation).action is Action.RETRAIN:
                self.past.append(Retraining(f"run-{len(self.past)}", each.key, now, now))
                return True
        return False

    def _train(self, rows: int) -> None:
        self.detector, self.trigger, self.trainings = PageHinkley(ALARMS), None, self.trainings + 1
        new = 1 + self.trainings
        self.models[new], self.served[new] = fitted(self.table, rows - NEWEST, rows), float(rows)
        for each in self.models.keys() - {self.champion, *recall.standing_by(self.champion, self.served, RECALL)}:
            del self.models[each], self.served[each]


@dataclass(frozen=True)
class Outcome:
    """Shares of right predictions: of all rows after the first, and of those that ours was not set on."""

    accuracy: float
    later: float
    trainings: int
    recalls: int = 0


def prequential(table: Array, loop: Loop) -> Outcome:
    begins = range(FIRST, len(table), DAY)
    right = 1 - np.concatenate([loop.errors(begin, min(begin + DAY, len(table))) for begin in begins])
    recalls = loop.recalls if isinstance(loop, Ours) else 0
    return Outcome(float(right.mean()), float(right[CHOSEN_ON - FIRST :].mean()), loop.trainings, recalls)


def best(outcomes: Sequence[Outcome]) -> Outcome:
    return max(outcomes, key=lambda each: each.accuracy)


def figures() -> list[Figure]:
    path = SHARED_DATA / "elec.csv"
    if not path.is_file():
        print(f"Elec2 is left out: needs elec.csv in {SHARED_DATA}", file=sys.stderr)
        return []
    table = np.loadtxt(path, delimiter=",", skiprows=1)

    def of(wanted: Callable[[], Wanted]) -> Outcome:
        return best([prequential(table, Replaced(table, wanted(), newest)) for newest in SNAPSHOTS])

    fixed = {f"every {every:,} rows": of(lambda every=every: scheduled(every)) for every in SCHEDULES}  # type: ignore[misc]
    never = prequential(table, Replaced(table, lambda rows, errors: False, FIRST))
    others = {"never": never, "ADWIN": of(by_adwin), **fixed}
    ours = _ours(prequential(table, Ours(table)), list(others.values()), best(list(fixed.values())))
    return [*ours, *_beside(others)]


def _ours(ours: Outcome, others: Sequence[Outcome], schedule: Outcome) -> list[Figure]:
    later = max(each.later for each in others)
    return [
        Figure("Elec2, ours: accuracy", ours.accuracy, "share", best(others).accuracy, "higher"),
        Figure("Elec2, ours: accuracy on rows not set on", ours.later, "share", later, "higher"),
        Figure("Elec2, ours: retrainings, a model each", ours.trainings, "runs", schedule.trainings / 2),
        Figure("Elec2, ours: recalls, nothing trained", ours.recalls, "moves"),
    ]


def _beside(others: dict[str, Outcome]) -> list[Figure]:
    told = []
    for name, each in others.items():
        told.append(Figure(f"Elec2, {name}: accuracy", each.accuracy, "share"))
        told.append(Figure(f"Elec2, {name}: accuracy on those rows", each.later, "share"))
        told.append(Figure(f"Elec2, {name}: retrainings", each.trainings, "runs"))
    return told


if __name__ == "__main__":
    for figure in figures():
        print(figure)
