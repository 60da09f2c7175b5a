"""What a coordinator observed and the server has not acknowledged, in memory and on disk.

The file outlives the coordinator's process: whoever finds it sends what is in it again, and the server drops repeats.
"""

from __future__ import annotations

import logging
import os
import struct
import time
from pathlib import Path

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

    @property
    def last(self) -> int:
        return self._feed.last

    def put(self, what: Happening) -> None:
        observation = Observation(self._run_id, self._attempt, self._feed.last + 1, time.time(), what)
        raw = to_proto(observation, pb.Observation).SerializeToString()
        try:
            os.write(self._fd, _LENGTH.pack(len(raw)) + raw)
        except OSError as error:  # a full disk costs the copy for after our death, not the run
            log.warning("cannot write the outbox of %s/%d: %s", self._run_id, self._attempt, error)
        self._feed.put(observation)

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
    """All observations in the outbox that a dead coordinator left; empty where there is none."""
    try:
        data = (directory / FILE_NAME).read_bytes()
    except OSError:
        return []
    found, at = [], 0
    while at + _LENGTH.size <= len(data):
        (size,) = _LENGTH.unpack_from(data, at)
        raw = data[at + _LENGTH.size : at + _LENGTH.size + size]
        if len(raw) < size:
            break  # it died in the middle of this one
        found.append(from_proto(pb.Observation.FromString(raw), Observation))
        at += _LENGTH.size + size
    return found
