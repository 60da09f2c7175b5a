"""Core values to JSON text and back. The core stays free of pydantic; its types are read from outside here.

NaN metrics, NUL characters and lone surrogates in what programs print must come back as they were. pydantic's reader and
writer take half the time of the standard library's, and refuse surrogates: those documents go the slower way.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter
from pydantic_core import PydanticSerializationError, from_json, to_json

from orchestrator.core.alerts import Firing
from orchestrator.core.decisions import DecisionRecord
from orchestrator.core.monitors import Judgement, Monitor
from orchestrator.core.records import AliasMove, Checkpoint, Cluster, EventDraft, ModelVersion
from orchestrator.core.runs import Attempt, Event, Run

_RUN = TypeAdapter(Run)
_ATTEMPTS = TypeAdapter(tuple[Attempt, ...])
_CHECKPOINT = TypeAdapter(Checkpoint)
_MODEL = TypeAdapter(ModelVersion)
_ALIAS_MOVE = TypeAdapter(AliasMove)
_CLUSTER = TypeAdapter(Cluster)
_DECISION = TypeAdapter(DecisionRecord)
_FIRING = TypeAdapter(Firing)
_MONITOR = TypeAdapter(Monitor)
_JUDGEMENT = TypeAdapter(Judgement)
_spelled_out = json.JSONEncoder(separators=(",", ":")).encode


def _json(value: object) -> str:
    try:
        return to_json(value, inf_nan_mode="constants").decode()
    except PydanticSerializationError:
        return _spelled_out(value)


def _read(text: str) -> Any:
    try:
        return from_json(text)
    except ValueError:
        return json.loads(text)


def _text(adapter: TypeAdapter[Any], value: object, exclude: set[str] | None = None) -> str:
    return _json(adapter.dump_python(value, exclude=exclude, warnings=False))


def run_columns(run: Run) -> dict[str, object]:
    """The columns of `tables.runs` that change with the run."""
    return {
        "queue": run.queue,
        "state": run.state.kind,
        "priority": run.priority,
        "version": run.version,
        "record": _text(_RUN, run, {"spec", "attempts"}),
        "spec": _json(run.spec),
        "attempts": _text(_ATTEMPTS, run.attempts) if run.attempts else "[]",
    }


def run_summary(record: str) -> Run:
    """A run of a listing: `spec` and `attempts` are empty."""
    return _RUN.validate_python({**_read(record), "spec": {}})


def run(record: str, spec: str, attempts: str) -> Run:
    return _RUN.validate_python(
        {**_read(record), "spec": _read(spec), "attempts": _read(attempts)},
    )


def event_record(draft: EventDraft) -> str:
    return _json([draft.at, draft.kind, draft.message, dict(draft.data)])


def event(run_id: str, seq: int, record: str) -> Event:
    at, kind, message, data = _read(record)
    return Event(run_id, seq, at, kind, message, data)


def checkpoint_record(checkpoint: Checkpoint) -> str:
    return _text(_CHECKPOINT, checkpoint)


def checkpoint(record: str) -> Checkpoint:
    return _CHECKPOINT.validate_python(_read(record))


def model_record(model: ModelVersion) -> str:
    return _text(_MODEL, model, {"aliases"})


def fact_record(value: Any) -> str:
    return _json(value)


def fact(record: str) -> Any:
    return _read(record)


def model(record: str, aliases: tuple[str, ...]) -> ModelVersion:
    return _MODEL.validate_python({**_read(record), "aliases": aliases})


def alias_move_record(move: AliasMove) -> str:
    return _text(_ALIAS_MOVE, move)


def alias_move(record: str) -> AliasMove:
    return _ALIAS_MOVE.validate_python(_read(record))


def cluster_record(cluster: Cluster) -> str:
    return _text(_CLUSTER, cluster)


def cluster(record: str) -> Cluster:
    return _CLUSTER.validate_python(_read(record))


def decision_record(decision: DecisionRecord) -> str:
    return _text(_DECISION, decision)


def decision(record: str) -> DecisionRecord:
    return _DECISION.validate_python(_read(record))


def firing_record(firing: Firing) -> str:
    return _text(_FIRING, firing)


def firing(record: str) -> Firing:
    return _FIRING.validate_python(_read(record))


def monitor_columns(monitor: Monitor) -> dict[str, object]:
    """The columns of `tables.monitors` that change with the monitor."""
    return {
        "revision": monitor.revision,
        "record": _text(_MONITOR, monitor, {"state"}),
        "state": _json(dict(monitor.state)),
    }


def monitor(record: str, state: str = "{}") -> Monitor:
    return _MONITOR.validate_python({**_read(record), "state": _read(state)})


def judgement_record(judgement: Judgement) -> str:
    return _text(_JUDGEMENT, judgement)


def judgement(record: str) -> Judgement:
    return _JUDGEMENT.validate_python(_read(record))


def copy_spec(spec: Mapping[str, Any]) -> dict[str, Any]:
    """What the spec is once it has been stored and read."""
    return stored_spec(_json(spec))


def stored_spec(column: object) -> dict[str, Any]:
    spec: dict[str, Any] = _read(str(column))
    return spec
