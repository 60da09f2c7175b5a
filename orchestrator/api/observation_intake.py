"""One replica's stream of live traffic: each batch is looked at, made durable and answered.

`_read` takes messages while those before them are being written: what has come meanwhile shares the next write. The queue
between the two is bounded, so a replica that sends faster than the disk writes is simply not read from.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from orchestrator.api.auth import caller
from orchestrator.api.parts import Parts, bad_request
from orchestrator.control.model_versions import find_version
from orchestrator.ports import Observed
from orchestrator.protocol.v1.generated import evertrain_pb2 as pb

KINDS = ("rows", "labels", "sketch", "shadow")
TOPIC = "observed"
QUEUED = 8
FRESH_NS = 10 * 10**9
_MODELS_KNOWN = 10_000
_SOURCE = re.compile(r"[!-~]{1,128}")
_SEQ_LIMIT = 2**53


class _Refusal(ValueError):
    """Why one batch will never be kept; the stream goes on."""


@dataclass(frozen=True)
class _Stream:
    project: str
    model: str
    source: str


class KnownVersions:
    """Which versions models have, as of some seconds ago: replicas open a stream a second, each. Calls block."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._known: dict[tuple[str, str], tuple[int, frozenset[int]]] = {}

    def find(self, project: str, model: str, version: int = 0) -> bool:
        """Whether the model has that version; 0: any. Raises NotFound where it has none."""
        now_ns = self._parts.clock.monotonic_ns()
        at_ns, versions = self._known.get((project, model), (0, frozenset[int]()))
        if not versions or now_ns - at_ns > FRESH_NS or version not in versions | {0}:
            found = self._parts.store.models(project, model)
            find_version(found, project, model, "")
            versions = frozenset(each.version for each in found)
            if len(self._known) >= _MODELS_KNOWN:
                self._known.clear()
            self._known[project, model] = now_ns, versions
        return version in versions | {0}


class ObservationIntake:
    def __init__(self, parts: Parts, versions: KnownVersions) -> None:
        self._parts = parts
        self._versions = versions
        self._queue: asyncio.Queue[pb.ObserveRequest | None] = asyncio.Queue(QUEUED)

    async def converse(self, messages: AsyncIterator[pb.ObserveRequest]) -> AsyncGenerator[pb.ObserveReply, None]:
        """Ends when the replica does. Raises what makes the whole stream useless: NotFound, Denied, StorageFailed ..."""
        first = await anext(aiter(messages), None)
        if first is None:
            return
        stream = await self._open(first)
        reading = asyncio.create_task(self._read(stream, first, messages), name=f"observe {stream.model}")
        reading.add_done_callback(lambda _: self._wake())
        try:
            while not reading.done() or not self._queue.empty():
                some = await self._waiting()
                if not some:
                    continue
                replies = await self._parts.blocking(self._keep, stream, some)
                self._parts.wakeups.notify(TOPIC)
                for reply in replies:
                    yield reply
            reading.result()
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _open(self, first: pb.ObserveRequest) -> _Stream:
        project = caller().target(first.project)
        if not first.model:
            raise bad_request("model", first.model, "the first message must name the model that was served")
        if not _SOURCE.fullmatch(first.source):
            raise bad_request("source", first.source, "must be 1 to 128 printable ASCII characters without spaces")
        await self._parts.blocking(self._versions.find, project, first.model)
        return _Stream(project, first.model, first.source)

    def _wake(self) -> None:
        with suppress(asyncio.QueueFull):  # full: its reader is awake anyway
            self._queue.put_nowait(None)

    async def _read(
        self, stream: _Stream, first: pb.ObserveRequest, messages: AsyncIterator[pb.ObserveRequest]
    ) -> None:
        await self._queue.put(first)
        async for message in messages:
            for name in ("project", "model", "source"):
                said = getattr(message, name)
                if said and said != getattr(first, name):
                    raise bad_request(name, said, "a stream is of one replica of one model: open another one")
            await self._queue.put(message)

    async def _waiting(self) -> list[pb.ObserveRequest]:
        """All that have come, one at least; none once nothing more will come."""
        some = [await self._queue.get()]
        while not self._queue.empty():
            some.append(self._queue.get_nowait())
        return [each for each in some if each is not None]

    def _keep(self, stream: _Stream, requests: Sequence[pb.ObserveRequest]) -> list[pb.ObserveReply]:
        """Blocks until all that can be kept is durable. Raises StorageFailed."""
        kept: list[Observed] = []
        replies = []
        for each in requests:
            refused = ""
            try:
                kept.append(self._draft(stream, each))
            except ValueError as error:  # a _Refusal, or a batch's or a summary's own
                refused = str(error)
            replies.append(pb.ObserveReply(seq=each.seq, refused=refused))
        if kept:
            self._parts.observations.append(stream.project, stream.model, kept)
        return replies

    def _draft(self, stream: _Stream, request: pb.ObserveRequest) -> Observed:
        limit = self._parts.settings.observation_batch_bytes
        if not 0 < request.seq < _SEQ_LIMIT:
            raise _Refusal(f"seq {request.seq}: batches of a source are counted from 1")
        if request.kind not in KINDS:
            raise _Refusal(f"kind {request.kind[:40]!r}: must be one of {', '.join(KINDS)}")
        if len(request.data) > limit:
            raise _Refusal(f"the batch has {len(request.data):,} bytes, {limit:,} are allowed: send fewer rows at once")
        if not self._versions.find(stream.project, stream.model, request.version):
            raise _Refusal(f"model {stream.model!r} has no version {request.version}: say 0 where it is not known")
        if request.kind == "shadow" and not request.version:
            raise _Refusal("answers in shadow are of version 0, which is none: say which version gave them")
        now = self._parts.clock.now()
        rows = _rows(request, now)
        kind: Any = request.kind
        return Observed(0, now, stream.source, request.seq, kind, request.version, rows, request.data)


def _rows(request: pb.ObserveRequest, now: float) -> int:
    """What reads them brings numpy and pyarrow along: nothing is imported before the first batch has come."""
    try:
        from orchestrator.drift.batches import check_batch
    except ModuleNotFoundError as error:
        raise _Refusal(
            f"this server watches no models, it lacks {error.name}: install evertrain[monitors] there"
        ) from error
    if request.kind == "sketch":
        from orchestrator.drift.sketches import SketchError, TableSummary

        rows = TableSummary.from_bytes(request.data).rows
        if rows <= 0:
            raise SketchError("the summary is of no rows")
        return rows
    kind: Any = request.kind
    return check_batch(request.data, kind, now)
