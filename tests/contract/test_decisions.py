"""What ports.Store promises of decisions on retraining, held by every store."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from orchestrator.core.decisions import DecisionRecord, Order, Standing, became, decided_again, draft
from orchestrator.core.retraining import Action, Because, Cause, Decision, Trigger
from orchestrator.errors import NotFound
from orchestrator.ports import Store
from tests.contract.stores import Backend, at_once


def made(
    key: str = "drift/1",
    because: Because = Because.ACCEPTED,
    action: Action = Action.RETRAIN,
    model: str = "digits",
    project: str = "default",
) -> DecisionRecord:
    decision = Decision(Trigger(Cause.DRIFT, key, 5.0, "it drifts", severity=2), action, because, "words", 7.5)
    return draft(project, model, decision, Order("run-base", 1, 0, 40), "ada", 6.0)


def changed(store: Store, record: DecisionRecord, **changes: Any) -> DecisionRecord:
    answer = store.change_decision(replace(record, **changes))
    assert answer is not None
    return answer


def test_a_decision_comes_back_as_it_was_kept_under_the_next_number_of_its_model(store: Store) -> None:
    first, second = store.record_decision(made()), store.record_decision(made("drift/2"))
    other = store.record_decision(made(model="faces"))
    assert (first.number, second.number, other.number) == (1, 2, 1)
    assert replace(first, number=0) == made()
    assert store.decision("default", "digits", 2) == second
    with pytest.raises(NotFound, match="no decision 3"):
        store.decision("default", "digits", 3)
    with pytest.raises(NotFound):
        store.decision("beta", "digits", 1)


def test_the_same_trigger_answered_for_the_same_reason_is_the_same_decision_as_it_stands_now(store: Store) -> None:
    first = store.record_decision(made())
    later = changed(store, became(first, Standing.TRAINING, "run run-1 trains", run="run-1"))
    assert store.record_decision(made()) == later
    waiting = store.record_decision(made(because=Because.COOLDOWN, action=Action.WAIT))
    assert waiting.number == 2
    assert len(store.decisions("default", "digits")) == 2


def test_one_that_was_decided_otherwise_since_is_found_by_how_it_was_kept_and_listed_as_it_is(store: Store) -> None:
    first = store.record_decision(made(because=Because.COOLDOWN, action=Action.WAIT))
    assert store.decisions("default", "digits", accepted=True) == []
    later = changed(store, decided_again(first, made().decision, first.order, 9.0))
    assert store.decisions("default", "digits", accepted=True) == [later]
    assert store.record_decision(made(because=Because.COOLDOWN, action=Action.WAIT)) == later
    assert store.record_decision(made()).number == 2


def test_a_change_of_an_old_revision_writes_nothing(store: Store) -> None:
    first = store.record_decision(made())
    later = changed(store, became(first, Standing.TRAINING, "trains"))
    assert later.revision == first.revision + 1
    assert store.change_decision(became(first, Standing.REJECTED, "late")) is None
    assert store.change_decision(replace(first, number=9)) is None
    assert store.decision("default", "digits", 1) == later


def test_of_many_changes_at_once_one_wins(store: Store) -> None:
    first = store.record_decision(made())
    answers = at_once(
        [partial(store.change_decision, became(first, Standing.REJECTED, f"by {number}")) for number in range(8)]
    )
    assert len([each for each in answers if each is not None]) == 1


def test_many_that_record_the_same_trigger_at_once_get_one_decision(store: Store) -> None:
    answers = at_once([partial(store.record_decision, made()) for _ in range(8)])
    assert {each.number for each in answers} == {1}


def test_a_listing_is_newest_first_goes_on_below_a_number_and_can_show_retrainings_alone(store: Store) -> None:
    for number in range(1, 6):
        refused = number % 2
        store.record_decision(
            made(f"drift/{number}", *((Because.COOLDOWN, Action.REFUSE) if refused else (Because.ACCEPTED,)))
        )
    store.record_decision(made(project="beta"))
    numbers = [each.number for each in store.decisions("default", "digits", limit=2)]
    assert numbers == [5, 4]
    assert [each.number for each in store.decisions("default", "digits", below=4)] == [3, 2, 1]
    assert [each.number for each in store.decisions("default", "digits", accepted=True)] == [4, 2]
    assert store.decisions("default", "nobody") == []


def test_what_is_open_or_unannounced_is_found_over_all_projects(store: Store) -> None:
    one = store.record_decision(made())
    two = store.record_decision(made(project="beta"))
    assert store.open_decisions() == [two, one]
    over = changed(store, became(one, Standing.KEPT, "no better"))
    assert store.open_decisions() == [two, over], "nobody was told of its end"
    changed(store, over, announced=Standing.KEPT)
    assert store.open_decisions() == [two]


def test_decisions_outlive_the_store(backend: Backend) -> None:
    if backend.name == "memory":
        pytest.skip("a store without a disk")
    store = backend.open()
    record = store.record_decision(made())
    store.close()
    again = backend.open()
    try:
        assert again.open_decisions() == [record]
    finally:
        again.close()
