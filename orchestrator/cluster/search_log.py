"""What a sweep's drivers print, as lines of the sweep's own log."""

from __future__ import annotations

import asyncio
import contextlib
import time

from orchestrator.cluster.attendant import LOG_SETTLE_S, Surroundings
from orchestrator.core.orders import AttemptOrder
from orchestrator.core.records import LogLine

KEPT_LINES = 10_000  # while the server is away
TOLD_LINES = 5
DRIVER = -1  # stands where ranks have their number


class DriverLog:
    """Sends lines on until the server has them. They live in the agent's memory: what its death takes was not sent yet."""

    def __init__(self, order: AttemptOrder, around: Surroundings) -> None:
        self._key = order.run_id, order.attempt
        self._leftovers, self._shipper = around.leftovers, around.shipper
        self._source = f"driver, agent {around.epoch}"
        self._waiting: list[LogLine] = []
        self._seq = 0
        self._last: list[str] = []
        self._added = asyncio.Event()
        self._all_sent = asyncio.Event()
        self._all_sent.set()
        self._task = asyncio.create_task(self._send(), name=f"lines of sweep {order.run_id}/{order.attempt}")

    def add(self, text: str, start: int) -> None:
        """`start` counts the drivers. Where too many lines wait, this one is not kept."""
        self._last = [*self._last[1 - TOLD_LINES :], text]
        if len(self._waiting) >= KEPT_LINES:
            return
        self._seq += 1
        self._waiting.append(LogLine(*self._key, start, DRIVER, time.time(), text, self._source, self._seq))
        self._all_sent.clear()
        self._added.set()

    def last_words(self) -> str:
        return " | ".join(self._last) or "it said nothing"

    async def settle(self) -> None:
        """Close it once the server has all lines, or does not take them for long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOG_SETTLE_S):
                await self._all_sent.wait()
        self.close()

    def close(self) -> None:
        self._task.cancel()
        self._shipper.forget(*self._key)

    async def _send(self) -> None:
        while True:
            await self._added.wait()
            self._added.clear()
            lines = list(self._waiting)
            await self._leftovers.ship(self._key, lines)
            del self._waiting[: len(lines)]
            if not self._waiting:
                self._all_sent.set()
