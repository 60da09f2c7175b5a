"""Numbered log lines of one source, kept on disk until the server has them.

Lines live in segment files; a segment goes when all of it is acknowledged. Beyond the limit the oldest segment goes
unacknowledged, and a line in the stream says how many lines went with it. What a full disk does not take lives in memory
alone, and where memory had to give lines up, a line in their place says how many. Whoever opens the directory after the
writer's death reads the same lines.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.core.records import LogLine

log = logging.getLogger(__name__)

LIMIT_BYTES = 64 * 2**20
SEGMENT_BYTES = 2**20
IN_MEMORY_LINES = 4096
COORDINATOR_RANK = -1


@dataclass
class _Segment:
    path: Path
    first: int
    last: int
    size_bytes: int


class LogSpool:
    """For one writer. `source` names it; lines are numbered from 1 within (attempt, source)."""

    def __init__(
        self,
        directory: Path,
        *,
        run_id: str,
        attempt: int,
        source: str,
        limit_bytes: int = LIMIT_BYTES,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        self._directory = directory
        self._run_id = run_id
        self._attempt = attempt
        self._source = source
        self._limit_bytes = limit_bytes
        self._segment_bytes = segment_bytes
        self._segments: deque[_Segment] = deque()
        self._recent: deque[LogLine] = deque(maxlen=IN_MEMORY_LINES)
        self._next = 1
        self._acknowledged = 0
        self._full = False  # the disk took nothing of the last lines
        self._dropped_through = 0  # what the limit took is told by a line of its own
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write_header(directory, run_id, attempt, source)
        self._fd = self._open_segment()

    @property
    def last(self) -> int:
        return self._next - 1

    @property
    def acknowledged(self) -> int:
        return self._acknowledged

    def append(self, lines: Sequence[tuple[int, int, float, str]]) -> None:
        """Keep lines of (incarnation, rank, wall clock time, text). A full disk costs lines on disk, never a rank."""
        if not lines:
            return
        self._keep(lines)
        if self._segments[-1].size_bytes >= self._segment_bytes:
            self._rotate()
        dropped = self._drop_oldest()
        if dropped:
            incarnation, _, at, _ = lines[-1]
            text = f"[evertrain] {dropped} lines dropped: the server was away and this host's log spool is full"
            self._keep([(incarnation, COORDINATOR_RANK, at, text)])

    def after(self, seq: int, limit: int) -> list[LogLine]:
        """Kept lines above `seq`, oldest first, at most `limit`."""
        after = max(seq, self._acknowledged, self._dropped_through)
        found: list[LogLine] = []
        if self._recent and self._recent[0].seq > after + 1:
            found = self._from_disk(after, self._recent[0].seq, limit)
        found += [line for line in self._recent if line.seq > after][: limit - len(found)]
        return _with_gaps_told(found, after)[:limit]

    def _from_disk(self, after: int, before: int, limit: int) -> list[LogLine]:
        found: list[LogLine] = []
        for segment in self._segments:
            if segment.last > after and len(found) < limit:
                lines = _read(segment.path, self._run_id, self._attempt, self._source)
                found += [line for line in lines if after < line.seq < before]
        return found[:limit]

    def acknowledge(self, seq: int) -> None:
        """Lines up to `seq` are the server's now."""
        self._acknowledged = max(self._acknowledged, min(seq, self.last))
        while self._recent and self._recent[0].seq <= self._acknowledged:
            self._recent.popleft()
        while len(self._segments) > 1 and self._segments[0].last <= self._acknowledged:
            self._segments.popleft().path.unlink(missing_ok=True)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _keep(self, lines: Sequence[tuple[int, int, float, str]]) -> None:
        raw = bytearray()
        for incarnation, rank, at, text in lines:
            line = LogLine(self._run_id, self._attempt, incarnation, rank, at, text, self._source, self._next)
            self._next += 1
            self._recent.append(line)
            raw += json.dumps([line.seq, incarnation, rank, at, text]).encode() + b"\n"
        if self._write(bytes(raw)):
            self._segments[-1].last = self.last

    def _write(self, record: bytes) -> bool:
        """All of it or nothing: what follows half a line could not be read."""
        segment, rest = self._segments[-1], memoryview(record)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError as error:
            if not self._full:
                log.warning("log lines of %s/%d are kept in memory alone: %s", self._run_id, self._attempt, error)
            self._full = True
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, segment.size_bytes)
            return False
        self._full = False
        segment.size_bytes += len(record)
        return True

    def _rotate(self) -> None:
        with contextlib.suppress(OSError):  # no room for another file: the present one goes on
            fresh = self._open_segment()
            os.close(self._fd)
            self._fd = fresh

    def _open_segment(self) -> int:
        """Raises OSError."""
        path = self._directory / f"{self._next:012d}.log"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._segments.append(_Segment(path, self._next, self._next - 1, 0))
        return descriptor

    def _drop_oldest(self) -> int:
        """Hold the limit; how many lines went unacknowledged."""
        dropped = 0
        while len(self._segments) > 1 and sum(each.size_bytes for each in self._segments) > self._limit_bytes:
            oldest = self._segments.popleft()
            dropped += max(0, oldest.last - max(oldest.first - 1, self._acknowledged))
            oldest.path.unlink(missing_ok=True)
            self._dropped_through = max(self._dropped_through, oldest.last)
            while self._recent and self._recent[0].seq <= oldest.last:
                self._recent.popleft()
        return dropped


def leftover(directory: Path) -> list[LogLine]:
    """All lines that a dead writer left in `directory`; empty where there was none."""
    try:
        header = json.loads((directory / "header.json").read_text())
    except (OSError, ValueError):
        return []
    lines = [
        line
        for path in sorted(directory.glob("*.log"))
        for line in _read(path, header["run_id"], header["attempt"], header["source"])
    ]
    return _with_gaps_told(lines, lines[0].seq - 1) if lines else []


def owner(directory: Path) -> tuple[str, int] | None:
    """Run and attempt whose lines are in `directory`; None where there are none."""
    try:
        header = json.loads((directory / "header.json").read_text())
        return str(header["run_id"]), int(header["attempt"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_header(directory: Path, run_id: str, attempt: int, source: str) -> None:
    (directory / "header.json").write_text(json.dumps({"run_id": run_id, "attempt": attempt, "source": source}))


def _with_gaps_told(lines: Sequence[LogLine], after: int) -> list[LogLine]:
    """`lines` with one in the place of those that are missing above `after`. It takes the number of the last of them."""
    told = []
    for line in lines:
        lost = line.seq - after - 1
        if lost:
            text = f"[evertrain] {lost} lines lost: this host's disk was full and the server did not take them in time"
            told.append(dataclasses.replace(line, rank=COORDINATOR_RANK, text=text, seq=line.seq - 1))
        told.append(line)
        after = line.seq
    return told


def _read(path: Path, run_id: str, attempt: int, source: str) -> Iterator[LogLine]:
    with open(path, encoding="utf-8") as file:
        for raw in file:
            try:
                seq, incarnation, rank, at, text = json.loads(raw)
            except ValueError:
                continue  # the writer died in the middle of this line
            yield LogLine(run_id, attempt, incarnation, rank, at, text, source, seq)
