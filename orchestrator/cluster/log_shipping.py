"""Log lines from hosts to the server: each source goes on from where the server last confirmed it."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
import grpc.aio

from orchestrator.core.records import LogLine
from orchestrator.protocol.convert import to_proto
from orchestrator.protocol.v1.generated import evertrain_pb2 as pb

log = logging.getLogger(__name__)

BATCH_LINES = 500
_FIRST_CREDIT = 1
_PAUSE_S = 1.0

Source = tuple[str, int, str]  # run, attempt, source


class LogShipper:
    """One stream for all sources. Without a line to the server nothing is taken: the hosts' spools hold it."""

    def __init__(self, stub: Any, metadata: Any) -> None:
        self._stub, self._metadata = stub, metadata
        self._acknowledged: dict[Source, int] = {}
        self._sent: dict[Source, int] = {}
        self._unanswered = 0
        self._credit = _FIRST_CREDIT
        self._outgoing: asyncio.Queue[pb.LogBatch] | None = None
        self._moved = asyncio.Event()
        self._broken: str | None = None  # why nothing is shipped

    def acknowledged(self, source: Source) -> int:
        return self._acknowledged.get(source, 0)

    def sent(self, source: Source) -> int:
        """Lines above this one are to be shipped next; falls back to the last acknowledged one when the line breaks."""
        return max(self._sent.get(source, 0), self.acknowledged(source))

    async def ship(self, source: Source, after: int, lines: Sequence[LogLine]) -> None:
        """Returns once `lines`, which follow `after`, are on their way. Does nothing when others are to be shipped next,
        because the line broke meanwhile: look at `sent`.
        """
        while self._outgoing is None or self._unanswered >= self._credit:
            await self.moved()
        if after != self.sent(source):
            return
        batch = pb.LogBatch(lines=[to_proto(line, pb.LogLine) for line in lines])
        self._sent[source] = lines[-1].seq
        self._unanswered += 1
        self._outgoing.put_nowait(batch)

    async def moved(self) -> None:
        """Wait until something was acknowledged, or the line changed."""
        await self._moved.wait()

    async def settle(self, source: Source, seq: int, timeout_s: float) -> bool:
        """Wait until `seq` is acknowledged."""
        try:
            async with asyncio.timeout(timeout_s):
                while self.acknowledged(source) < seq:
                    await self.moved()
        except TimeoutError:
            return False
        return True

    def forget(self, run_id: str, attempt: int) -> None:
        for table in (self._acknowledged, self._sent):
            for source in [each for each in table if each[:2] == (run_id, attempt)]:
                del table[source]

    async def run(self) -> None:
        """Ship until cancelled."""
        while True:
            try:
                await self._stream()
            except grpc.aio.AioRpcError as error:
                self._note_break(f"{error.code().name}: {error.details()}")
            finally:
                self._outgoing = None
            await asyncio.sleep(_PAUSE_S * random.uniform(0.5, 1.0))

    def _note_break(self, why: str) -> None:
        """Once, and again when the reason is another one: the next try is a second away."""
        if why != self._broken:
            log.warning("log lines are not shipped (%s): trying on; hosts keep them until then", why)
        self._broken = why

    async def _stream(self) -> None:
        outgoing: asyncio.Queue[pb.LogBatch] = asyncio.Queue()
        self._outgoing, self._unanswered, self._credit = outgoing, 0, _FIRST_CREDIT
        self._sent.clear()
        self._wake()
        call = self._stub.ShipLogs(self._batches(outgoing), metadata=self._metadata)
        try:
            async for ack in call:
                self._take(ack)
        finally:
            call.cancel()

    async def _batches(self, outgoing: asyncio.Queue[pb.LogBatch]) -> AsyncIterator[pb.LogBatch]:
        while True:
            yield await outgoing.get()

    def _take(self, ack: pb.LogAck) -> None:
        if self._broken is not None:
            log.warning("log lines are shipped again")
            self._broken = None
        # Batches are of one source each, so every batch has one answer.
        self._unanswered = max(0, self._unanswered - 1)
        self._credit = max(1, ack.credit or self._credit)
        if ack.run_id:
            source = (ack.run_id, ack.attempt, ack.source)
            self._acknowledged[source] = max(ack.seq, self.acknowledged(source))
        self._wake()

    def _wake(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()
