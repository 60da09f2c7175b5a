"""What a watcher of one run is told: the present state at once, then every change, until the run has ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from orchestrator.api.parts import Parts
from orchestrator.api.run_history import events_page
from orchestrator.core.runs import Run
from orchestrator.protocol.v1.generated import evertrain_pb2 as pb

EVENTS_AT_ONCE = 500
PAUSE_S = 0.1  # between two looks: a run that reports often does not become as many messages


class RunFeed:
    """One watcher. It holds no thread while nothing happens, and reads events only when the run's version changed."""

    def __init__(self, parts: Parts, run: Run, after_event: int) -> None:
        self._parts = parts
        self._run = run
        self._after = after_event
        self._version = -1
        self._shown: tuple[object, ...] = ()

    async def updates(self) -> AsyncGenerator[pb.RunUpdate, None]:
        parts = self._parts
        wakes = parts.wakeups.wait(f"run:{self._run.id}", parts.settings.watch_poll_s)
        async with aclosing(wakes):
            async for _ in wakes:
                run = await parts.blocking(parts.store.run, self._run.project, self._run.id)
                async for update in self._changes(run):
                    yield update
                if run.terminal:
                    return
                await asyncio.sleep(PAUSE_S)

    async def _changes(self, run: Run) -> AsyncGenerator[pb.RunUpdate, None]:
        parts = self._parts
        progress, shown = parts.progress(run), self._look(run)
        if shown == self._shown:
            return
        update = pb.RunUpdate()
        if run.version != self._version:
            page = await self._events(run.id)
            while page.next_after:
                yield pb.RunUpdate(events=page.events)
                page = await self._events(run.id)
            update.events.extend(page.events)
        update.run.CopyFrom(await parts.blocking(parts.detail, run) if run.kind == "sweep" else parts.detail(run))
        if progress is not None:
            update.progress.CopyFrom(update.run.progress)
        self._version, self._shown = run.version, shown
        yield update

    def _look(self, run: Run) -> tuple[object, ...]:
        """What makes an update worth sending when it differs."""
        parts = self._parts
        return run.version, parts.reason(run), parts.fleet.liveness(run), parts.progress(run)

    async def _events(self, run_id: str) -> pb.EventsResponse:
        page = await events_page(self._parts, run_id, self._after, EVENTS_AT_ONCE)
        if page.events:
            self._after = page.events[-1].seq
        return page
