"""The files of one run's log: `00000001.log`, `00000002.log` ..., each a header and then one JSON array a line.

A header holds how many lines the run had before this segment, and how far each source had come. So the oldest segments
can go without anything being forgotten that keeps lines from being written twice, and opening a run reads only its last.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.core.records import LogLine, LogQuery

_FORMAT = 1
_BLOCK = 64 * 1024
Source = tuple[int, str]  # attempt, source


@dataclass(frozen=True)
class Segment:
    path: Path
    number: int  # from 1, without gaps
    first: int  # lines of the run before this segment
    begin: int  # offset of the first line
    size: int  # bytes that are whole lines


@dataclass
class RunFiles:
    """One run's segments, oldest first, and what appending to them needs."""

    directory: Path
    segments: list[Segment] = field(default_factory=list)
    lines: int = 0  # ever kept, those included that have gone since
    last_seq: dict[Source, int] = field(default_factory=dict)


@dataclass(frozen=True, order=True)
class Position:
    """Before which line a reader stands. `index` is the number of lines of the run before it."""

    segment: int
    offset: int
    index: int


START = Position(0, 0, 0)


def encode(line: LogLine) -> bytes:
    fields = [line.attempt, line.incarnation, line.rank, line.seq, line.at, line.source, line.text]
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass") + b"\n"


def decode(run_id: str, raw: bytes) -> LogLine | None:
    """None for what `encode` did not write: a disk may damage a line, and the others are still worth reading."""
    try:
        attempt, incarnation, rank, seq, at, source, text = json.loads(raw.decode("utf-8", "surrogatepass"))
    except (ValueError, TypeError):
        return None
    return LogLine(run_id, attempt, incarnation, rank, at, text, source, seq)


def matches(raw: bytes, query: LogQuery) -> bool:
    """By the first fields alone: most lines that a filter turns down are never decoded."""
    if query.rank is None and query.attempt is None and query.since_at is None:
        return True
    try:
        attempt, _, rank, _, at, _ = raw[1:].split(b",", 5)
        return (
            query.rank in (None, int(rank))
            and query.attempt in (None, int(attempt))
            and (query.since_at is None or float(at) >= query.since_at)
        )
    except ValueError:
        return False


# ---- opening and growing -------------------------------------------------------------------------------------------


def load(directory: Path) -> RunFiles:
    """What is on disk, mended where a process died while it wrote. Raises OSError."""
    files = RunFiles(directory)
    paths = sorted(directory.glob("[0-9]*.log"))
    for path in paths:
        headed = _header(path)
        if headed is not None:
            first, begin, last_seq = headed
            files.segments.append(Segment(path, int(path.stem), first, begin, path.stat().st_size))
            files.last_seq = last_seq
        elif path == paths[-1]:
            path.unlink()  # died before its first line: nothing in it was acknowledged
    if files.segments:
        _mend_last(files)
    return files


def _header(path: Path) -> tuple[int, int, dict[Source, int]] | None:
    with path.open("rb") as file:
        raw = file.readline()
    try:
        header = json.loads(raw)
        if not raw.endswith(b"\n") or header["format"] != _FORMAT:
            return None
        return header["first"], len(raw), {(attempt, source): seq for attempt, source, seq in header["last_seq"]}
    except (ValueError, KeyError, TypeError):
        return None


def _mend_last(files: RunFiles) -> None:
    """Count the last segment's lines, and cut off what was being written when the process or the machine died."""
    last = files.segments[-1]
    files.lines = last.first
    size = last.begin
    with last.path.open("r+b") as file:
        file.seek(size)
        for raw in file:
            line = decode("", raw)
            if line is None or not raw.endswith(b"\n"):
                break
            size += len(raw)
            files.lines += 1
            files.last_seq[line.attempt, line.source] = line.seq
        file.truncate(size)
    files.segments[-1] = Segment(last.path, last.number, last.first, last.begin, size)


def add_segment(files: RunFiles) -> None:
    """Start a new segment; the one before is flushed to the disk, since nothing will be added to it. Raises OSError."""
    if files.segments:
        _flush(files.segments[-1].path)
    files.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    number = files.segments[-1].number + 1 if files.segments else 1
    path = files.directory / f"{number:08d}.log"
    last_seq = [[attempt, source, seq] for (attempt, source), seq in files.last_seq.items()]
    header = json.dumps({"format": _FORMAT, "first": files.lines, "last_seq": last_seq}).encode() + b"\n"
    _write(path, header, os.O_CREAT | os.O_TRUNC)
    files.segments.append(Segment(path, number, files.lines, len(header), len(header)))


def append(files: RunFiles, lines: list[LogLine]) -> None:
    """Raises OSError; then `load` again, since some of the lines may have been written."""
    last = files.segments[-1]
    raw = b"".join(map(encode, lines))
    _write(last.path, raw, 0)
    files.segments[-1] = Segment(last.path, last.number, last.first, last.begin, last.size + len(raw))
    files.lines += len(lines)
    files.last_seq |= {(line.attempt, line.source): line.seq for line in lines}


def drop_oldest(files: RunFiles, run_bytes: int) -> None:
    """Keep the run within its size; the segment that is being written always stays. Raises OSError."""
    while len(files.segments) > 1 and sum(segment.size for segment in files.segments) > run_bytes:
        files.segments[0].path.unlink(missing_ok=True)
        del files.segments[0]


def _write(path: Path, raw: bytes, flags: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | flags, 0o600)
    try:
        view = memoryview(raw)
        while view:
            view = view[os.write(fd, view) :]
    finally:
        os.close(fd)


def _flush(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


# ---- reading -------------------------------------------------------------------------------------------------------


def forward(segments: list[Segment], start: Position) -> Iterator[tuple[bytes, Position]]:
    """Each line from `start` on, with the position behind it. Raises FileNotFoundError when a segment has gone."""
    for segment in segments:
        if segment.number < start.segment:
            continue
        here = start.segment == segment.number
        offset, index = (start.offset, start.index) if here else (segment.begin, segment.first)
        with segment.path.open("rb") as file:
            file.seek(offset)
            while offset < segment.size:
                raw = file.readline()
                offset, index = offset + len(raw), index + 1
                yield raw, Position(segment.number, offset, index)


def tail(segments: list[Segment], lines: int, query: LogQuery, count: int) -> Position:
    """Before the last `count` lines that match; START when there are fewer. `lines`: of the run so far."""
    index = lines
    for segment in reversed(segments):
        for raw, offset in _backward(segment):
            if count <= 0:
                return Position(segment.number, offset + len(raw), index)
            index -= 1
            if matches(raw, query):
                count -= 1
        if count <= 0:
            return Position(segment.number, segment.begin, segment.first)
    return START


def _backward(segment: Segment) -> Iterator[tuple[bytes, int]]:
    """Lines from the end, each with its offset, reading a block at a time."""
    end, rest = segment.size, b""
    with segment.path.open("rb") as file:
        while end > segment.begin:
            start = max(segment.begin, end - _BLOCK)
            file.seek(start)
            block = file.read(end - start) + rest
            cut = 0 if start == segment.begin else block.find(b"\n") + 1
            rest, whole, offset = block[:cut], block[cut:], start + len(block)
            for raw in reversed(whole.splitlines(keepends=True)):
                offset -= len(raw)
                yield raw, offset
            end = start
