"""How long the training data of a retraining are kept: one decision for each snapshot, and its reason.

A snapshot is needed by whatever still reads it, and by the versions that serve, would serve after a rollback, or stand by
to be recalled: the next challenger is asked about the champion's data, too, whichever that is by then. All others go once
they are old. What they were stays with the decision.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.core.decisions import DecisionRecord

PRUNED = "pruned"
"""Of a decision's `data`: when its rows were removed, and why."""
_DAY_S = 86_400.0


@dataclass(frozen=True)
class Verdict:
    keep: bool
    words: str


def has_rows(record: DecisionRecord) -> bool:
    """Whether it took a snapshot that was not pruned yet."""
    return bool(record.data.get("url")) and PRUNED not in record.data


def judge(record: DecisionRecord, uses: Mapping[str, str], now: float, keep_s: float) -> Verdict:
    """Whether its snapshot is kept. `uses`: by a snapshot's URL, who needs it, in words."""
    if record.open:
        return Verdict(True, f"decision {record.name} is {record.standing}")
    if (use := uses.get(str(record.data.get("url")))) is not None:
        return Verdict(True, use)
    days = f"{keep_s / _DAY_S:g} days"
    ended_at = record.ended_at if record.ended_at is not None else record.at
    if now - ended_at < keep_s:
        return Verdict(True, f"its retraining ended less than {days} ago")
    words = (
        f"no version that serves, would after a rollback or stands by to be recalled learned from it; it is {days} old"
    )
    return Verdict(False, words)


def pruned(record: DecisionRecord, words: str, now: float) -> DecisionRecord:
    """The record of a decision whose rows are gone."""
    return replace(record, data=with_mark(record.data, words, now))


def told(data: Mapping[str, Any]) -> str:
    """What became of the rows, in words; "" while they are there."""
    mark = data.get(PRUNED)
    if mark is None:
        return ""
    at = datetime.datetime.fromtimestamp(mark["at"], datetime.UTC)
    return f"pruned at {at:%Y-%m-%d %H:%M} UTC: {mark['why']}"


def with_mark(data: Mapping[str, Any], words: str, now: float) -> dict[str, Any]:
    """A snapshot's lineage that says that its rows are gone."""
    return {**data, PRUNED: {"at": now, "why": words}}
