"""A sweep and its trials, and every decision on them that does not belong to Ray Tune.

A *sweep* is a run whose file has `search:`. A *trial* is a point of its space with the run that tried it; where a
scheduler pauses or changes trials on the way, each stretch is a run of its own, and counts up the trial's `generation`.
One *report* is one word of the metric, at the end of an epoch. All decisions return their reason in words.
"""

from __future__ import annotations

import enum
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Mode = Literal["min", "max"]
FIRST_FAILURES = 4
"""So many trials that all fail alike, before any other has ended well: then it is not the points."""


def driver_of(sweep: str) -> str:
    """By what name the driver of a sweep does what it does."""
    return f"driver-of-{sweep}"


class TrialState(enum.StrEnum):
    WAITING = "waiting"  # its run is queued, or its ranks start
    RUNNING = "running"
    COMPLETED = "completed"  # ran to its own end
    STOPPED = "stopped"  # ended early: by the scheduler, or with the sweep
    INFEASIBLE = "infeasible"  # the configuration cannot work, or failed beyond its retries


LIVE = (TrialState.WAITING, TrialState.RUNNING)


@dataclass(frozen=True)
class Stage:
    """One generation of a trial."""

    point: Mapping[str, Any]
    start: str = ""  # the checkpoint that it went on from
    since: int = 1  # its first report
    parent: int | None = None  # the trial whose checkpoint that was


@dataclass(frozen=True)
class Trial:
    number: int  # counts from 0
    point: Mapping[str, Any]  # path in the run file: value
    state: TrialState = TrialState.WAITING
    run_id: str = ""  # of the newest generation
    generation: int = 0
    curve: tuple[tuple[int, float], ...] = ()  # (report, value of the metric), reports counting from 1; never NaN
    metrics: Mapping[str, float] = field(default_factory=dict)  # all that was reported with the best value
    checkpoint: str | None = None  # the best sealed one that is known
    seal: str | None = None  # the newest sealed one of the newest generation
    stages: tuple[Stage, ...] = ()  # by generation
    reason: str = ""  # why it is in that state
    seconds: Mapping[str, float] = field(default_factory=dict)  # worker-seconds by class of the ledger
    cost: float | None = None  # in the sweep's currency; None: no prices are known
    submitted_at: float = 0.0
    started_at: float | None = None  # of its first optimizer step
    ended_at: float | None = None

    def best(self, mode: Mode) -> float | None:
        """The best value that it reported."""
        values = [value for _, value in self.curve]
        return None if not values else max(values) if mode == "max" else min(values)

    @property
    def parent(self) -> int | None:
        """The trial that its newest generation went on from; None for the first one."""
        return self.stages[-1].parent if self.generation and self.stages else None

    @property
    def descent(self) -> str:
        """Where its generations came from, in words; empty for a trial that never changed."""
        return ", ".join(
            f"from trial {'?' if each.parent is None else each.parent} at report {each.since - 1}"
            for each in self.stages[1:]
        )

    @property
    def last(self) -> float | None:
        return self.curve[-1][1] if self.curve else None

    @property
    def reports(self) -> int:
        return self.curve[-1][0] if self.curve else 0

    @property
    def live(self) -> bool:
        return self.state in LIVE

    @property
    def start_s(self) -> float | None:
        """From submission to its first optimizer step."""
        return None if self.started_at is None else max(0.0, self.started_at - self.submitted_at)


@dataclass(frozen=True)
class Sweep:
    id: str
    project: str
    name: str
    state: str  # of its run
    reason: str
    metric: str
    mode: Mode
    algorithm: str
    scheduler: str
    wanted: int  # trials at most
    space: Mapping[str, Any]  # path: {kind: values, when: {...}}, as the run file says
    trials: tuple[Trial, ...] = ()
    room: int = 0  # gangs of a trial's shape that the clusters hold or could hold now
    currency: str | None = None
    submitted_at: float = 0.0
    started_at: float | None = None
    ended_at: float | None = None

    @property
    def best(self) -> Trial | None:
        return best(self.trials, self.mode)

    @property
    def counts(self) -> dict[TrialState, int]:
        counted = Counter(each.state for each in self.trials)
        return {state: counted.get(state, 0) for state in TrialState}

    @property
    def cost(self) -> float | None:
        costs = [each.cost for each in self.trials if each.cost is not None]
        return sum(costs) if costs else None


@dataclass(frozen=True)
class Goal:
    """What a sweep is held to. `None` anywhere: no such limit."""

    metric: str
    mode: Mode
    target: float | None = None
    max_duration_s: float | None = None
    max_cost: float | None = None
    plateau_trials: int | None = None
    plateau_change: float = 0.0


@dataclass(frozen=True)
class Verdict:
    """The sweep is over. `failed`: it found nothing that could be used."""

    kind: Literal["target", "max_duration", "max_cost", "plateau", "alike", "metric", "finished"]
    message: str
    failed: bool = False


def better(one: float, other: float, mode: Mode) -> bool:
    return one > other if mode == "max" else one < other


