"""Records of decisions: what they count as in the next decision, and when a trigger is told again or is a new one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.core.decisions import OPEN, UNDER_WAY, DecisionRecord, Order, Standing, became, draft, occasion, past
from orchestrator.core.retraining import Action, Because, Cause, Decision, Trigger

DRIFT = Trigger(Cause.DRIFT, "drift/1/500", 600.0, "drift (major): height", severity=3)
ORDER = Order("run-base", 1, 0, 40)


def decided(action: Action = Action.RETRAIN, trigger: Trigger = DRIFT, **changes: Any) -> DecisionRecord:
    made = draft("default", "digits", Decision(trigger, action, Because.ACCEPTED, "words"), ORDER, "", 610.0)
    return replace(made, number=1, **changes)


@pytest.mark.parametrize(
    ("action", "standing"),
    [
        (Action.RETRAIN, Standing.ACCEPTED),
        (Action.ASK, Standing.ASKED),
        (Action.TELL, Standing.CLOSED),
        (Action.WAIT, Standing.WAITING),
        (Action.REFUSE, Standing.CLOSED),
    ],
)
def test_a_decision_begins_as_its_action_has_it(action: Action, standing: Standing) -> None:
    assert decided(action).standing is standing


def test_what_is_over_is_pending_until_it_was_announced() -> None:
    over = became(decided(), Standing.KEPT, "no better")
    assert (over.open, over.pending) == (False, True)
    assert not replace(over, announced=Standing.KEPT).pending
    assert replace(decided(), announced=Standing.ACCEPTED).pending, "it is still to be submitted"


def test_each_step_adds_its_words() -> None:
    record = became(became(decided(), Standing.TRAINING, "run run-1 trains", run="run-1"), Standing.KEPT, "no better")
    assert record.told == ("run run-1 trains", "no better")
    assert record.run == "run-1"


@pytest.mark.parametrize("standing", sorted(UNDER_WAY))
def test_a_retraining_that_is_under_way_stands_in_the_way_of_others(standing: Standing) -> None:
    (found,) = past([decided(standing=standing)])
    assert found.done_at is None


@pytest.mark.parametrize("standing", [Standing.KEPT, Standing.FAILED, Standing.PROBATION, Standing.ROLLED_BACK])
def test_one_that_has_trained_is_done_also_while_it_is_on_probation(standing: Standing) -> None:
    (found,) = past([decided(standing=standing, run="run-1", ended_at=700.0, cost=2.5)])
    assert (found.run, found.done_at, found.cost) == ("run-1", 700.0, 2.5)


def test_what_was_refused_told_or_rejected_was_no_retraining() -> None:
    others = [decided(action) for action in (Action.REFUSE, Action.TELL, Action.WAIT)]
    assert past([*others, decided(Action.ASK, standing=Standing.REJECTED)]) == []


def test_a_trigger_that_is_told_again_is_the_old_one_until_its_retraining_has_ended() -> None:
    assert occasion(DRIFT, [], 600.0) == DRIFT
    assert occasion(DRIFT, [decided(standing=Standing.TRAINING)], 900.0).key == DRIFT.key
    ended = decided(standing=Standing.KEPT, ended_at=800.0)
    assert occasion(DRIFT, [ended], 700.0).key == DRIFT.key, "told late"
    assert occasion(DRIFT, [ended], 900.0).key == f"{DRIFT.key}/2", "it drifts still"
    again = decided(trigger=replace(DRIFT, key=f"{DRIFT.key}/2"), standing=Standing.FAILED, ended_at=1000.0)
    assert occasion(DRIFT, [ended, again], 900.0).key == f"{DRIFT.key}/2"
    assert occasion(DRIFT, [ended, again], 1100.0).key == f"{DRIFT.key}/3"


def test_what_a_person_rejected_is_not_asked_again() -> None:
    rejected = decided(Action.ASK, standing=Standing.REJECTED)
    assert occasion(DRIFT, [rejected], 9e9).key == DRIFT.key


def test_standings_are_open_or_over() -> None:
    assert {
        Standing.CLOSED,
        Standing.REJECTED,
        Standing.FAILED,
        Standing.KEPT,
        Standing.PROMOTED,
        Standing.ROLLED_BACK,
    } == set(Standing) - OPEN
