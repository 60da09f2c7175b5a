"""Wakeups inside one process: whoever waits is woken at once, whatever thread speaks."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field


@dataclass(eq=False)
class _Waiter:
    loop: asyncio.AbstractEventLoop
    event: asyncio.Event = field(default_factory=asyncio.Event)


class LocalWakeups:
    """Implements ports.Wakeups. Each `wait` belongs to the event loop it runs on; a waiter costs no thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiters: dict[str, set[_Waiter]] = {}

    def notify(self, topic: str) -> None:
        """From any thread; never blocks. Notifications that come before the waiter looks count as one."""
        with self._lock:
            waiters = list(self._waiters.get(topic, ()))
        for waiter in waiters:
            with contextlib.suppress(RuntimeError):  # its loop has been closed: nobody waits there
                waiter.loop.call_soon_threadsafe(waiter.event.set)

    async def wait(self, topic: str, timeout_s: float) -> AsyncGenerator[None, None]:
        """Yields at once, then after each notification or timeout, whichever is first, until closed."""
        waiter = _Waiter(asyncio.get_running_loop())
        with self._lock:
            self._waiters.setdefault(topic, set()).add(waiter)
        try:
            while True:
                yield
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(waiter.event.wait(), timeout_s)
                waiter.event.clear()
        finally:
            self._leave(topic, waiter)

    def waiting(self, topic: str) -> int:
        """How many wait for `topic` now."""
        with self._lock:
            return len(self._waiters.get(topic, ()))

    def _leave(self, topic: str, waiter: _Waiter) -> None:
        with self._lock:
            others = self._waiters[topic]
            others.discard(waiter)
            if not others:
                del self._waiters[topic]
