"""Live traffic of monitors on the server's disk: `ROOT/PROJECT/MODEL/00000001.obs` ..., directories 0700, files 0600."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from orchestrator.adapters import observation_segments as segments
from orchestrator.adapters.monitor_key import monitor_key
from orchestrator.adapters.observation_segments import Files, Mark, Segment
from orchestrator.adapters.replay import Replay
from orchestrator.errors import StorageFailed
from orchestrator.ports import Observed

MONITOR_BYTES = 2**30
READ_BYTES = 64 * 2**20
"""Of one answer to a reader: rows of many columns are large."""
_SEGMENTS = 64  # a journal goes in pieces of this share of its limit
_LARGEST_SEGMENT = 16 * 2**20


@dataclass
class _Journal:
    """`lock` guards all of it; `syncing` is held by the one thread that waits for the disk on behalf of all."""

    files: Files
    durable: Mark  # the end, in the last segment, of what readers may see
    lock: threading.RLock = field(default_factory=threading.RLock)
    syncing: threading.Lock = field(default_factory=threading.Lock)
    failed: bool = False  # the disk refused something: what it holds is found out anew

    @property
    def end(self) -> Mark:
        size = self.files.segments[-1].size if self.files.segments else 0
        return Mark(self.files.number, self.files.rows, size)


class DiskObservationStore:
    """Implements ports.ObservationStore and Prunable. Batches that several threads append at once share a flush."""

    def __init__(self, root: Path, monitor_bytes: int = MONITOR_BYTES) -> None:
        self._root = root
        self._monitor_bytes = monitor_bytes
        self._segment_bytes = min(_LARGEST_SEGMENT, monitor_bytes // _SEGMENTS)
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str], _Journal] = {}

    def append(self, project: str, model: str, batches: Sequence[Observed]) -> None:
        key = monitor_key(project, model)
        with self._storage(key):
            journal = self._journal(key)
            try:
                self._sync(journal, self._write(journal, batches))
            except OSError:
                _fail(journal)
                with self._lock:
                    if self._known.get(key) is journal:
                        del self._known[key]
                raise

    def _write(self, journal: _Journal, batches: Sequence[Observed]) -> Mark:
        """Not yet durable; the end of it, and of the first copies of what had been sent before."""
        with journal.lock:
            files = journal.files
            _refuse_failed(journal)
            new = [each for each in batches if files.sources.setdefault(each.source, Replay()).take(each.seq, each.at)]
            if new:
                if not files.segments or files.segments[-1].size >= self._segment_bytes:
                    self._add_segment(journal)
                segments.append(files, new)
                segments.drop_oldest(files, self._monitor_bytes)
            return journal.end

    def _add_segment(self, journal: _Journal) -> None:
        segments.add_segment(journal.files)
        journal.durable = journal.files.segments[-1].start

    def _sync(self, journal: _Journal, written: Mark) -> None:
        with journal.syncing:
            with journal.lock:
                _refuse_failed(journal)
                if journal.durable.number >= written.number:
                    return  # flushed with another thread's
                end, path = journal.end, journal.files.segments[-1].path
            try:
                segments.flush(path)
            except OSError:
                _fail(journal)  # before another thread may flush: it would not be told of what this one was told
                raise
            with journal.lock:
                # Otherwise a new segment was begun meanwhile, which flushed this one.
                if end.number > journal.durable.number:
                    journal.durable = end

    def read(self, project: str, model: str, *, after: int, limit_rows: int = 50_000) -> list[Observed]:
        key = monitor_key(project, model)
        with self._storage(key):
            while True:
                seen = self._snapshot(self._journal(key), after)
                try:
                    return _read(seen, after, limit_rows)
                except FileNotFoundError:
                    # Dropped while we looked: the next snapshot knows. Unless somebody else removed it.
                    if self._snapshot(self._journal(key), after)[:1] == seen[:1]:
                        raise

    def rows(self, project: str, model: str, *, since: int = 0) -> int:
        key = monitor_key(project, model)
        with self._storage(key):
            journal = self._journal(key)
            with journal.lock:
                seen = self._snapshot(journal, since)
                if not seen or since >= journal.durable.number:
                    return 0
                segment, mark = seen[0]
                before = mark.rows
                for _, batch in segments.records(segment, mark):
                    if batch.number > since:
                        break
                    before += batch.served
                return journal.durable.rows - before

    def last(self, project: str, model: str) -> int:
        key = monitor_key(project, model)
        with self._storage(key):
            return self._journal(key).durable.number

    def prune(self, before_at: float, keep: Container[str]) -> list[str]:
        """Delete the segments that were last written before `before_at`, except of the monitors `PROJECT/MODEL` in `keep`;
        their paths below the root.
        """
        removed: list[str] = []
        for directory in sorted(self._root.glob("*/*")):
            key = (directory.parent.name, directory.name)
            if "/".join(key) not in keep:
                with self._storage(key):
                    removed += self._prune(self._journal(monitor_key(*key)), before_at)
        return removed

    def _prune(self, journal: _Journal, before_at: float) -> list[str]:
        with journal.lock:
            files = journal.files
            old = [each for each in files.segments if each.path.stat().st_mtime < before_at]
            if old and old[-1] is files.segments[-1]:
                if old[-1].size > old[-1].start.offset:
                    self._add_segment(journal)  # the count goes on in an empty one
                else:
                    old.pop()
            for segment in old:
                files.segments.remove(segment)
                segment.path.unlink(missing_ok=True)
        return [str(segment.path.relative_to(self._root)) for segment in old]

    def _journal(self, key: tuple[str, str]) -> _Journal:
        with self._lock:
            journal = self._known.get(key)
            if journal is None:
                journal = _Journal(segments.load(self._root.joinpath(*key)), Mark(0, 0, 0))
                journal.durable = journal.end
                self._known[key] = journal
            return journal

    def _snapshot(self, journal: _Journal, after: int) -> list[tuple[Segment, Mark]]:
        """The segments with durable records above `after`, oldest first, each with where to begin in it."""
        with journal.lock:
            kept = journal.files.segments
            first = max((place for place, each in enumerate(kept) if each.start.number <= after), default=0)
            if kept[first:] and not kept[first].scanned:
                segments.scan(kept[first])
            seen = [(replace(each), each.mark_before(after)) for each in kept[first:]]
            if seen:
                seen[-1][0].size = journal.durable.offset
            return seen

    @contextmanager
    def _storage(self, key: tuple[str, str]) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            place = error.filename or self._root.joinpath(*key)
            raise StorageFailed(f"the observations of {'/'.join(key)} at {place}: {error.strerror or error}") from error


def _fail(journal: _Journal) -> None:
    """Take back what is not durable: nobody was told that it is kept, and it will be sent again."""
    with journal.lock:
        if not journal.failed and journal.files.segments:
            with contextlib.suppress(OSError):
                os.truncate(journal.files.segments[-1].path, journal.durable.offset)
        journal.failed = True


def _refuse_failed(journal: _Journal) -> None:
    if journal.failed:
        raise OSError(None, "the disk has just refused other batches of this monitor: send this one again")


def _read(seen: list[tuple[Segment, Mark]], after: int, limit_rows: int) -> list[Observed]:
    found: list[Observed] = []
    rows = size = 0
    for segment, mark in seen:
        for _, batch in segments.records(segment, mark):
            if batch.number <= after:
                continue
            rows += batch.rows
            size += len(batch.data)
            if found and (rows > limit_rows or size > READ_BYTES):
                return found
            found.append(batch)
    return found
