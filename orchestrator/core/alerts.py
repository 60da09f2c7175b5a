"""An alert that Alertmanager told of: what it is, and what its rule asks for.

A rule asks by a label: `evertrain_action: pause` on an alert with a label `run` pauses that run. Whatever fires is also
handed to the monitors, whose `retrain.triggers` may name it. One firing is one (project, fingerprint, start): told again, it
changes nothing.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

ACTION = "evertrain_action"
PAUSE = "pause"


class Outcome(enum.StrEnum):
    """What was done with an alert."""

    NOTED = "noted"  # handed to the monitors
    PAUSED = "paused"
    REPEATED = "repeated"  # it had been told before
    RESOLVED = "resolved"
    REFUSED = "refused"  # what it asks for cannot be done, or may not be by this token


@dataclass(frozen=True)
class Alert:
    """As it was told. `words`: its summary, for people."""

    project: str
    name: str
    fingerprint: str  # of its labels, by Alertmanager
    starts_at: float
    firing: bool
    labels: Mapping[str, str]
    words: str = ""

    @property
    def key(self) -> tuple[str, str, float]:
        return self.project, self.fingerprint, self.starts_at

    @property
    def run(self) -> str:
        return self.labels.get("run", "")


@dataclass(frozen=True)
class Firing:
    """An alert that was acted on, as it is kept."""

    alert: Alert
    at: float  # when it was first told
    told_at: float  # when it was last told
    outcome: Outcome
    reason: str  # in words


def asked(alert: Alert) -> tuple[Outcome, str]:
    """What is to be done about one that fires and is news: NOTED, PAUSED or REFUSED, and why."""
    action = alert.labels.get(ACTION, "")
    if not action:
        return Outcome.NOTED, "no run is to be paused for it"
    if action != PAUSE:
        return Outcome.REFUSED, f"the rule's label {ACTION} is {action!r}: only {PAUSE!r} is known"
    if not alert.run:
        return Outcome.REFUSED, f"the rule's label {ACTION} asks for a pause, but the alert has no label `run`"
    return Outcome.PAUSED, f"alert {alert.name}" + (f": {alert.words}" if alert.words else "")
