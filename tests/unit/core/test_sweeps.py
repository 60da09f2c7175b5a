"""When a sweep is over, which trial is best, and what a trial is by the runs that tried it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.core.ledger import Ledger, TimeClass
from orchestrator.core.runs import Cancelled, Event, Lineage, Run
from orchestrator.core.sweeps import FIRST_FAILURES, Goal, Trial, TrialState, best, ending, replayed, verdict
from orchestrator.core.trials import Story, Stretch, trial_of
from tests.builders import queued_run

GOAL = Goal("val_accuracy", "max")


def trial(number: int, *values: float, state: TrialState = TrialState.COMPLETED, **changes: Any) -> Trial:
    curve = tuple(enumerate(values, 1))
    ended = None if state in (TrialState.RUNNING, TrialState.WAITING) else float(number)
    return Trial(number, {"train.lr": 0.1 * (number + 1)}, state, curve=curve, ended_at=ended, **changes)


def broken(number: int, reason: str) -> Trial:
    return trial(number, state=TrialState.INFEASIBLE, reason=reason)


@pytest.mark.parametrize(("mode", "number"), [("max", 1), ("min", 2)])
def test_the_best_trial_has_the_best_value_of_any_report_and_of_equals_is_the_earliest(mode: Any, number: int) -> None:
    trials = [trial(0, 0.5), trial(1, 0.9, 0.4), trial(2, 0.1), trial(3, 0.9, 0.1), trial(4)]
    found = best(trials, mode)
    assert found is not None
    assert found.number == number


def test_an_infeasible_trial_is_never_the_best() -> None:
    assert best([trial(0, 0.9, state=TrialState.INFEASIBLE)], "max") is None


@pytest.mark.parametrize(
    ("goal", "trials", "elapsed_s", "kind", "words"),
    [
        (Goal("m", "max", target=0.9), [trial(0, 0.95)], 0, "target", "trial 0 has m 0.95: the target is 0.9"),
        (Goal("m", "min", target=0.1), [trial(0, 0.1)], 0, "target", "trial 0 has m 0.1"),
        (Goal("m", "max", max_duration_s=60), [], 60, "max_duration", "max_duration of 60 s has passed"),
        (Goal("m", "max", max_cost=2), [trial(0, cost=1.5), trial(1, cost=0.5)], 0, "max_cost", "have cost 2"),
        (Goal("m", "max", plateau_trials=2), [trial(0, 0.5), trial(1, 0.4), trial(2, 0.5)], 0, "plateau", "no better"),
    ],
)
def test_a_sweep_is_over_when_a_limit_is_reached(
    goal: Goal, trials: list[Trial], elapsed_s: float, kind: str, words: str
) -> None:
    found = verdict(goal, trials, elapsed_s=elapsed_s)
    assert found is not None
    assert (found.kind, found.failed) == (kind, False)
    assert words in found.message


@pytest.mark.parametrize(
    ("goal", "trials", "elapsed_s"),
    [
        (Goal("m", "max", target=0.9), [trial(0, 0.89)], 0.0),
        (Goal("m", "min", target=0.1), [trial(0, 0.2)], 0.0),
        (Goal("m", "max", max_duration_s=60), [], 59.0),
        (Goal("m", "max", max_cost=2), [trial(0, cost=1.5)], 0.0),
        (Goal("m", "max", plateau_trials=2), [trial(0, 0.5), trial(1, 0.4), trial(2, 0.6), trial(3, 0.1)], 0.0),
        (Goal("m", "max", plateau_trials=1), [trial(0, 0.5), trial(1, 0.4, state=TrialState.RUNNING)], 0.0),
    ],
)
def test_a_sweep_goes_on_until_then(goal: Goal, trials: list[Trial], elapsed_s: float) -> None:
    assert verdict(goal, trials, elapsed_s=elapsed_s) is None


def test_trials_that_all_fail_alike_from_the_start_end_the_sweep() -> None:
    alike = [broken(number, f"Rank 1 on vm failed: no file x, lr was {0.1 * (number + 1)}") for number in range(9)]
    found = verdict(GOAL, alike[:FIRST_FAILURES], elapsed_s=0)
    assert found is not None
    assert found.failed
    assert "no file x" in found.message
    assert verdict(GOAL, alike[: FIRST_FAILURES - 1], elapsed_s=0) is None


def test_trials_that_fail_in_different_ways_or_after_one_that_did_not_end_nothing() -> None:
    alike = [broken(number, "no file x") for number in range(1, 5)]
    assert verdict(GOAL, [trial(0, 0.5), *alike], elapsed_s=0) is None
    assert verdict(GOAL, [broken(0, "the loss is NaN"), *alike], elapsed_s=0) is None


def test_the_end_names_the_best_or_why_there_is_none() -> None:
    assert ending([trial(0, 0.5), trial(1, 0.7)], GOAL).message.endswith("the best is trial 1 with val_accuracy 0.7")
    nothing = ending([broken(0, "out of memory")], GOAL)
    assert nothing.failed
    assert "out of memory" in nothing.message


def test_a_scheduler_hears_again_the_first_report_at_each_milestone_and_the_last() -> None:
    curve = tuple((report, report / 10) for report in (1, 2, 4, 5, 6))
    assert [report for report, _ in replayed(curve, (1, 3, 9))] == [1, 4, 6]
    assert replayed((), (1, 3)) == ()


def stretch(generation: int, values: dict[int, float], seconds: float, **changes: Any) -> Stretch:
    lineage = Lineage("run-sweep", 3, generation, {"train.lr": 0.1})
    run: Run = queued_run(run_id=f"run-{generation}", kind="trial", lineage=lineage)
    events = [Event(run.id, 1, 1005.0 + generation, "training", "")]
    for report, value in values.items():
        told = {"epoch": report - 1, "step": 10 * report, "metrics": {"val_accuracy": value, "val_loss": 1 - value}}
        events.append(Event(run.id, len(events) + 1, 1010.0, "epoch", "", told))
    return Stretch(run, Story().read(events), Ledger({TimeClass.TRAINING: int(seconds * 1e9)}), **changes)


def test_a_trial_is_what_its_runs_reported_together() -> None:
    first = stretch(0, {1: 0.5, 2: 0.6, 3: 0.9}, 4, cost=1.0, checkpoint="a")
    second = stretch(1, {3: 0.7, 4: math.nan}, 2, cost=0.5)
    found = trial_of([second, first], "val_accuracy", "max")
    assert found.curve == ((1, 0.5), (2, 0.6), (3, 0.7))
    assert (found.number, found.generation, found.run_id) == (3, 1, "run-1")
    assert found.metrics == {"val_accuracy": 0.7, "val_loss": pytest.approx(0.3)}
    assert (found.cost, found.seconds["training"], found.checkpoint) == (1.5, 6.0, "a")
    assert found.start_s == 5.0
    assert found.state is TrialState.WAITING


def test_a_trials_checkpoint_is_of_the_run_that_was_best_and_its_stages_are_told() -> None:
    first = stretch(0, {1: 0.5, 2: 0.9}, 4, checkpoint="a", seal="a")
    second = stretch(1, {3: 0.7}, 2, checkpoint="b", seal="c")
    found = trial_of([first, second], "val_accuracy", "max")
    assert (found.checkpoint, found.seal) == ("a", "c")
    assert [each.since for each in found.stages] == [1, 3]
    assert trial_of([first, second], "val_accuracy", "min").checkpoint == "a"
    assert trial_of([first, second], "val_loss", "max").checkpoint == "a"


def test_a_trial_that_was_ended_over_a_metric_that_is_no_number_is_infeasible() -> None:
    told = stretch(0, {1: 0.5, 2: math.nan}, 1)
    ended = replace(told.run, state=Cancelled(told.run.state.reason))
    assert trial_of([replace(told, run=ended)], "val_accuracy", "max").state is TrialState.INFEASIBLE
    assert trial_of([replace(told, run=ended)], "val_loss", "min").state is TrialState.INFEASIBLE
    fine = stretch(0, {1: 0.5}, 1)
    assert trial_of([replace(fine, run=ended)], "val_accuracy", "max").state is TrialState.STOPPED
