"""Alerts that Alertmanager posts: each firing is acted on once, however often it is told. Blocks."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from orchestrator.control.commands import Commands
from orchestrator.core.alerts import Alert, Firing, Outcome, asked
from orchestrator.errors import InvalidSpec, NotFound, Refused
from orchestrator.ports import Clock, Store

log = logging.getLogger(__name__)

Fired = Callable[[str, str, Mapping[str, str], float], None]
"""Alert, fingerprint, labels, and when it began. It may be called again for the same firing after a crash. What it refuses
(InvalidSpec, NotFound, Refused) is told; by whatever else it raises Alertmanager is made to tell the alert again.
"""


def _nobody(name: str, fingerprint: str, labels: Mapping[str, str], starts_at: float) -> None:
    """No monitor waits for alerts."""


class Alerts:
    """Safe from several threads: requests are taken one after another, so that a storm is work for one thread."""

    def __init__(self, store: Store, commands: Commands, clock: Clock, fired: Fired = _nobody) -> None:
        self._store, self._commands, self._clock, self._fired = store, commands, clock, fired
        self._lock = threading.Lock()
        self._counts: Counter[Outcome] = Counter()
        self._heard_at = (
            store.alerts_told_at()
        )  # a server that starts while Alertmanager is down knows that it was there

    def take(self, alerts: Sequence[Alert], *, by: str) -> list[tuple[Outcome, str]]:
        """What was done about each, and why. A firing is kept only once it was acted on, and each act may be repeated: what a
        crash cuts off is done when Alertmanager tells it again. Raises Unavailable.
        """
        with self._lock:
            self._heard_at = self._clock.now()
            known = self._store.firings([each.key for each in alerts if each.firing])
            answers: list[tuple[Outcome, str]] = []
            for each in alerts:
                if not each.firing:
                    answers.append((Outcome.RESOLVED, "it fires no more"))
                elif (before := known.get(each.key)) is not None:
                    known[each.key] = replace(before, told_at=self._heard_at)
                    answers.append((Outcome.REPEATED, f"told before: {before.reason}"))
                else:
                    outcome, reason = self._act(each, by)
                    known[each.key] = Firing(each, self._heard_at, self._heard_at, outcome, reason)
                    answers.append((outcome, reason))
            self._store.keep_firings(list(known.values()))
            self._counts.update(outcome for outcome, _ in answers)
            return answers

    def counts(self) -> dict[Outcome, int]:
        """Alerts taken since the start, by what was done; every outcome is in it."""
        with self._lock:
            return {each: self._counts[each] for each in Outcome}

    @property
    def heard_at(self) -> float | None:
        """When anything was last told, also before the start; None: never."""
        return self._heard_at

    def refused(self, number: int) -> None:
        """So many were turned away before they came here."""
        with self._lock:
            self._counts[Outcome.REFUSED] += number

    def _act(self, alert: Alert, by: str) -> tuple[Outcome, str]:
        outcome, reason = asked(alert)
        if outcome is Outcome.PAUSED:
            outcome, reason = self._pause(alert, reason, by)
        try:
            self._fired(alert.name, alert.fingerprint, alert.labels, alert.starts_at)
        except (InvalidSpec, NotFound, Refused) as error:
            outcome, reason = Outcome.REFUSED, f"{reason}; no model is trained again for it: {error}"
        log.log(logging.INFO if outcome is not Outcome.REFUSED else logging.WARNING, "alert %s: %s", alert.name, reason)
        return outcome, reason

    def _pause(self, alert: Alert, reason: str, by: str) -> tuple[Outcome, str]:
        try:
            run = self._commands.pause(alert.project, alert.run, by=by, message=reason)
        except (NotFound, Refused) as error:
            return Outcome.REFUSED, f"its run cannot be paused: {error}"
        if not run.paused:
            return (
                Outcome.REFUSED,
                f"run {run.name} cannot be paused: it is {run.state.kind}, {run.state.reason.message}",
            )
        return Outcome.PAUSED, f"run {run.name} is {run.paused}"
