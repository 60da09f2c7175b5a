"""Numbered log lines of one source, kept on disk until the server has them.

Lines live in segment files; a segment goes when all of it is acknowledged. Beyond the limit the oldest segment goes
unacknowledged, and a line in the stream says how many lines went with it. Whoever opens the directory after the writer's
death reads the same lines.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.core.records import LogLine

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
        if not self._recent or self._recent[0].seq <= seq + 1:
            return [line for line in self._recent if line.seq > seq][:limit]
        found: list[LogLine] = []
        for segment in self._segments:
            if segment.last > seq:
                found += [
                    line for line in _read(segment.path, self._run_id, self._attempt, self._source) if line.seq > seq
                ]
            if len(found) >= limit:
                break
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
        segment = self._segments[-1]
        try:
            written = os.write(self._fd, raw)
            if written < len(raw):
                os.write(self._fd, b"\n")  # the torn line must not take the next one with it
        except OSError:
            return
        segment.last = self.last
        segment.size_bytes += written

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
            while self._recent and self._recent[0].seq <= oldest.last:
                self._recent.popleft()
        return dropped


def leftover(directory: Path) -> list[LogLine]:
    """All lines that a dead writer left in `directory`; empty where there was none."""
    try:
        header = json.loads((directory / "header.json").read_text())
    except (OSError, ValueError):
        return []
    return [
        line
        for path in sorted(directory.glob("*.log"))
        for line in _read(path, header["run_id"], header["attempt"], header["source"])
    ]


def owner(directory: Path) -> tuple[str, int] | None:
    """Run and attempt whose lines are in `directory`; None where there are none."""
    try:
        header = json.loads((directory / "header.json").read_text())
        return str(header["run_id"]), int(header["attempt"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_header(directory: Path, run_id: str, attempt: int, source: str) -> None:
    (directory / "header.json").write_text(json.dumps({"run_id": run_id, "attempt": attempt, "source": source}))


def _read(path: Path, run_id: str, attempt: int, source: str) -> Iterator[LogLine]:
    with open(path, encoding="utf-8") as file:
        for raw in file:
            try:
                seq, incarnation, rank, at, text = json.loads(raw)
            except ValueError:
                continue  # the writer died in the middle of this line
            yield LogLine(run_id, attempt, incarnation, rank, at, text, source, seq)
