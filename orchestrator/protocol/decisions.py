"""Decisions on retraining between the core and the wire. Lineage travels as JSON text: a Struct cannot tell 1 from 1.0."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator.core.decisions import DecisionRecord
from orchestrator.protocol.convert import from_proto
from orchestrator.protocol.v1.generated import evertrain_pb2 as pb

_PLAIN = (
    *("project", "model", "number", "at", "standing", "told", "by", "run", "version", "cost"),
    *("ended_at", "promoted_at"),
)


@dataclass(frozen=True)
class DecisionView:
    """A decision as the wire shows it."""

    project: str
    model: str
    number: int
    at: float
    cause: str
    trigger: str
    trigger_words: str
    severity: int
    action: str
    because: str
    words: str
    standing: str
    told: tuple[str, ...] = ()
    by: str = ""
    run: str = ""
    champion: int = 0
    version: int = 0
    cost: float = 0.0
    again_at: float | None = None
    ended_at: float | None = None
    promoted_at: float | None = None
    data: Mapping[str, Any] = field(default_factory=dict)  # lineage of what it was trained on


def decision_message(record: DecisionRecord) -> pb.RetrainingDecision:
    decision, trigger = record.decision, record.trigger
    return pb.RetrainingDecision(
        **{name: getattr(record, name) for name in _PLAIN},
        cause=trigger.cause,
        trigger=trigger.key,
        trigger_words=trigger.words,
        severity=trigger.severity,
        action=decision.action,
        because=decision.because,
        words=decision.words,
        again_at=decision.again_at,
        champion=record.order.champion if record.order is not None else 0,
        data_json=json.dumps(record.data),
    )


def decision_of(message: pb.RetrainingDecision) -> DecisionView:
    """Raises ValueError."""
    return replace(from_proto(message, DecisionView), data=json.loads(message.data_json or "{}"))
