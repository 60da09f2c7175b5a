"""Log lines of runs on the server's disk: `ROOT/RUN/00000001.log` ..., directories 0700, files 0600."""

from __future__ import annotations

import re
import shutil
import threading
from collections import OrderedDict
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

from orchestrator.core.records import LogLine, LogQuery
from orchestrator.errors import InvalidSpec, Problem, Refused, StorageFailed
from orchestrator.telemetry import segments
from orchestrator.telemetry.segments import START, Position, RunFiles, Segment

RUN_BYTES = 256 * 2**20
_SEGMENTS = 64  # a run's log is dropped in pieces of this share of its limit
_OPEN_RUNS = 4096  # whose state is remembered; others are looked up on disk again
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_CURSOR = re.compile(r"(\d{1,9}):(\d{1,15}):(\d{1,15})")


class DiskLogStore:
    """Implements ports.LogStore and Prunable.

    Sources send in the order of seq; what is not above their highest is a repeat.
    """

    def __init__(self, root: Path, run_bytes: int = RUN_BYTES) -> None:
        self._root = root
        self._run_bytes = run_bytes
        self._segment_bytes = run_bytes // _SEGMENTS
        self._lock = threading.Lock()
        self._known: OrderedDict[str, RunFiles] = OrderedDict()

    def append(self, lines: Sequence[LogLine]) -> None:
        """Kept by the operating system when it returns; flushed to the disk segment by segment."""
        for run_id, group in groupby(lines, key=lambda line: line.run_id):
            with self._lock, self._storage(run_id):
                self._append(run_id, list(group))

    def _append(self, run_id: str, lines: list[LogLine]) -> None:
        files = self._files(run_id)
        new = _unseen(files, lines)
        if not new:
            return
        try:
            if not files.segments or files.segments[-1].size >= self._segment_bytes:
                segments.add_segment(files)
            segments.append(files, new)
            segments.drop_oldest(files, self._run_bytes)
        except OSError:
            del self._known[run_id]  # what reached the disk is found out by the next call
            raise

    def read(
        self, run_id: str, query: LogQuery, *, after: str = "", until: str = "", limit: int = 1000
    ) -> tuple[list[LogLine], str]:
        """Where lines of that place have been dropped, the first answer says how many, in a line of rank -1.

        Raises InvalidSpec for a cursor that no answer held, StorageFailed.
        """
        asked, end = _position(after), _position(until) if until else None
        with self._storage(run_id):
            while True:
                kept, lines = self._snapshot(run_id)
                try:
                    start = asked if after or query.tail is None else segments.tail(kept, lines, query, query.tail)
                    return _read(run_id, kept, start, end, query, limit, self._run_bytes)
                except FileNotFoundError:
                    # Dropped while we looked: the next snapshot knows. Unless somebody else removed it.
                    if self._snapshot(run_id)[0][:1] == kept[:1]:
                        raise

    def last_seq(self, run_id: str, attempt: int, source: str) -> int:
        with self._lock, self._storage(run_id):
            return self._files(run_id).last_seq.get((attempt, source), 0)

    def delete(self, run_id: str) -> None:
        """Forget a run's log. Idempotent."""
        with self._lock, self._storage(run_id):
            directory = self._directory(run_id)
            self._known.pop(run_id, None)
            if directory.exists():
                shutil.rmtree(directory)

    def prune(self, before_at: float, keep: Container[str]) -> list[str]:
        """Delete the logs that got their last line before `before_at`, except of the runs in `keep`; their ids."""
        with self._storage(str(self._root)):
            found = sorted(self._root.iterdir()) if self._root.exists() else []
            old = [run.name for run in found if run.name not in keep and _last_written_at(run) < before_at]
        for run_id in old:
            self.delete(run_id)
        return old

    def _snapshot(self, run_id: str) -> tuple[list[Segment], int]:
        with self._lock:
            files = self._files(run_id)
            return list(files.segments), files.lines

    def _files(self, run_id: str) -> RunFiles:
        files = self._known.get(run_id)
        if files is None:
            files = self._known[run_id] = segments.load(self._directory(run_id))
            if len(self._known) > _OPEN_RUNS:
                self._known.popitem(last=False)
        self._known.move_to_end(run_id)
        return files

    def _directory(self, run_id: str) -> Path:
        if not _RUN_ID.fullmatch(run_id):
            raise Refused(f"{run_id[:80]!r} is not the id of a run")
        return self._root / run_id

    @contextmanager
    def _storage(self, run_id: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            place = error.filename or self._root
            raise StorageFailed(f"the log of {run_id} at {place}: {error.strerror or error}") from error


def _unseen(files: RunFiles, lines: list[LogLine]) -> list[LogLine]:
    highest = dict(files.last_seq)
    new: list[LogLine] = []
    for line in lines:
        source = (line.attempt, line.source)
        if line.seq > highest.get(source, 0):
            highest[source] = line.seq
            new.append(line)
    return new


def _read(
    run_id: str,
    kept: list[Segment],
    start: Position,
    end: Position | None,
    query: LogQuery,
    limit: int,
    run_bytes: int,
) -> tuple[list[LogLine], str]:
    lines: list[LogLine] = []
    lost = 0
    if kept and start.segment < kept[0].number:
        lost = kept[0].first - start.index
        start = Position(kept[0].number, kept[0].begin, kept[0].first)
    position = start
    for raw, behind in segments.forward(kept, start):
        if end is not None and behind > end:
            break
        line = segments.decode(run_id, raw) if lost or segments.matches(raw, query) else None
        if lost and line is not None:
            lines += _marker(line, lost, query, run_bytes)
            lost = 0
        if len(lines) >= limit:
            break
        position = behind
        if line is not None and segments.matches(raw, query):
            lines.append(line)
    return lines, f"{position.segment}:{position.offset}:{position.index}"


def _marker(next_line: LogLine, lost: int, query: LogQuery, run_bytes: int) -> list[LogLine]:
    """Stands where lines were; left out where none of them can have been asked for."""
    if query.since_at is not None and next_line.at < query.since_at:
        return []
    if query.attempt is not None and next_line.attempt < query.attempt:
        return []
    text = f"[{lost:,} lines of this run were dropped here: its log is limited to {run_bytes:,} bytes]"
    return [LogLine(next_line.run_id, next_line.attempt, next_line.incarnation, -1, next_line.at, text, "server", 0)]


def _position(after: str) -> Position:
    if not after:
        return START
    found = _CURSOR.fullmatch(after)
    if found is None:
        raise InvalidSpec([Problem("after", after[:80], "use the cursor of an earlier answer, or leave it empty")])
    return Position(*map(int, found.groups()))


def _last_written_at(directory: Path) -> float:
    return max((path.stat().st_mtime for path in directory.glob("*.log")), default=0.0)
