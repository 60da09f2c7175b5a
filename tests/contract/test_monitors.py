"""What ports.Store promises of monitors and their judgements, held by every store."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from orchestrator.core.monitors import Judgement, Monitor
from orchestrator.core.records import ModelVersion
from orchestrator.core.runs import Run
from orchestrator.errors import NotFound, Refused
from orchestrator.ports import Change, Store
from tests.contract.stores import Backend, at_once, submit


def monitor(project: str = "default", model: str = "digits", **changes: Any) -> Monitor:
    values: dict[str, Any] = {"settings": {"window": {"rows": 500}}, "run": "run-0", "reference": 1, "created_at": 5.0}
    return Monitor(project, model, **{**values, **changes})


def judgement(end: float, **changes: Any) -> Judgement:
    values: dict[str, Any] = {"start": end - 10, "rows": 500, "status": "stable", "severity": 0, "words": "stable"}
    return Judgement(0, end + 1, end=end, **{**values, **changes})


def put(store: Store, made: Monitor) -> Monitor:
    stored = store.put_monitor(made)
    assert stored is not None
    return stored


def register(store: Store, run: Run, **changes: Any) -> None:
    """A version of `digits` by that run, whose file says that it is watched."""
    model = ModelVersion(run.project, "digits", 0, run.id, "/seal", {}, 5.0)
    draft = monitor(run.project, run=run.id, reference=0, **changes)
    assert store.apply([Change(run, model=model, monitor=draft)]) != [None]


def test_the_first_watched_version_becomes_champion_and_is_what_live_data_are_judged_against(store: Store) -> None:
    one, two = submit(store, range(2))
    register(store, one)
    register(store, two)

    found = store.monitor("default", "digits")

    assert (found.reference, found.run, found.revision) == (1, one.id, 1)
    assert [(each.version, each.aliases) for each in store.models("default")] == [(2, ()), (1, ("champion",))]


def test_a_champion_that_was_named_before_stays_and_is_the_reference(store: Store) -> None:
    one, two = submit(store, range(2))
    store.apply([Change(one, model=ModelVersion("default", "digits", 0, one.id, "/seal", {}, 5.0))])
    store.move_alias("default", "digits", "champion", 1, at=2.0, by="ada", reason="named before")
    register(store, two)

    assert store.monitor("default", "digits").reference == 1
    assert [each.aliases for each in store.models("default")] == [(), ("champion",)]


def test_a_file_that_says_otherwise_changes_the_settings_and_nothing_that_was_seen(store: Store) -> None:
    one, two = submit(store, range(2))
    register(store, one)
    seen = put(store, replace(store.monitor("default", "digits"), state={"cursor": 7}))
    register(store, two, settings={"window": {"rows": 100}})

    found = store.monitor("default", "digits")

    assert (found.settings, found.run) == ({"window": {"rows": 100}}, two.id)
    assert (found.state, found.reference, found.revision) == ({"cursor": 7}, 1, seen.revision + 1)


def test_a_monitor_comes_back_as_it_was_put(store: Store) -> None:
    made = monitor(state={"cursor": 3, "total": 0.1, "text": "ü\0", "none": float("nan")}, paused="by ada")

    stored = put(store, made)

    found = store.monitor("default", "digits")
    assert found.state.keys() == made.state.keys()
    assert math.isnan(found.state["none"])
    assert (found.state["text"], found.paused, found.revision) == ("ü\0", "by ada", 1)
    assert replace(found, state={}) == replace(stored, state={}) == replace(made, state={}, revision=1)


def test_monitors_are_listed_by_model_and_found_in_their_project_only(store: Store) -> None:
    for project, model in [("b", "x"), ("a", "y"), ("a", "x")]:
        put(store, monitor(project, model, state={"cursor": 7}))

    assert {bool(each.state) for each in store.monitors("*")} == {False}
    assert store.monitor("a", "x").state == {"cursor": 7}
    assert [(each.model, each.project) for each in store.monitors("*")] == [("x", "a"), ("x", "b"), ("y", "a")]
    assert [each.model for each in store.monitors("b")] == ["x"]
    assert store.monitor("*", "y").project == "a"
    with pytest.raises(NotFound, match="monitor list"):
        store.monitor("b", "y")
    with pytest.raises(Refused, match="--project"):
        store.monitor("*", "x")


def test_of_many_changes_of_one_revision_exactly_one_is_written_with_its_judgements(store: Store) -> None:
    made = put(store, monitor())

    answers = at_once(
        [
            partial(store.record_judgements, replace(made, state={"cursor": count}), [judgement(float(count))])
            for count in range(8)
        ]
    )

    (won,) = [each for each in answers if each is not None]
    assert store.monitor("default", "digits") == won
    assert [each.end for each in store.judgements("default", "digits")] == [float(won.state["cursor"])]


def test_a_monitor_is_inserted_once(store: Store) -> None:
    answers = at_once([partial(store.put_monitor, monitor()) for _ in range(4)])

    assert sorted(each is not None for each in answers) == [False, False, False, True]
    assert store.put_monitor(monitor(revision=9)) is None


def test_judgements_are_numbered_in_their_order_and_read_newest_first_page_by_page(store: Store) -> None:
    made = put(store, monitor())
    for ends in ([1.0, 2.0], [], [3.0, 4.0, 5.0]):
        answer = store.record_judgements(made, [judgement(end) for end in ends])
        assert answer is not None
        made = answer
    put(store, monitor("other"))

    first = store.judgements("default", "digits", limit=2)
    rest = store.judgements("default", "digits", below=first[-1].number)

    assert [(each.number, each.end) for each in (*first, *rest)] == [(5, 5.0), (4, 4.0), (3, 3.0), (2, 2.0), (1, 1.0)]
    assert store.judgements("other", "digits") == store.judgements("default", "nobody") == []


def test_a_judgement_comes_back_as_it_was_recorded(store: Store) -> None:
    made = judgement(9.5, status="drift", severity=2, words="x moved", evidence={"findings": [{"p": 1e-12}]})

    store.record_judgements(put(store, monitor()), [made])

    assert store.judgements("default", "digits") == [replace(made, number=1)]


def test_only_the_newest_judgements_are_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.store.store.KEPT_JUDGEMENTS", 3)
    monkeypatch.setattr("orchestrator.store.memory.KEPT_JUDGEMENTS", 3)
    made = put(store, monitor())
    for end in range(5):
        answer = store.record_judgements(made, [judgement(float(end))])
        assert answer is not None
        made = answer

    assert [each.number for each in store.judgements("default", "digits")] == [5, 4, 3]


def test_monitors_are_there_after_opening_again(backend: Backend) -> None:
    store = backend.open()
    kept = store.record_judgements(put(store, monitor()), [judgement(1.0)])
    store.close()

    again = backend.open()

    assert again.monitor("default", "digits") == kept
    assert [each.number for each in again.judgements("default", "digits")] == [1]
    again.close()
