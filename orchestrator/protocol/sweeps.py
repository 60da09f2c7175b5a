"""Sweeps and trials between the wire and the core. Points travel as JSON text: a Struct cannot tell 1 from 1.0."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any, cast

from orchestrator.core.sweeps import Mode, Stage, Sweep, Trial, TrialState
from orchestrator.protocol.v1.generated import evertrain_pb2 as pb

_PLAIN = (
    *("id", "project", "name", "state", "reason", "metric", "mode", "algorithm", "scheduler", "wanted", "room"),
    *("currency", "submitted_at", "started_at", "ended_at"),
)
_OF_A_TRIAL = (
    *("number", "run_id", "generation", "checkpoint", "seal", "reason", "cost"),
    *("submitted_at", "started_at", "ended_at"),
)


def sweep_message(sweep: Sweep) -> pb.Sweep:
    return pb.Sweep(
        **{name: getattr(sweep, name) for name in _PLAIN},
        space_json=json.dumps(sweep.space),
        trials=[trial_message(each) for each in sweep.trials],
    )


def trial_message(trial: Trial) -> pb.Trial:
    return pb.Trial(
        **{name: getattr(trial, name) for name in _OF_A_TRIAL},
        state=trial.state.value,
        point_json=json.dumps(trial.point),
        reports=[report for report, _ in trial.curve],
        values=[value for _, value in trial.curve],
        metrics=trial.metrics,
        seconds=trial.seconds,
        stages_json=json.dumps([asdict(each) for each in trial.stages]),
    )


def sweep_of(message: pb.Sweep) -> Sweep:
    """Raises ValueError for what this version does not know."""
    return Sweep(
        **{name: _field(message, name) for name in _PLAIN if name != "mode"},
        mode=cast(Mode, message.mode),
        space=json.loads(message.space_json),
        trials=tuple(trial_of(each) for each in message.trials),
    )


def trial_of(message: pb.Trial) -> Trial:
    return Trial(
        **{name: _field(message, name) for name in _OF_A_TRIAL},
        state=TrialState(message.state),
        point=json.loads(message.point_json),
        curve=tuple(zip(message.reports, message.values, strict=True)),
        metrics=dict(message.metrics),
        seconds=dict(message.seconds),
        stages=tuple(Stage(**each) for each in json.loads(message.stages_json or "[]")),
    )


def _field(message: Any, name: str) -> Any:
    """None for an absent optional field."""
    field = message.DESCRIPTOR.fields_by_name[name]
    return None if field.has_presence and not message.HasField(name) else getattr(message, name)
