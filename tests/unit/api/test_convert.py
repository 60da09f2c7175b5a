"""Every message of the wire, there and back."""

from __future__ import annotations

import dataclasses
import enum
import itertools
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from google.protobuf.message import Message

from orchestrator.api import views
from orchestrator.core import money, monitors, observations, orders, records, runs
from orchestrator.core.ledger import Ledger, TimeClass
from orchestrator.core.scheduling.demand import Workers
from orchestrator.core.scheduling.fit import Node
from orchestrator.core.scheduling.plan import ClusterFit
from orchestrator.core.sweeps import Sweep, Trial, TrialState
from orchestrator.errors import Problem
from orchestrator.planning import choice, memory, outlook, plan
from orchestrator.protocol.convert import RunView, from_proto, from_struct, run_detail, run_summary, to_proto, to_struct
from orchestrator.protocol.sweeps import sweep_message, sweep_of
from orchestrator.protocol.v1.generated import evertrain_pb2 as pb
from trainers import layout

COUNTERPARTS: dict[str, type[Any]] = {
    "AliasMove": records.AliasMove,
    "Ancestor": records.Ancestor,
    "AdmittedSeals": orders.AdmittedSeals,
    "Amount": money.Amount,
    "Attempt": runs.Attempt,
    "AttemptEnded": observations.AttemptEnded,
    "AttemptOrder": orders.AttemptOrder,
    "Batch": layout.BatchPlan,
    "Budgets": runs.Budgets,
    "Checkpoint": records.Checkpoint,
    "CheckpointSealed": observations.CheckpointSealed,
    "Cluster": views.ClusterView,
    "ClusterFit": ClusterFit,
    "Comparison": views.Comparison,
    "EpochEnded": observations.EpochEnded,
    "Event": runs.Event,
    "Failure": runs.Failure,
    "Figures": monitors.Figures,
    "FirstStep": observations.FirstStep,
    "Incarnation": runs.Incarnation,
    "IncarnationFailed": observations.IncarnationFailed,
    "IncarnationStarted": observations.IncarnationStarted,
    "Inspected": observations.Inspected,
    "Inspection": runs.Inspection,
    "Judgement": monitors.Judgement,
    "Ledger": Ledger,
    "LogLine": records.LogLine,
    "Memory": memory.Memory,
    "MemoryLimit": choice.Limit,
    "ModelVersion": records.ModelVersion,
    "Node": Node,
    "NodeShare": runs.NodeShare,
    "Observation": observations.Observation,
    "Outlook": outlook.Outlook,
    "Picture": monitors.Picture,
    "Placed": observations.Placed,
    "PlannedModel": plan.Model,
    "Problem": Problem,
    "Progress": observations.Progress,
    "RankProgress": observations.RankProgress,
    "RanksRestored": observations.RanksRestored,
    "Reason": runs.Reason,
    "Lineage": runs.Lineage,
    "Result": runs.Result,
    "Run": RunView,
    "Spent": runs.Spent,
    "StopOrder": runs.StopOrder,
    "SubmitResponse": views.SubmitView,
    "Token": views.TokenView,
    "CreateTokenResponse": views.NewToken,
    "RunUpdate": views.RunUpdate,
    "Unplaceable": observations.Unplaceable,
    "Waiting": observations.Waiting,
    "Watched": monitors.Watched,
    "Worker": Workers,
}
ENVELOPES = {
    "Ack",
    "AgentMessage",
    "Bundle",
    "BundleChunk",
    "Demand",
    "Desired",
    "Hello",
    "Inventory",
    "LivingAttempt",
    "LogAck",
}
ENVELOPES |= {"LogBatch", "LogChunk", "ModelFacts", "ServerMessage", "Superseded", "Welcome"}
ENVELOPES |= {"AliasHistory", "ModelLineage", "ObserveReply"}
BY_HAND = {"Sweep", "Trial", "RetrainingDecision"}  # of protocol.sweeps and protocol.decisions


