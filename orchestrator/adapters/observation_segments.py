"""The files of one monitor's journal: `00000001.obs`, `00000002.obs` ..., each a header line and then records.

    header   JSON: how many batches and rows the journal had before this segment, and how far each source had come
    record   b"EVOB", lengths of the next two, XXH3 of both | JSON [number, at, source, seq, kind, version, rows] | data

A header repeats what must outlive the oldest segments: numbers never come twice, and a batch that is sent again is known.
A record is believed only if its hash holds. Behind one that was damaged on the disk the next one is looked for, so that it
hides no other; what was being written when the process died is cut off.
"""

from __future__ import annotations

import json
import logging
import mmap
import os
import struct
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import xxhash

from orchestrator.adapters.replay import Replay
from orchestrator.ports import Observed

log = logging.getLogger(__name__)

SUFFIX = ".obs"
_FORMAT = 1
_MAGIC = b"EVOB"
_FRAME = struct.Struct("<4sIQQ")  # magic, bytes of the JSON, bytes of the data, hash
_MARK_BYTES = 256 * 1024
_SOURCES = 10_000  # remembered in a header: those that were heard last


@dataclass(frozen=True)
class Mark:
    """A place to begin reading at. `number`, `rows`: of the whole journal before it."""

    number: int
    rows: int
    offset: int


@dataclass
class Segment:
    path: Path
    ordinal: int  # from 1, without gaps
    marks: list[Mark]  # of its first record, and then every so often; only the first while nobody has looked inside
    size: int  # bytes of whole records, header included
    scanned: bool = False

    @property
    def start(self) -> Mark:
        return self.marks[0]

    def mark_before(self, after: int) -> Mark:
        """The last mark from which record `after` + 1 is still ahead."""
        place = bisect_right(self.marks, after, key=lambda mark: mark.number)
        return self.marks[max(place - 1, 0)]


@dataclass
class Files:
    """One monitor's segments, oldest first, and what appending to them needs."""

    directory: Path
    segments: list[Segment] = field(default_factory=list)
    number: int = 0  # of the last batch
    rows: int = 0  # ever kept: `Observed.served`
    sources: dict[str, Replay] = field(default_factory=dict)


# ---- opening -------------------------------------------------------------------------------------------------------


def load(directory: Path) -> Files:
    """What is on disk, mended where a process died while it wrote, and from now on durable. Raises OSError."""
    files = Files(directory)
    paths = sorted(directory.glob(f"[0-9]*{SUFFIX}"))
    for path in paths:
        headed = _header(path)
        if headed is None:
            _set_aside(path, died_in_it=path == paths[-1])
            continue
        start, files.sources = headed
        files.segments.append(Segment(path, int(path.stem), [start], path.stat().st_size))
    if files.segments:
        _mend_last(files)
    return files


def _header(path: Path) -> tuple[Mark, dict[str, Replay]] | None:
    with path.open("rb") as file:
        raw = file.readline()
    try:
        header = json.loads(raw)
        if not raw.endswith(b"\n") or header["format"] != _FORMAT:
            return None
        sources = {name: Replay(highest, int(bits, 16), at) for name, highest, bits, at in header["sources"]}
        return Mark(header["number"], header["rows"], len(raw)), sources
    except (ValueError, KeyError, TypeError):
        return None


def _set_aside(path: Path, died_in_it: bool) -> None:
    """A header is durable before the first record is written: without one, nothing in the file was acknowledged."""
    if died_in_it and b"\n" not in path.read_bytes():
        path.unlink()
        return
    path.rename(path.with_suffix(".damaged"))
    log.error("%s has no readable header: its batches are lost to the monitor, the file was renamed to .damaged", path)


def _mend_last(files: Files) -> None:
    last = files.segments[-1]
    files.number, files.rows = last.start.number, last.start.rows
    end = last.start.offset
    for offset, batch in records(last, last.start):
        _mark(last, offset, files)
        files.number, files.rows = batch.number, files.rows + batch.served
        files.sources.setdefault(batch.source, Replay()).take(batch.seq, batch.at)
        end = offset + _record_bytes(batch)
    last.scanned = True
    if end < last.size:
        log.warning("%s: cut off %d bytes that were being written when the server died", last.path, last.size - end)
        os.truncate(last.path, end)
        last.size = end
    flush(last.path)


def _mark(segment: Segment, offset: int, before: Files) -> None:
    if offset - segment.marks[-1].offset >= _MARK_BYTES:
        segment.marks.append(Mark(before.number, before.rows, offset))


# ---- growing -------------------------------------------------------------------------------------------------------


