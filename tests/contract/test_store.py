"""What ports.Store promises, held by every store."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from orchestrator.core.alerts import Alert, Firing, Outcome
from orchestrator.core.ledger import Ledger, TimeClass
from orchestrator.core.records import AliasMove, Checkpoint, Cluster, EventDraft, ModelVersion, Role, RunFilter, Token
from orchestrator.core.runs import (
    STATE_NAMES,
    TERMINAL_NAMES,
    Attempt,
    Incarnation,
    Lineage,
    Queued,
    Run,
    Spent,
    StopOrder,
)
from orchestrator.errors import Conflict, InvalidSpec, NotFound, Refused, Unavailable
from orchestrator.ports import Change, Store
from tests import builders
from tests.contract.stores import STATES, Backend, at_once, move, run_id, submission, submit


def everything(store: Store, where: RunFilter, limit: int = 3) -> list[Run]:
    """All pages of a listing."""
    runs: list[Run] = []
    page = ""
    while True:
        found = store.runs(where, page=page, limit=limit)
        assert len(found.runs) <= limit
        runs += found.runs
        page = found.next_page
        if not page:
            return runs


def ids(runs: list[Run] | tuple[Run, ...]) -> list[str]:
    return [run.id for run in runs]


# ---- submitting ----------------------------------------------------------------------------------------------------


def test_a_submission_is_a_queued_run_with_its_first_event(store: Store) -> None:
    (answer,) = store.submit([submission(1)])

    assert answer.created
    assert isinstance(answer.run.state, Queued)
    assert store.run("default", answer.run.id) == answer.run
    (event,) = store.events(answer.run.id)
    assert (event.seq, event.kind, event.at) == (1, "submitted", 1001.0)


def test_a_batch_is_answered_and_listed_in_its_order(store: Store) -> None:
    answers = store.submit([submission(number) for number in (3, 1, 2)])

    assert [answer.run.id for answer in answers] == [run_id(3), run_id(1), run_id(2)]
    assert ids(everything(store, RunFilter("default"))) == [run_id(2), run_id(1), run_id(3)]
    assert store.submit([]) == []


def test_a_key_used_again_gives_the_run_of_then_as_it_is_now(store: Store) -> None:
    (first,) = store.submit([submission(1, idempotency_key="k", spec_sha256="a")])
    moved = move(store, first.run, STATES["RUNNING"])

    (second,) = store.submit([submission(2, idempotency_key="k", spec_sha256="a")])

    assert (second.created, second.run) == (False, moved)
    assert len(everything(store, RunFilter("default"))) == 1
    assert len(store.events(first.run.id)) == 1


def test_a_key_counts_within_one_batch_too(store: Store) -> None:
    one, two = store.submit([submission(number, idempotency_key="k", spec_sha256="a") for number in (1, 2)])

    assert (one.created, two.created) == (True, False)
    assert one.run == two.run


def test_a_key_counts_within_its_project_only(store: Store) -> None:
    answers = store.submit(
        [
            submission(1, project="a", idempotency_key="k", spec_sha256="x"),
            submission(2, project="b", idempotency_key="k", spec_sha256="y"),
        ]
    )

    assert [answer.created for answer in answers] == [True, True]


def test_an_empty_key_is_a_key(store: Store) -> None:
    one, two = store.submit([submission(number, idempotency_key="") for number in (1, 2)])

    assert (one.created, two.created) == (True, False)


@pytest.mark.parametrize("already", ["stored", "in the same batch"])
def test_a_key_with_another_document_is_a_conflict_and_records_none(store: Store, already: str) -> None:
    first = submission(1, idempotency_key="k", spec_sha256="a")
    if already == "stored":
        store.submit([first])

    with pytest.raises(Conflict, match="'k'"):
        store.submit([submission(2), first, submission(3, idempotency_key="k", spec_sha256="b"), submission(4)])

    assert ids(everything(store, RunFilter("default"))) == ([run_id(1)] if already == "stored" else [])


def test_an_id_used_again_is_a_conflict_and_records_none(store: Store) -> None:
    submit(store, [1])

    with pytest.raises(Conflict):
        store.submit([submission(2), submission(1)])

    assert ids(everything(store, RunFilter("default"))) == [run_id(1)]


def test_one_key_from_many_threads_makes_one_run(store: Store) -> None:
    drafts = [submission(number, idempotency_key="k", spec_sha256="a") for number in range(8)]

    answers = [answer for (answer,) in at_once([partial(store.submit, [draft]) for draft in drafts])]

    assert sum(answer.created for answer in answers) == 1
    assert len({answer.run.id for answer in answers}) == 1
    assert len(everything(store, RunFilter("default"))) == 1


def test_a_conflict_does_not_touch_what_others_submit_meanwhile(store: Store) -> None:
    store.submit([submission(0, idempotency_key="k", spec_sha256="a")])

    def one(number: int) -> str:
        if number % 3:
            return store.submit([submission(number)])[0].run.id
        with pytest.raises(Conflict):
            store.submit([submission(number, idempotency_key="k", spec_sha256="b")])
        return ""

    answered = at_once([partial(one, number) for number in range(1, 25)])

    acknowledged = {answer for answer in answered if answer}
    assert {run.id for run in everything(store, RunFilter("default"))} == acknowledged | {run_id(0)}


def test_a_spec_changed_by_its_submitter_afterwards_stays_as_it_was(store: Store) -> None:
    spec: dict[str, Any] = {"train": {"lr": 0.1}}
    (answer,) = store.submit([submission(1, spec=spec)])
    spec["train"]["lr"] = 9.0

    assert answer.run.spec == {"train": {"lr": 0.1}}
    assert store.run("default", run_id(1)).spec == {"train": {"lr": 0.1}}


# ---- finding -------------------------------------------------------------------------------------------------------


def test_a_run_is_found_by_id_and_the_newest_by_name(store: Store) -> None:
    submit(store, [1, 2], name="digits")

    assert store.run("default", run_id(1)).id == run_id(1)
    assert store.run("default", "digits").id == run_id(2)
    assert store.run("*", "digits").id == run_id(2)


def test_an_id_wins_over_a_name_that_looks_like_it(store: Store) -> None:
    submit(store, [1])
    submit(store, [2], name=run_id(1))

    assert store.run("default", run_id(1)).id == run_id(1)


def test_over_all_projects_a_name_of_several_is_refused_and_an_id_is_not(store: Store) -> None:
    submit(store, [1], name="digits", project="ours")
    submit(store, [2], name="digits", project="theirs")

    with pytest.raises(Refused, match=r"ours, theirs.*--project"):
        store.run("*", "digits")
    assert store.run("*", run_id(1)).project == "ours"
    assert store.run("theirs", "digits").id == run_id(2)


def test_a_run_of_another_project_is_not_found(store: Store) -> None:
    submit(store, [1], project="theirs")

    for name in (run_id(1), "digits", "no-such-run"):
        with pytest.raises(NotFound, match="mine"):
            store.run("mine", name)
    assert store.run("*", run_id(1)).project == "theirs"


def test_pages_show_each_run_once_while_others_arrive(store: Store) -> None:
    submit(store, range(10))
    shown: list[str] = []
    page, arriving = "", 100
    while True:
        found = store.runs(RunFilter("default"), page=page, limit=3)
        shown += ids(found.runs)
        page = found.next_page
        if not page:
            break
        submit(store, [arriving])
        arriving += 1

    assert shown == [run_id(number) for number in reversed(range(10))]


def test_a_last_page_that_is_just_full_has_no_next(store: Store) -> None:
    submit(store, range(4))

    first = store.runs(RunFilter("default"), limit=2)
    second = store.runs(RunFilter("default"), limit=2, page=first.next_page)

    assert ids(first.runs + second.runs) == [run_id(number) for number in (3, 2, 1, 0)]
    assert second.next_page == ""


def test_a_clock_that_goes_back_changes_no_order_and_loses_nothing(store: Store) -> None:
    for number in range(9):
        store.submit([submission(number, submitted_at=5000.0 - 100 * number, name="same")])
    expected = [run_id(number) for number in reversed(range(9))]

    assert ids(everything(store, RunFilter("default"), limit=2)) == expected
    assert store.run("default", "same").id == run_id(8)
    assert ids(store.unfinished()) == expected[::-1]


@pytest.mark.parametrize("page", ["x", "!!", "cjE6", "cjE6LTE", "é", "cjE6MQ=x", "a" * 500])
def test_a_page_that_no_answer_held_is_refused(store: Store, page: str) -> None:
    with pytest.raises(InvalidSpec, match="next_page"):
        store.runs(RunFilter("default"), page=page)


@pytest.mark.parametrize("limit", [-1, 0, 5000])
def test_a_limit_beyond_reason_is_held_within_bounds(store: Store, limit: int) -> None:
    submit(store, range(2))

    assert len(store.runs(RunFilter("default"), limit=limit).runs) == min(max(limit, 1), 2)


NAMES = ("digits", "digits-cnn", "digits_cnn", "digit%", "Digits", "über", "text")
FILTERS: tuple[dict[str, Any], ...] = (
    {},
    {"project": "*"},
    {"project": "nobody"},
    {"states": ("RUNNING",)},
    {"states": ("QUEUED", "FAILED", "RUNNING")},
    {"states": STATE_NAMES},
    {"states": ("NO_SUCH_STATE",)},
    {"name_prefix": "digits"},
    {"name_prefix": "digits_"},
    {"name_prefix": "digit%"},
    {"name_prefix": "ü"},
    {"project": "*", "name_prefix": "digits"},
    {"queue": "fast"},
    {"project": "*", "queue": "fast"},
    {"queue": "fast", "states": ("QUEUED", "STARTING"), "name_prefix": "d"},
    {"project": "*", "states": ("QUEUED", "SUCCEEDED"), "queue": "slow", "name_prefix": "digits-"},
)


def test_filters_show_what_they_say_page_by_page(store: Store) -> None:
    made: list[Run] = []
    for number in range(90):
        changes = {
            "project": ("default", "other")[number % 2],
            "name": NAMES[number % len(NAMES)],
            "queue": ("fast", "slow")[number // 3 % 2],
        }
        (run,) = submit(store, [number], **changes)
        made.insert(0, move(store, run, STATES[STATE_NAMES[number // 5 % len(STATE_NAMES)]]))

    for fields in FILTERS:
        where = RunFilter(**{"project": "default", **fields})
        expected = [
            run.id
            for run in made
            if where.project in ("*", run.project)
            and (not where.states or run.state.kind in where.states)
            and run.name.startswith(where.name_prefix)
            and where.queue in ("", run.queue)
        ]
        assert ids(everything(store, where, limit=4)) == expected, where


def test_a_prefix_of_very_many_names_pages_as_well(store: Store) -> None:
    store.submit([submission(number, name=f"many-{number}") for number in range(1100)])
    submit(store, [5000], name="other")

    shown = everything(store, RunFilter("default", name_prefix="many-"), limit=400)

    assert ids(shown) == [run_id(number) for number in reversed(range(1100))]


def test_a_listing_leaves_out_spec_and_attempts_and_nothing_else(store: Store) -> None:
    (run,) = submit(store, [1])
    run = _rich(store, run)

    (listed,) = store.runs(RunFilter("default")).runs

    assert listed == replace(run, spec={}, attempts=())


def test_unfinished_runs_come_by_priority_and_then_by_submission(store: Store) -> None:
    for number, priority in enumerate((50, 90, 50, 10, 90)):
        submit(store, [number], priority=priority)

    assert ids(store.unfinished()) == [run_id(number) for number in (1, 4, 0, 2, 3)]


def test_unfinished_runs_are_those_of_this_moment(store: Store) -> None:
    runs = dict(zip(STATE_NAMES, submit(store, range(len(STATE_NAMES))), strict=True))
    assert len(store.unfinished()) == len(STATE_NAMES)

    moved = {name: move(store, run, STATES[name]) for name, run in runs.items()}

    alive = [moved[name] for name in STATE_NAMES if name not in TERMINAL_NAMES]
    assert store.unfinished() == alive
    (late,) = submit(store, [50])
    assert store.unfinished() == [*alive, late]


def test_runs_are_counted_in_every_state(store: Store) -> None:
    assert store.count_by_state() == dict.fromkeys(STATE_NAMES, 0)
    for run in submit(store, range(3)):
        move(store, run, STATES["FAILED"])
    submit(store, [10])

    assert store.count_by_state() == {**dict.fromkeys(STATE_NAMES, 0), "FAILED": 3, "QUEUED": 1}


# ---- changing ------------------------------------------------------------------------------------------------------


def _rich(store: Store, run: Run) -> Run:
    """The run with something in every field."""
    attempt = Attempt(
        1,
        "local",
        builders.SHARES,
        5.0,
        placed=True,
        incarnations=(Incarnation(1, 2, 6.0, "/seal", 4, ("newer: truncated",), 1.5, builders.failure()),),
        last_seq=9,
        ledger=Ledger({TimeClass.TRAINING: 12, TimeClass.HUNG: 1}),
    )
    rich = replace(
        run,
        attempts=(attempt,),
        spent=Spent(1, 2, 3),
        previous_failure=builders.failure(),
        sealed_since_failure=False,
        furthest_step=4,
        stop=StopOrder("cancel", "ada", "enough"),
        queued_ns=10**18,
        priority=60,
        queue="fast",
    )
    (stored,) = store.apply([Change(rich)])
    assert stored == replace(rich, version=rich.version + 1)
    return stored


def test_a_change_is_stored_whole_with_the_next_version(store: Store) -> None:
    (run,) = submit(store, [1])

    stored = _rich(store, run)

    assert store.run("default", run.id) == stored
    assert stored.version == run.version + 1
    assert ids(everything(store, RunFilter("default", queue="fast"))) == [run.id]


@pytest.mark.parametrize("name", STATE_NAMES)
def test_every_state_comes_back_as_it_was(store: Store, name: str) -> None:
    (run,) = submit(store, [1])

    moved = move(store, run, STATES[name])

    assert store.run("default", run.id) == moved
    assert moved.state == STATES[name]


def test_a_stale_change_writes_nothing(store: Store) -> None:
    (run,) = submit(store, [1])
    current = move(store, run, STATES["RUNNING"])
    stale = Change(
        replace(run, state=STATES["CANCELLED"]),
        (EventDraft(5.0, "state", "late"),),
        (_checkpoint(step=1),),
        _model(run_id=run.id),
    )

    assert store.apply([stale]) == [None]

    assert store.run("default", run.id) == current
    assert [event.kind for event in store.events(run.id)] == ["submitted"]
    assert store.checkpoints(run.id) == []
    assert store.models("default") == []


def test_a_change_of_a_run_that_does_not_exist_is_stale(store: Store) -> None:
    assert store.apply([Change(builders.queued_run(run_id=run_id(404)))]) == [None]


def test_changes_of_one_call_are_independent(store: Store) -> None:
    one, two, three = submit(store, range(3))
    move(store, two, STATES["STARTING"])

    answers = store.apply([Change(replace(run, priority=99)) for run in (one, two, three)])

    assert [answer and answer.id for answer in answers] == [one.id, None, three.id]
    assert [store.run("default", run.id).priority for run in (one, two, three)] == [99, 50, 99]


def test_of_many_changes_from_one_version_exactly_one_wins(store: Store) -> None:
    (run,) = submit(store, [1])
    draft = EventDraft(1.0, "turn", "mine")
    for _ in range(5):
        changes = [Change(replace(run, priority=priority), (draft,)) for priority in range(8)]
        answers = at_once([partial(store.apply, [change]) for change in changes])
        winners = [answer for (answer,) in answers if answer is not None]
        assert len(winners) == 1
        assert store.run("default", run.id) == winners[0]
        run = winners[0]

    assert [event.seq for event in store.events(run.id)] == [1, 2, 3, 4, 5, 6]


def test_events_are_numbered_within_their_run_without_gaps(store: Store) -> None:
    one, two = submit(store, range(2))
    for count in (2, 0, 3):
        drafts = tuple(EventDraft(float(n), "epoch", f"{count}/{n}", {"n": [n, None]}) for n in range(count))
        answer = store.apply([Change(one, drafts)])[0]
        assert answer is not None
        one = answer

    kept = store.events(one.id)
    assert [event.seq for event in kept] == [1, 2, 3, 4, 5, 6]
    assert [event.message for event in kept[1:]] == ["2/0", "2/1", "3/0", "3/1", "3/2"]
    assert kept[2].data == {"n": [1, None]}
    assert [event.seq for event in store.events(one.id, after=2, limit=3)] == [3, 4, 5]
    assert [event.seq for event in store.events(two.id)] == [1]
    assert store.events("run-unknown000") == []
    assert [store.newest_event(each) for each in (one.id, two.id, "run-unknown000")] == [6, 1, 0]


def test_what_programs_print_comes_back_as_it_was(store: Store) -> None:
    text = "NUL \x00, half a pair \udc80, emoji 🚂, newline \n, quote ' \" \\ %s :x"
    (run,) = submit(store, [1], spec={"name": text, "lr": math.inf})
    draft = EventDraft(1.0, "rank_failed", text, {text: [text, math.inf]})
    (stored,) = store.apply([Change(replace(run, previous_failure=builders.failure(message=text)), (draft,))])

    assert stored is not None
    assert store.run("default", run.id) == stored
    assert store.run("default", run.id).spec == {"name": text, "lr": math.inf}
    event = store.events(run.id)[1]
    assert (event.message, event.data) == (text, {text: [text, math.inf]})


def test_a_metric_that_is_not_a_number_stays_one(store: Store) -> None:
    (run,) = submit(store, [1])
    store.apply([Change(run, checkpoints=(replace(_checkpoint(step=1), metrics={"val_loss": math.nan}),))])

    (kept,) = store.checkpoints(run.id)

    assert math.isnan(kept.metrics["val_loss"])


def _checkpoint(step: int, attempt: int = 1, incarnation: int = 1) -> Checkpoint:
    metrics = {"val_loss": 0.5}
    return Checkpoint(run_id(1), attempt, incarnation, step, f"/seals/{step}", 100, metrics, step == 2, 9.0)


def test_checkpoints_come_newest_step_first_and_each_once(store: Store) -> None:
    (run,) = submit(store, [1])
    drafts = (_checkpoint(2), _checkpoint(10), _checkpoint(2, attempt=2), _checkpoint(2, incarnation=3))
    (run2,) = store.apply([Change(run, checkpoints=drafts)])
    assert run2 is not None
    store.apply([Change(run2, checkpoints=(replace(_checkpoint(10), best=True),))])

    kept = store.checkpoints(run.id)

    assert [(c.step, c.attempt, c.incarnation) for c in kept] == [(10, 1, 1), (2, 2, 1), (2, 1, 3), (2, 1, 1)]
    assert kept[0] == replace(_checkpoint(10), best=True)
    assert store.checkpoints(run.id, limit=2) == kept[:2]
    assert [store.checkpoints(run.id, below=each.key) for each in kept] == [kept[1:], kept[2:], kept[3:], []]
    assert store.checkpoints(run.id, below=kept[0].key, limit=1) == kept[1:2]
    assert store.checkpoints(run_id(2)) == []


# ---- models --------------------------------------------------------------------------------------------------------


def _model(run_id: str, **changes: Any) -> ModelVersion:
    values = {"project": "default", "name": "digits", "version": 0, "checkpoint": "/seal", "metrics": {"acc": 0.9}}
    return ModelVersion(**{**values, "created_at": 5.0, "run_id": run_id, **changes})


def _register(store: Store, run: Run, **changes: Any) -> Run:
    (answer,) = store.apply([Change(run, model=_model(run.id, **changes))])
    assert answer is not None
    return answer


def test_versions_count_from_one_in_each_name_and_project(store: Store) -> None:
    for number, (project, name) in enumerate([("a", "x"), ("a", "y"), ("a", "x"), ("b", "x"), ("a", "x")]):
        (run,) = submit(store, [number], project=project)
        _register(store, run, project=project, name=name)

    assert [(m.name, m.version) for m in store.models("a")] == [("x", 3), ("x", 2), ("x", 1), ("y", 1)]
    assert [(m.project, m.version) for m in store.models("*", "x")] == [("a", 3), ("a", 2), ("a", 1), ("b", 1)]
    assert store.models("a", "x")[2] == _model(run_id(0), project="a", name="x", version=1)
    assert store.models("c") == []


def test_a_run_that_registers_again_keeps_its_version(store: Store) -> None:
    one, two = submit(store, range(2))
    one = _register(store, one, aliases=("champion",))
    _register(store, two, aliases=("champion",))
    _register(store, one, aliases=("champion",), metrics={})

    first, second = reversed(store.models("default"))

    assert (first.version, first.run_id, first.metrics, first.aliases) == (1, one.id, {"acc": 0.9}, ())
    assert (second.version, second.run_id, second.aliases) == (2, two.id, ("champion",))


def test_versions_registered_at_once_are_all_different(store: Store) -> None:
    runs = submit(store, range(12))

    at_once([partial(_register, store, run) for run in runs])

    assert [model.version for model in store.models("default")] == list(range(12, 0, -1))
    assert {model.run_id for model in store.models("default")} == {run.id for run in runs}


def test_an_alias_stands_on_one_version_at_a_time(store: Store) -> None:
    for run in submit(store, range(3)):
        _register(store, run)
    for alias, version in (("champion", 1), ("best", 1), ("champion", 3), ("champion", 3)):
        assert _move(store, alias, version) is not None

    assert [(m.version, m.aliases) for m in store.models("default")] == [(3, ("champion",)), (2, ()), (1, ("best",))]


@pytest.mark.parametrize(
    ("project", "name", "version"), [("default", "digits", 2), ("default", "x", 1), ("b", "digits", 1)]
)
def test_an_alias_needs_a_version(store: Store, project: str, name: str, version: int) -> None:
    (run,) = submit(store, [1])
    _register(store, run)

    with pytest.raises(NotFound):
        store.move_alias(project, name, "champion", version, at=1.0, by="ann", reason="")
    assert store.alias_history(project, name) == []


def _move(store: Store, alias: str, to: int, *, expected: int | None = None, **told: Any) -> AliasMove | None:
    words = {"at": 7.0, "by": "ann", "reason": "better", **told}
    return store.move_alias("default", "digits", alias, to, expected=expected, **words)


def test_each_move_of_an_alias_is_told_with_where_it_stood_before(store: Store) -> None:
    for run in submit(store, range(3)):
        _register(store, run)
    report = {"gain": float("nan"), "slices": ["ü\0"]}
    moves = [_move(store, "champion", 1), _move(store, "best", 1), _move(store, "champion", 3, at=9.0, report=report)]

    assert [(each.number, each.alias, each.before, each.version) for each in moves if each is not None] == [
        (1, "champion", 0, 1),
        (2, "best", 0, 1),
        (3, "champion", 1, 3),
    ]
    newest = store.alias_history("default", "digits")[0]
    assert (newest.at, newest.by, newest.reason) == (9.0, "ann", "better")
    assert math.isnan(newest.report["gain"])
    assert newest.report["slices"] == ["ü\0"]
    assert [each.number for each in store.alias_history("default", "digits")] == [3, 2, 1]
    assert [each.number for each in store.alias_history("default", "digits", "champion")] == [3, 1]
    assert store.alias_history("default", "digits", "none") == store.alias_history("b", "digits") == []


def test_an_alias_that_stands_elsewhere_than_expected_is_not_moved(store: Store) -> None:
    for run in submit(store, range(3)):
        _register(store, run)

    assert _move(store, "champion", 1, expected=2) is None
    assert _move(store, "champion", 1, expected=0) is not None
    assert _move(store, "champion", 2, expected=0) is None
    assert _move(store, "champion", 2, expected=3) is None
    assert [each.version for each in store.alias_history("default", "digits")] == [1]
    assert _move(store, "champion", 2, expected=1) is not None


def test_a_move_that_is_repeated_is_written_once(store: Store) -> None:
    for run in submit(store, range(2)):
        _register(store, run)
    first = _move(store, "champion", 2, expected=0, reason="first")

    assert _move(store, "champion", 2, expected=0, reason="again") == first
    assert _move(store, "champion", 2, reason="and again") == first
    assert store.alias_history("default", "digits") == [first]


def test_a_move_that_is_to_be_told_is_known_until_it_was(store: Store) -> None:
    for run in submit(store, range(2)):
        _register(store, run)
    first = _move(store, "champion", 1, tell=True)
    _move(store, "best", 1)
    assert _move(store, "champion", 1, tell=True) == first
    assert _move(store, "champion", 2, expected=2, tell=True) is None
    assert store.untold_moves() == [first]
    second = _move(store, "champion", 2, tell=True)

    assert store.untold_moves() == [first, second]
    for _ in range(2):
        store.move_told("default", "digits", 1)
    assert store.untold_moves() == [second]


def test_where_an_alias_stands_is_known_of_all_models_of_a_project(store: Store) -> None:
    for number, (project, name) in enumerate([("a", "x"), ("a", "x"), ("a", "y"), ("a", "z"), ("b", "x")]):
        (run,) = submit(store, [number], project=project)
        _register(store, run, project=project, name=name)
    for project, name, alias, version in [("a", "x", "champion", 1), ("a", "x", "champion", 2), ("a", "y", "best", 1)]:
        store.move_alias(project, name, alias, version, at=1.0, by="ann", reason="")

    assert store.standing("a", "champion") == {"x": 2}
    assert store.standing("b", "champion") == {}


def test_of_a_promotion_and_a_rollback_at_once_one_wins(store: Store) -> None:
    for run in submit(store, range(3)):
        _register(store, run)
    for number in range(10):
        _move(store, "champion", 1)
        _move(store, "champion", 2)
        promote = partial(_move, store, "champion", 3, expected=2, reason=f"promotion {number}")
        roll_back = partial(_move, store, "champion", 1, expected=2, reason=f"rollback {number}")

        answers = at_once([promote, roll_back])

        (won,) = [each for each in answers if each is not None]
        (newest, second, *_) = store.alias_history("default", "digits", "champion")
        assert (newest, second.version) == (won, 2)
        (standing,) = [each.version for each in store.models("default") if "champion" in each.aliases]
        assert standing == won.version


def test_moves_at_once_are_all_numbered(store: Store) -> None:
    for run in submit(store, range(2)):
        _register(store, run)

    at_once([partial(_move, store, f"alias-{number}", 1 + number % 2) for number in range(12)])

    assert [each.number for each in store.alias_history("default", "digits")] == list(range(12, 0, -1))


def test_an_alias_that_a_version_is_registered_with_has_moved(store: Store) -> None:
    one, two = submit(store, range(2))
    _register(store, one, aliases=("champion",))
    _register(store, two, aliases=("champion",), created_at=6.0)

    newest, first = store.alias_history("default", "digits")

    assert (first.version, first.before, first.at) == (1, 0, 5.0)
    assert (newest.version, newest.before, newest.at, newest.by) == (2, 1, 6.0, f"run {two.id}")


def test_facts_of_a_version_are_kept_beside_it_and_replaced_by_name(store: Store) -> None:
    one, two = submit(store, range(2))
    facts = {"profile": {"rows": 7, "mean": float("nan")}}
    assert store.apply([Change(one, model=_model(one.id), facts=facts)]) != [None]
    _register(store, two)
    store.put_fact("default", "digits", 2, "importance", [0.5, "ü\0"])
    store.put_fact("default", "digits", 2, "importance", [0.25])
    store.put_fact("default", "digits", 1, "note", None)

    first = store.facts("default", "digits", 1)
    assert first["profile"]["rows"] == 7
    assert math.isnan(first["profile"]["mean"])
    assert first["note"] is None
    assert store.facts("default", "digits", 2) == {"importance": [0.25]}


@pytest.mark.parametrize(
    ("project", "name", "version"), [("default", "digits", 2), ("default", "x", 1), ("b", "digits", 1)]
)
def test_facts_need_a_version(store: Store, project: str, name: str, version: int) -> None:
    (run,) = submit(store, [1])
    _register(store, run)

    with pytest.raises(NotFound):
        store.facts(project, name, version)
    with pytest.raises(NotFound):
        store.put_fact(project, name, version, "profile", {})


# ---- tokens, secrets, clusters -------------------------------------------------------------------------------------


def _token(number: int, project: str = "default") -> Token:
    return Token(f"tok-{number}", f"token {number}", project, Role.USER, f"{number:064x}", float(number), 99.0)


def test_tokens_are_found_by_the_hash_of_their_secret(store: Store) -> None:
    store.add_token(_token(1))
    store.add_token(_token(2, "other"))

    assert store.token_by_hash(_token(2).secret_sha256) == _token(2, "other")
    assert store.token_by_hash("0" * 64) is None
    assert store.tokens("default") == [_token(1)]
    assert store.tokens("*") == [_token(1), _token(2, "other")]


def test_a_token_is_added_once(store: Store) -> None:
    store.add_token(_token(1))

    for twin in (replace(_token(2), id="tok-1"), replace(_token(1), id="tok-9")):
        with pytest.raises(Conflict):
            store.add_token(twin)


def test_a_revoked_token_keeps_the_time_of_its_first_revocation(store: Store) -> None:
    store.add_token(_token(1))
    store.revoke_token("default", "tok-1", 50.0)
    store.revoke_token("*", "tok-1", 60.0)

    kept = store.token_by_hash(_token(1).secret_sha256)
    assert kept == replace(_token(1), revoked_at=50.0)
    for project, token in (("default", "tok-2"), ("other", "tok-1")):
        with pytest.raises(NotFound):
            store.revoke_token(project, token, 70.0)


def test_secrets_belong_to_their_project(store: Store) -> None:
    store.put_secret("a", "HF_TOKEN", "old")
    store.put_secret("a", "HF_TOKEN", "new")
    store.put_secret("a", "AWS", "x")
    store.put_secret("b", "HF_TOKEN", "theirs")

    assert store.secrets("a", ["HF_TOKEN", "MISSING"]) == {"HF_TOKEN": "new"}
    assert store.secrets("a", iter(())) == {}
    assert store.secret_names("a") == ["AWS", "HF_TOKEN"]
    store.delete_secret("a", "HF_TOKEN")
    assert store.secret_names("a") == ["AWS"]
    assert store.secrets("b", iter(["HF_TOKEN"])) == {"HF_TOKEN": "theirs"}
    with pytest.raises(NotFound):
        store.delete_secret("a", "HF_TOKEN")


def test_an_older_agent_cannot_overwrite_a_cluster(store: Store) -> None:
    newer = Cluster("b", "*", 4, True, (builders.node("a"), builders.node("b", gpu=8, accelerator="H100")), 7.0, "2.60")

    assert store.put_cluster(Cluster("b", "default", 3))
    assert store.put_cluster(newer)
    assert not store.put_cluster(Cluster("b", "default", 3))
    assert store.put_cluster(replace(newer, last_seen_at=8.0))
    assert store.put_cluster(Cluster("a", "*", 1))
    assert store.clusters() == [Cluster("a", "*", 1), replace(newer, last_seen_at=8.0)]


# ---- over the life of the process ----------------------------------------------------------------------------------


def test_everything_is_there_after_opening_again(backend: Backend) -> None:
    store = backend.open()
    (run,) = submit(store, [1], idempotency_key="k")
    run = _rich(store, run)
    run = _register(store, run, aliases=("champion",))
    store.put_secret("default", "A", "b")
    store.close()

    again = backend.open()

    assert again.run("default", run.id) == run
    assert again.unfinished() == [run]
    assert again.models("default")[0].aliases == ("champion",)
    assert again.secrets("default", ["A"]) == {"A": "b"}
    assert not again.submit([submission(2, idempotency_key="k")])[0].created
    again.close()


def test_a_closed_store_says_so(backend: Backend) -> None:
    if backend.name == "memory":
        pytest.skip("the memory store holds nothing that could be closed")
    store = backend.open()
    store.close()
    store.close()

    with pytest.raises(Unavailable, match="closed"):
        submit(store, [1])
    with pytest.raises(Unavailable, match="closed"):
        store.runs(RunFilter("default"))


def test_the_keys_that_were_used_are_known_by_project(store: Store) -> None:
    submit(store, [1], idempotency_key="k")
    assert store.used_keys("default", ["k", "other"]) == {"k"}
    assert store.used_keys("elsewhere", ["k"]) == set()


def test_trials_are_found_by_their_sweep_whole_and_in_order(store: Store) -> None:
    sweep, other = submission(1, kind="sweep"), submission(2)
    trials = [submission(3 + n, kind="trial", lineage=Lineage(sweep.run_id, n, 0, {"train.lr": 0.5})) for n in (0, 1)]
    store.submit([sweep, other, *trials])
    found = store.trials(sweep.run_id)
    assert [each.lineage for each in found] == [each.lineage for each in trials]
    assert all(each.spec for each in found)
    assert [each.id for each in everything(store, RunFilter("*", sweep=sweep.run_id))] == [
        each.id for each in found[::-1]
    ]
    assert [each.id for each in everything(store, RunFilter("*", kind="sweep"))] == [sweep.run_id]
    assert [each.id for each in everything(store, RunFilter("*", without_trials=True))] == [other.run_id, sweep.run_id]
    assert store.trials(other.run_id) == []


def test_a_submission_that_was_refused_is_a_run_that_has_failed(store: Store) -> None:
    answer = store.submit([submission(1, refused="no such batch")])[0]
    assert answer.run.state.kind == "FAILED"
    assert answer.run.state.reason.message == "no such batch"
    assert [event.kind for event in store.events(answer.run.id)] == ["submitted", "ended"]
    assert store.unfinished() == []


# ---- alerts ---------------------------------------------------------------------------------------------------------


def firing(fingerprint: str = "a0", told_at: float = 2000.0, **changes: Any) -> Firing:
    values: dict[str, Any] = {"project": "default", "name": "LossRises", "starts_at": 1999.25, "firing": True}
    alert = Alert(fingerprint=fingerprint, labels={"run": "run-1", "odd": 'a"\0\n'}, **{**values, **changes})
    return Firing(alert, 1999.5, told_at, Outcome.PAUSED, "run digits is paused")


def test_firings_are_found_by_their_keys(backend: Backend) -> None:
    store = backend.open()
    kept = [firing("a0"), firing("a1"), firing("a0", project="other"), firing("a0", starts_at=1999.375)]
    store.keep_firings(kept)
    if backend.url:
        store.close()
        store = backend.open()
    assert store.firings([each.alert.key for each in kept]) == {each.alert.key: each for each in kept}
    assert store.firings([("default", "a1", 1.0), ("default", "a2", 1999.25)]) == {}
    assert store.firings([]) == {}
    assert store.alerts_told_at() == 2000.0
    store.close()


def test_where_no_alert_was_ever_told_nothing_says_when(store: Store) -> None:
    assert store.alerts_told_at() is None


def test_many_firings_are_kept_and_found_at_once(store: Store) -> None:
    kept = {each.alert.key: each for each in (firing(f"{number:x}") for number in range(1200))}
    store.keep_firings(list(kept.values()))
    assert store.firings(kept) == kept


def test_a_firing_told_again_replaces_the_one_of_before_and_is_forgotten_later(store: Store) -> None:
    store.keep_firings([firing("a0"), firing("a1")])
    store.keep_firings([firing("a0", told_at=3000.0)])
    assert store.alerts_told_at() == 3000.0
    assert store.forget_firings(2500.0) == 1
    keys = [firing("a0").alert.key, firing("a1").alert.key]
    assert store.firings(keys) == {keys[0]: firing("a0", told_at=3000.0)}
