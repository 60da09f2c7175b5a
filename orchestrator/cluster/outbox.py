"""What a coordinator observed and the server has not acknowledged, in memory and on disk.

The file outlives the coordinator's process: whoever finds it sends what is in it again, and the server drops repeats.
"""

from __future__ import annotations

import contextlib
import logging
import os
import struct
import time
from pathlib import Path

from google.protobuf.message import DecodeError

from orchestrator.cluster.feed import Feed
from orchestrator.core.observations import Happening, Observation
from orchestrator.protocol.convert import from_proto, to_proto
from orchestrator.protocol.v1.generated import evertrain_pb2 as pb

log = logging.getLogger(__name__)

FILE_NAME = "outbox"
_LENGTH = struct.Struct(">I")


class Outbox:
    """Numbers an attempt's observations from 1."""

    def __init__(self, directory: Path, run_id: str, attempt: int) -> None:
        self._run_id, self._attempt = run_id, attempt
        self._feed: Feed[Observation] = Feed()
        self._fd = os.open(directory / FILE_NAME, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._size = os.fstat(self._fd).st_size

    @property
    def last(self) -> int:
        return self._feed.last

    def put(self, what: Happening) -> None:
        observation = Observation(self._run_id, self._attempt, self._feed.last + 1, time.time(), what)
        raw = to_proto(observation, pb.Observation).SerializeToString()
        self._write(_LENGTH.pack(len(raw)) + raw)
        self._feed.put(observation)

    def _write(self, record: bytes) -> None:
        """All of it or nothing: what follows half a record could not be read."""
        rest = memoryview(record)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError as error:  # a full disk costs the copy for after our death, not the run
            log.warning("cannot write the outbox of %s/%d: %s", self._run_id, self._attempt, error)
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._size)
        else:
            self._size += len(record)

    async def wait_after(self, seq: int, timeout_s: float) -> list[Observation]:
        return [observation for _, observation in await self._feed.wait_after(seq, timeout_s)]

    def wake(self) -> None:
        self._feed.wake()

    def acknowledge(self, seq: int) -> None:
        self._feed.drop_through(seq)

    def close(self) -> None:
        self._feed.wake()
        os.close(self._fd)


def leftover(directory: Path) -> list[Observation]:
    """All whole observations in the outbox that a dead coordinator left; empty where there is none."""
    try:
        data = (directory / FILE_NAME).read_bytes()
    except OSError:
        return []
    found, at = [], 0
    while at + _LENGTH.size <= len(data):
        (size,) = _LENGTH.unpack_from(data, at)
        raw = data[at + _LENGTH.size : at + _LENGTH.size + size]
        try:
            if len(raw) < size:
                raise ValueError(f"{size} bytes announced, {len(raw)} there")
            found.append(from_proto(pb.Observation.FromString(raw), Observation))
        except (ValueError, KeyError, TypeError, DecodeError) as error:
            # It died in the middle of this one, or the disk lost it: what came before still counts.
            log.warning("%s is torn at byte %d of %d: %s", directory / FILE_NAME, at, len(data), error)
            break
        at += _LENGTH.size + size
    return found