def full(hint: Any, numbers: Iterator[int]) -> Any:
    """A value of that type with everything filled in, and no two parts alike."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(hint, types.UnionType):
        return full(next(each for each in inner if each is not type(None)), numbers)
    if origin is typing.Literal:
        return inner[-1]
    if origin is tuple:
        return tuple(full(inner[0], numbers) for _ in range(2))
    if origin is Mapping or origin is dict:
        if inner[1] in (Any, object):
            return {"whole": next(numbers), "part": next(numbers) + 0.5, "deep": {"list": [1, "x", None, True]}}
        return {key: full(inner[1], numbers) for key in _keys(inner[0])}
    if dataclasses.is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        fields = [each.name for each in dataclasses.fields(hint)]
        return typing.cast(Any, hint)(**{name: full(hints[name], numbers) for name in fields})
    return _scalar(hint, numbers)


def _keys(hint: Any) -> list[Any]:
    return list(TimeClass)[:2] if hint is TimeClass else ["first", "second"]


def _scalar(hint: Any, numbers: Iterator[int]) -> Any:
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return list(hint)[-1]
    if hint is bool:
        return True
    number = next(numbers)
    return f"text {number}" if hint is str else hint(number) + (0.25 if hint is float else 0)


def message_class(name: str) -> type[Message]:
    return typing.cast(type[Message], getattr(pb, name))


def bare(cls: type[Any], whole: Any) -> Any:
    """The same without whatever may be left out."""
    kept = {
        each.name: getattr(whole, each.name)
        for each in dataclasses.fields(cls)
        if each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING
    }
    return cls(**kept)


def test_every_message_is_converted_or_only_carries_others() -> None:
    messages = set(pb.DESCRIPTOR.message_types_by_name)
    requests = {name for name in messages if name.endswith(("Request", "Response"))} - COUNTERPARTS.keys()
    assert messages == COUNTERPARTS.keys() | ENVELOPES | BY_HAND | requests


@pytest.mark.parametrize("name", sorted(COUNTERPARTS))
def test_nothing_is_lost_on_the_wire(name: str) -> None:
    cls = COUNTERPARTS[name]
    value = full(cls, itertools.count(1))
    wire = to_proto(value, message_class(name)).SerializeToString()
    assert from_proto(message_class(name).FromString(wire), cls) == value


@pytest.mark.parametrize("name", sorted(COUNTERPARTS))
def test_what_is_left_out_stays_left_out(name: str) -> None:
    cls = COUNTERPARTS[name]
    value = bare(cls, full(cls, itertools.count(1)))
    wire = to_proto(value, message_class(name)).SerializeToString()
    assert from_proto(message_class(name).FromString(wire), cls) == value


@pytest.mark.parametrize("name", sorted(COUNTERPARTS))
def test_every_field_of_the_wire_has_a_field_of_the_type(name: str) -> None:
    fields = {each.name for each in dataclasses.fields(COUNTERPARTS[name])}
    descriptor = message_class(name).DESCRIPTOR
    in_unions = {each.name for union in descriptor.oneofs for each in union.fields if union.name in fields}
    assert {each.name for each in descriptor.fields} - in_unions <= fields


@pytest.mark.parametrize("kind", typing.get_args(observations.Happening))
def test_every_kind_of_observation_travels(kind: type[Any]) -> None:
    observation = observations.Observation("run-a", 1, 2, 3.0, full(kind, itertools.count(1)))
    wire = to_proto(observation, pb.Observation).SerializeToString()
    assert from_proto(pb.Observation.FromString(wire), observations.Observation) == observation


def test_an_observation_without_content_is_refused() -> None:
    with pytest.raises(ValueError, match="what"):
        from_proto(pb.Observation(run_id="run-a", seq=1), observations.Observation)


def test_an_unknown_enum_value_is_refused() -> None:
    with pytest.raises(ValueError, match="warp_core_breach"):
        from_proto(pb.Failure(kind="warp_core_breach", message="x"), runs.Failure)


def test_a_message_without_a_needed_part_is_refused() -> None:
    with pytest.raises(ValueError, match="reason"):
        from_proto(pb.Waiting(), observations.Waiting)


def test_structs_keep_counts_large_seeds_and_nothing() -> None:
    value = {"epochs": 20, "seed": 2**63 - 1, "low": -(2**60), "lr": 1e-3, "none": None, "list": [1, [2.5, {}]]}
    answer = from_struct(to_struct(value))
    assert answer == value
    assert isinstance(answer["epochs"], int)


def test_keys_that_look_like_our_mark_of_large_numbers_are_only_keys() -> None:
    value = {"$int": {"$int": "abc"}, "deep": {"$int": "7", "$$int": [{"$$$int": 2**60}], "int": 1, "x$int": 2}}
    assert from_struct(to_struct(value)) == value


def test_a_token_never_shows_its_hash() -> None:
    token = records.Token("id", "ci", "default", records.Role.USER, "5ec2e7", 1.0)
    assert b"5ec2e7" not in to_proto(token, pb.Token).SerializeToString()


STATES: tuple[tuple[runs.RunState, str], ...] = tuple(
    (full(state, itertools.count(1)), state.__name__) for state in typing.get_args(runs.RunState)
)


@pytest.mark.parametrize("state", [state for state, _ in STATES], ids=[name for _, name in STATES])
def test_a_run_shows_its_state_and_what_belongs_to_it(state: runs.RunState) -> None:
    run = dataclasses.replace(full(runs.Run, itertools.count(1)), state=state)
    ledger = Ledger({TimeClass.TRAINING: 7})
    shown = from_proto(run_detail(run, ledger=ledger, liveness="alive"), RunView)
    assert (shown.state, shown.reason, shown.liveness) == (state.kind, state.reason, "alive")
    assert shown.failure == getattr(state, "failure", None)
    assert shown.result == getattr(state, "result", None)
    assert shown.spec == run.spec
    assert (shown.attempts, shown.spent, shown.ledger) == (run.attempts, run.spent, ledger)
    assert (shown.id, shown.name, shown.project, shown.version) == (run.id, run.name, run.project, run.version)


def test_a_listed_run_has_neither_run_file_nor_attempts() -> None:
    run = full(runs.Run, itertools.count(1))
    shown = from_proto(run_summary(run), RunView)
    assert (shown.spec_json, shown.spec, shown.attempts) == ("", {}, ())


def test_a_sweep_arrives_as_it_was_sent() -> None:
    done = Trial(
        0,
        {"train.lr": 1.0, "model.width": 1, "train.optimizer": "sgd", "train.clip": None},
        TrialState.COMPLETED,
        "run-t",
        curve=((1, 0.5), (2, 0.75)),
        metrics={"val_loss": 0.25},
        checkpoint="/seal",
        reason="finished",
        seconds={"training": 2.5},
        cost=0.0,
        submitted_at=1.0,
        started_at=2.0,
        ended_at=3.0,
    )
    space = {"train.lr": {"log": [0.001, 1.0]}}
    sweep = Sweep("run-s", "p", "s", "RUNNING", "why", "m", "max", "tpe", "asha", 4, space, (done, Trial(1, {})), 3)
    for each in (sweep, dataclasses.replace(sweep, currency="USD", started_at=1.0, ended_at=2.0)):
        message = pb.Sweep.FromString(sweep_message(each).SerializeToString())
        assert sweep_of(message) == each
    assert isinstance(sweep_of(message).trials[0].point["train.lr"], float)
