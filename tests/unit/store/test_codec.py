"""Core values survive being written as JSON, whatever stands in them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.ledger import Ledger, TimeClass
from orchestrator.core.records import Checkpoint, Cluster, EventDraft, ModelVersion
from orchestrator.core.runs import (
    STATE_NAMES,
    Attempt,
    Cancelled,
    Event,
    Failed,
    Failure,
    Incarnation,
    NodeShare,
    Queued,
    Reason,
    ReasonCode,
    Recovering,
    Result,
    Run,
    Running,
    RunState,
    Spent,
    Starting,
    StopOrder,
    Succeeded,
)
from orchestrator.core.scheduling.fit import Node
from orchestrator.store import codec

TEXT = st.text(st.characters(), max_size=12)  # NUL and lone surrogates too
FLOAT = st.floats(allow_nan=False)
COUNT = st.integers(-(2**63), 2**63)
METRICS = st.dictionaries(TEXT, FLOAT, max_size=3)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | COUNT | FLOAT | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
OBJECT = st.dictionaries(TEXT, JSON, max_size=3)


def tuples(of: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(of, max_size=2).map(tuple)


def maybe(of: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | of


REASON = st.builds(Reason, st.sampled_from(ReasonCode), TEXT)
FAILURE = st.builds(
    Failure, message=TEXT, rank=maybe(COUNT), host=maybe(TEXT), step=COUNT, traceback=TEXT
)  # every kind, by its type
RESULT = st.builds(Result, COUNT, METRICS, maybe(TEXT), maybe(TEXT))
STATES: dict[str, st.SearchStrategy[RunState]] = {
    "QUEUED": st.builds(Queued, REASON, FLOAT),
    "STARTING": st.builds(Starting, REASON),
    "RUNNING": st.builds(Running, REASON, COUNT),
    "RECOVERING": st.builds(Recovering, REASON, COUNT, FAILURE),
    "SUCCEEDED": st.builds(Succeeded, REASON, RESULT),
    "FAILED": st.builds(Failed, REASON, FAILURE),
    "CANCELLED": st.builds(Cancelled, REASON),
}
INCARNATION = st.builds(
    Incarnation, COUNT, COUNT, FLOAT, maybe(TEXT), COUNT, tuples(TEXT), maybe(FLOAT), maybe(FAILURE)
)
SHARE = st.builds(NodeShare, TEXT, TEXT, TEXT, COUNT)
LEDGER = st.builds(Ledger, st.dictionaries(st.sampled_from(TimeClass), COUNT))
ATTEMPT = st.builds(
    Attempt,
    COUNT,
    TEXT,
    tuples(SHARE),
    FLOAT,
    st.booleans(),
    tuples(INCARNATION),
    COUNT,
    LEDGER,
    maybe(REASON),
    maybe(FLOAT),
)
STOP = st.builds(StopOrder, st.sampled_from(("cancel", "preempt", "deadline")), TEXT, TEXT)


def runs(state: st.SearchStrategy[RunState]) -> st.SearchStrategy[Run]:
    return st.builds(
        Run,
        *(TEXT, TEXT, TEXT, OBJECT, TEXT, FLOAT, state, TEXT, COUNT, tuples(ATTEMPT)),
        *(st.builds(Spent, COUNT, COUNT, COUNT), maybe(FAILURE), st.booleans(), COUNT, maybe(STOP)),
        *(COUNT, FLOAT, maybe(FLOAT), COUNT),
    )


@pytest.mark.parametrize("name", STATE_NAMES)
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_a_run_in_every_state_comes_back_equal_and_of_the_same_types(name: str, data: st.DataObject) -> None:
    run = data.draw(runs(STATES[name]))

    columns = codec.run_columns(run)
    back = codec.run(str(columns["record"]), str(columns["spec"]), str(columns["attempts"]))

    assert back == run
    assert type(back.state) is type(run.state)
    assert repr(back) == repr(run)
    assert codec.run_summary(str(columns["record"])) == replace(run, spec={}, attempts=())
    assert (columns["state"], columns["version"], columns["queue"]) == (name, run.version, run.queue)


NODE = st.builds(Node, TEXT, TEXT, TEXT, FLOAT, FLOAT, COUNT, FLOAT, FLOAT, COUNT, maybe(TEXT))
CLUSTER = st.builds(Cluster, TEXT, TEXT, COUNT, st.booleans(), tuples(NODE), FLOAT, TEXT, st.booleans(), tuples(NODE))
CHECKPOINT = st.builds(Checkpoint, TEXT, COUNT, COUNT, COUNT, TEXT, COUNT, METRICS, st.booleans(), FLOAT)
MODEL = st.builds(ModelVersion, TEXT, TEXT, COUNT, TEXT, TEXT, METRICS, FLOAT, tuples(TEXT))


@given(CLUSTER, CHECKPOINT, MODEL, st.builds(EventDraft, FLOAT, TEXT, TEXT, OBJECT))
@settings(max_examples=100, deadline=None)
def test_all_else_comes_back_equal(
    cluster: Cluster, checkpoint: Checkpoint, model: ModelVersion, draft: EventDraft
) -> None:
    assert codec.cluster(codec.cluster_record(cluster)) == cluster
    assert codec.checkpoint(codec.checkpoint_record(checkpoint)) == checkpoint
    assert codec.model(codec.model_record(model), model.aliases) == model
    event = codec.event("run-a", 3, codec.event_record(draft))
    assert event == Event("run-a", 3, draft.at, draft.kind, draft.message, draft.data)


def test_fields_that_an_older_version_does_not_know_are_passed_over() -> None:
    record = codec.checkpoint_record(Checkpoint("r", 1, 1, 1, "u", 1, {}, False, 1.0))

    assert codec.checkpoint('{"of_the_future":1,' + record[1:]).run_id == "r"
