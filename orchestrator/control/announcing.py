"""Telling webhooks of each step of a retraining, again and again until they have taken it."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace

from orchestrator.control.retraining import TOPIC
from orchestrator.core.decisions import DecisionRecord
from orchestrator.errors import EvertrainError
from orchestrator.ports import Clock, Store, Wakeups, Webhooks

log = logging.getLogger(__name__)

EVERY_S = 5.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 5.0, 600.0
GIVE_UP_S = 3 * 86_400.0


@dataclass(frozen=True)
class _Failed:
    since: float
    pause_s: float
    again_at: float


class Announcer:
    """At least once: a server that was killed between telling and noting it tells again, under the same delivery name. A
    step that another followed before anybody could be told is not told by itself: the next one says so in its words.
    """

    def __init__(self, store: Store, webhooks: Webhooks, wakeups: Wakeups, clock: Clock) -> None:
        self._store, self._webhooks, self._wakeups, self._clock = store, webhooks, wakeups, clock
        self._failed: dict[tuple[str, str, int], _Failed] = {}

    async def run(self) -> None:
        """Until cancelled."""
        async for _ in self._wakeups.wait(TOPIC, EVERY_S):
            try:
                await asyncio.to_thread(self.one_pass)
            except EvertrainError as error:
                log.error("webhooks are told again in %g s: %s", EVERY_S, error)

    def one_pass(self) -> None:
        """Blocks, for as long as receivers take to answer."""
        for record in self._store.open_decisions():
            if record.announced is not record.standing:
                self._announce(record)

    def _announce(self, record: DecisionRecord) -> None:
        key, now = (record.project, record.model, record.number), self._clock.now()
        failed = self._failed.get(key)
        if failed is not None and now < failed.again_at:
            return
        if not self._webhooks.tell(record):
            since = failed.since if failed is not None else now
            pause_s = min(2 * failed.pause_s, LONGEST_PAUSE_S) if failed is not None else FIRST_PAUSE_S
            if now - since < GIVE_UP_S:
                self._failed[key] = _Failed(since, pause_s, now + pause_s)
                return
            log.error("decision %s, %s: no webhook took it for %g s, given up", record.name, record.standing, GIVE_UP_S)
        self._failed.pop(key, None)
        self._store.change_decision(replace(record, announced=record.standing))  # None: it went on, and is told anew
