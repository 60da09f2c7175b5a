"""Telling webhooks of each step of a retraining, and of what people promote and roll back, until they have taken it."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace

from orchestrator.control.retraining import TOPIC
from orchestrator.core.announcements import Announcement, of_decision, of_move
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
        self._failed: dict[tuple[str, str, str, int], _Failed] = {}

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
                key = ("decision", record.project, record.model, record.number)
                if self._is_over(key, of_decision(record)):
                    # Where it answers None, the decision went on, and is told anew.
                    self._store.change_decision(replace(record, announced=record.standing))
        for move in self._store.untold_moves():
            earlier = self._store.alias_history(move.project, move.name, move.alias)
            told = of_move(move, [each for each in earlier if each.number < move.number])
            if self._is_over(("move", move.project, move.name, move.number), told):
                self._store.move_told(move.project, move.name, move.number)

    def _is_over(self, key: tuple[str, str, str, int], announcement: Announcement) -> bool:
        """Whether everybody has taken it, or it was tried for so long that it is given up."""
        now, failed = self._clock.now(), self._failed.get(key)
        if failed is not None and now < failed.again_at:
            return False
        if not self._webhooks.tell(announcement):
            since = failed.since if failed is not None else now
            pause_s = min(2 * failed.pause_s, LONGEST_PAUSE_S) if failed is not None else FIRST_PAUSE_S
            if now - since < GIVE_UP_S:
                self._failed[key] = _Failed(since, pause_s, now + pause_s)
                return False
            log.error("%s: some webhook has not taken it for %g s, given up", announcement.delivery, GIVE_UP_S)
        self._failed.pop(key, None)
        return True
