"""What receivers of webhooks are told: each step of a retraining, and each move of an alias that no retraining made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.core.aliases import stood_before
from orchestrator.core.decisions import DecisionRecord
from orchestrator.core.records import AliasMove


@dataclass(frozen=True)
class Announcement:
    """`delivery`: the same whenever it is told again. `message`: JSON."""

    delivery: str
    message: Mapping[str, Any]


def of_decision(record: DecisionRecord) -> Announcement:
    """The decision as it stands."""
    message = {
        "event": f"retraining.{record.standing}",
        "project": record.project,
        "model": record.model,
        "decision": record.number,
        "at": record.at,
        "cause": record.trigger.cause,
        "because": record.decision.because,
        "words": record.decision.words,
        "told": list(record.told),
        "run": record.run,
        "version": record.version,
        "by": record.by,
    }
    return Announcement(f"{record.project}/{record.model}/{record.number}/{record.standing}", message)


def of_move(move: AliasMove, earlier: Sequence[AliasMove]) -> Announcement:
    """`earlier`: the moves of the alias before it, newest first."""
    back = move.before and move.version == stood_before(earlier)
    message = {
        "event": "model.rolled_back" if back else "model.promoted",
        "project": move.project,
        "model": move.name,
        "alias": move.alias,
        "version": move.version,
        "before": move.before,
        "at": move.at,
        "by": move.by,
        "reason": move.reason,
    }
    return Announcement(f"{move.project}/{move.name}/moves/{move.number}", message)
