"""A run's log as a stream."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing

from orchestrator.api.parts import Parts
from orchestrator.core.records import LogLine, LogQuery
from orchestrator.core.runs import Run
from orchestrator.protocol import convert
from orchestrator.protocol.v1.generated import evertrain_pb2 as pb

LINES_AT_ONCE = 1000
CHUNK_BYTES = 2**20


class RunLogs:
    """One reader. When it follows, it ends once the run has ended and its log has been silent for `log_drain_s`; else it
    ends where the log did when it was asked: a run that writes faster than the reader reads would keep it for ever.
    """

    def __init__(self, parts: Parts, run: Run, query: LogQuery, after: str = "") -> None:
        self._parts = parts
        self._run = run
        self._query = query
        self._cursor = after

    async def all(self) -> AsyncGenerator[pb.LogChunk, None]:
        """What there is now."""
        parts = self._parts
        _, end = await parts.blocking(parts.logs.read, self._run.id, LogQuery(tail=0))
        async for chunk in self._unread(end):
            yield chunk

    async def follow(self) -> AsyncGenerator[pb.LogChunk, None]:
        parts = self._parts
        drain_s = parts.settings.log_drain_s
        quiet_since_ns: int | None = None
        wakes = parts.wakeups.wait(f"logs:{self._run.id}", min(parts.settings.watch_poll_s, drain_s))
        async with aclosing(wakes):
            async for _ in wakes:
                # Whether it has ended is asked before the lines are read: what came before the end is among them.
                run = await self._look()
                sent = 0
                async for chunk in self._unread():
                    sent += len(chunk.lines)
                    yield chunk
                if run.terminal and self._ended_s(run) > drain_s and not sent:
                    return
                now_ns = parts.clock.monotonic_ns()
                if sent or not run.terminal or quiet_since_ns is None:
                    quiet_since_ns = now_ns
                elif now_ns - quiet_since_ns >= drain_s * 1e9:
                    return

    async def _unread(self, until: str = "") -> AsyncGenerator[pb.LogChunk, None]:
        """At the very beginning a chunk comes even without lines: its cursor is where a reader takes up a broken stream."""
        parts = self._parts
        while True:
            before = self._cursor
            lines, self._cursor = await parts.blocking(
                parts.logs.read, self._run.id, self._query, after=before, until=until, limit=LINES_AT_ONCE
            )
            if not lines and before:
                return
            *first, last = list(_by_size(lines)) or [[]]
            for some in first:
                yield _chunk(some)
            yield _chunk(last, self._cursor)
            if not lines:
                return

    async def _look(self) -> Run:
        return await self._parts.blocking(self._parts.store.run, self._run.project, self._run.id)

    def _ended_s(self, run: Run) -> float:
        return self._parts.clock.now() - (run.ended_at or 0.0)


def _chunk(lines: Sequence[LogLine], cursor: str = "") -> pb.LogChunk:
    return pb.LogChunk(lines=[convert.to_proto(line, pb.LogLine) for line in lines], cursor=cursor)


def _by_size(lines: Sequence[LogLine]) -> Iterator[list[LogLine]]:
    """In pieces of about CHUNK_BYTES: a message has a size limit."""
    some: list[LogLine] = []
    size = 0
    for line in lines:
        some.append(line)
        size += len(line.text) * 4 + 100
        if size >= CHUNK_BYTES:
            yield some
            some, size = [], 0
    if some:
        yield some