def add_segment(files: Files) -> None:
    """Start a new one, durably; so is the one before, since nothing will be added to it. Raises OSError."""
    if files.segments:
        flush(files.segments[-1].path)
    upwards = (files.directory, files.directory.parent, files.directory.parent.parent)
    for directory in reversed(upwards):
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    ordinal = files.segments[-1].ordinal + 1 if files.segments else 1
    path = files.directory / f"{ordinal:08d}{SUFFIX}"
    newest = sorted(files.sources.items(), key=lambda pair: -pair[1].at)[:_SOURCES]
    files.sources = dict(newest)
    sources = [[name, each.highest, f"{each.bits:x}", each.at] for name, each in newest]
    header = {"format": _FORMAT, "number": files.number, "rows": files.rows, "sources": sources}
    raw = json.dumps(header, separators=(",", ":")).encode() + b"\n"
    _write(path, raw, os.O_CREAT | os.O_TRUNC)
    flush(path)
    for directory in upwards:
        flush(directory)
    files.segments.append(Segment(path, ordinal, [Mark(files.number, files.rows, len(raw))], len(raw), scanned=True))


def append(files: Files, batches: Sequence[Observed]) -> None:
    """Number and write them, not yet durably. Raises OSError; then part of them may have been written: `load` again."""
    last = files.segments[-1]
    pieces, offset = [], last.size
    for batch in batches:
        _mark(last, offset, files)
        files.number, files.rows = files.number + 1, files.rows + batch.served
        record = _record(replace(batch, number=files.number))
        pieces.append(record)
        offset += len(record)
    _write(last.path, b"".join(pieces), 0)
    last.size = offset


def drop_oldest(files: Files, most_bytes: int) -> None:
    """Keep the journal within its size; the segment that is being written always stays. Raises OSError."""
    while len(files.segments) > 1 and sum(segment.size for segment in files.segments) > most_bytes:
        files.segments.pop(0).path.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """To the disk, with everything that anybody has written to it so far. Raises OSError."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _write(path: Path, raw: bytes, flags: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | flags, 0o600)
    try:
        view = memoryview(raw)
        while view:
            view = view[os.write(fd, view) :]
    finally:
        os.close(fd)


def _record(batch: Observed) -> bytes:
    head = _head(batch)
    return _FRAME.pack(_MAGIC, len(head), len(batch.data), _hash(head, batch.data)) + head + batch.data


def _record_bytes(batch: Observed) -> int:
    return _FRAME.size + len(_head(batch)) + len(batch.data)


def _head(batch: Observed) -> bytes:
    fields = [batch.number, batch.at, batch.source, batch.seq, batch.kind, batch.version, batch.rows]
    return json.dumps(fields, separators=(",", ":")).encode()


def _hash(head: bytes, data: bytes | memoryview) -> int:
    hasher = xxhash.xxh3_64(head)
    hasher.update(data)
    return int(hasher.intdigest())


# ---- reading -------------------------------------------------------------------------------------------------------


def records(segment: Segment, start: Mark) -> Iterator[tuple[int, Observed]]:
    """Each whole record from `start` on, with its offset. Raises FileNotFoundError when the segment has gone."""
    if start.offset >= segment.size:
        return
    with segment.path.open("rb") as file, mmap.mmap(file.fileno(), segment.size, access=mmap.ACCESS_READ) as view:
        offset = start.offset
        while offset < segment.size:
            found = _read(view, offset)
            if found is None:
                behind = view.find(_MAGIC, offset + 1)
                offset = behind if behind >= 0 else segment.size
                continue
            batch, end = found
            yield offset, batch
            offset = end


def _read(view: mmap.mmap, offset: int) -> tuple[Observed, int] | None:
    """None for what is no whole record."""
    begin = offset + _FRAME.size
    if begin > len(view):
        return None
    magic, head_bytes, data_bytes, digest = _FRAME.unpack_from(view, offset)
    middle, end = begin + head_bytes, begin + head_bytes + data_bytes
    if magic != _MAGIC or end > len(view):
        return None
    head, data = view[begin:middle], view[middle:end]
    if _hash(head, data) != digest:
        return None
    number, at, source, seq, kind, version, rows = json.loads(head)
    return Observed(number, at, source, seq, kind, version, rows, data), end


def scan(segment: Segment) -> None:
    """Set the marks of a segment that was written before this process began. Raises OSError."""
    seen = Files(segment.path.parent, number=segment.start.number, rows=segment.start.rows)
    for offset, batch in records(segment, segment.start):
        _mark(segment, offset, seen)
        seen.number, seen.rows = batch.number, seen.rows + batch.served
    segment.scanned = True