def best(trials: Iterable[Trial], mode: Mode) -> Trial | None:
    """The trial with the best value of all; of equals the earliest. None where nobody has reported."""
    found: Trial | None = None
    for trial in sorted(trials, key=lambda each: each.number):
        value = trial.best(mode)
        if value is None or trial.state is TrialState.INFEASIBLE:
            continue
        held = None if found is None else found.best(mode)
        if held is None or better(value, held, mode):
            found = trial
    return found


def verdict(goal: Goal, trials: Sequence[Trial], *, elapsed_s: float) -> Verdict | None:
    """Whether the sweep is over before its trials are, and why. None: it goes on."""
    checks = (
        _alike(trials),
        _reached(goal, trials),
        _too_long(goal, elapsed_s),
        _too_dear(goal, trials),
        _flat(goal, trials),
    )
    return next((each for each in checks if each is not None), None)


def _alike(trials: Sequence[Trial]) -> Verdict | None:
    """The first trials to end all failed in the same words: the run file is wrong, not the points."""
    ended = sorted((each for each in trials if not each.live), key=lambda each: (each.ended_at or 0.0, each.number))
    first = ended[:FIRST_FAILURES]
    if len(first) < FIRST_FAILURES or any(each.state is not TrialState.INFEASIBLE or each.curve for each in first):
        return None
    said = {_same_words(each) for each in first}
    if len(said) > 1:
        return None
    message = f"the first {FIRST_FAILURES} trials all failed the same way, the last: {first[-1].reason}"
    return Verdict("alike", message, failed=True)


def _same_words(trial: Trial) -> str:
    """A trial's reason without what differs from trial to trial: numbers, and the values of its point."""
    text = trial.reason
    for value in sorted((str(each) for each in trial.point.values()), key=len, reverse=True):
        text = text.replace(value, "?") if len(value) > 1 else text
    return "".join("0" if each.isdigit() else each for each in text)


def _reached(goal: Goal, trials: Sequence[Trial]) -> Verdict | None:
    found = best(trials, goal.mode)
    value = None if found is None else found.best(goal.mode)
    if goal.target is None or found is None or value is None or better(goal.target, value, goal.mode):
        return None
    return Verdict("target", f"trial {found.number} has {goal.metric} {value:.6g}: the target is {goal.target:g}")


def _too_long(goal: Goal, elapsed_s: float) -> Verdict | None:
    if goal.max_duration_s is None or elapsed_s < goal.max_duration_s:
        return None
    return Verdict("max_duration", f"max_duration of {goal.max_duration_s:g} s has passed")


def _too_dear(goal: Goal, trials: Sequence[Trial]) -> Verdict | None:
    spent = sum(each.cost or 0.0 for each in trials)
    if goal.max_cost is None or spent < goal.max_cost:
        return None
    return Verdict("max_cost", f"max_cost of {goal.max_cost:g} is used up: the trials have cost {spent:.4g}")


def _flat(goal: Goal, trials: Sequence[Trial]) -> Verdict | None:
    """By the order in which trials ended: those that still run may yet be better, but nobody waits for them."""
    if goal.plateau_trials is None:
        return None
    ended = sorted((each for each in trials if not each.live), key=lambda each: (each.ended_at or 0.0, each.number))
    values = [value for each in ended if (value := each.best(goal.mode)) is not None]
    since, held = 0, math.nan
    for value in values:
        gained = value - held if goal.mode == "max" else held - value
        if math.isnan(held) or gained > goal.plateau_change:
            since, held = 0, value
        else:
            since += 1
    if since < goal.plateau_trials:
        return None
    return Verdict("plateau", f"{since} trials in a row were no better than {goal.metric} {held:.6g}")


def ending(sweep_trials: Sequence[Trial], goal: Goal) -> Verdict:
    """What is said when every trial has ended."""
    found = best(sweep_trials, goal.mode)
    value = None if found is None else found.best(goal.mode)
    if found is None or value is None:
        reasons = Counter(each.reason for each in sweep_trials if each.reason)
        most = reasons.most_common(1)
        why = f", most of them so: {most[0][0]}" if most else ""
        return Verdict("finished", f"none of {len(sweep_trials)} trials reported {goal.metric}{why}", failed=True)
    message = f"{len(sweep_trials)} trials; the best is trial {found.number} with {goal.metric} {value:.6g}"
    return Verdict("finished", message)


def missing_metric(metric: str, reported: Iterable[str], near: str = "") -> str:
    """What is said of the first report without the metric."""
    names = ", ".join(sorted(reported)) or "nothing"
    return f"search.metric {metric} was not reported; the trial reports {names}" + (f" ({near})" if near else "")


def replayed(curve: Sequence[tuple[int, float]], milestones: Iterable[int]) -> tuple[tuple[int, float], ...]:
    """Those reports of a curve that a scheduler has to hear again after a restart: the first at or behind each
    milestone, and the last."""
    kept = {index for index in (_first_at(curve, each) for each in milestones) if index is not None}
    if curve:
        kept.add(len(curve) - 1)
    return tuple(curve[index] for index in sorted(kept))


def _first_at(curve: Sequence[tuple[int, float]], milestone: int) -> int | None:
    return next((index for index, (report, _) in enumerate(curve) if report >= milestone), None)
