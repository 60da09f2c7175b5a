"""Log lines between a host and the server: numbered, on disk until acknowledged, bounded."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cluster import log_spool as module
from orchestrator.cluster.log_spool import LogSpool, leftover


def spool(directory: Path, **limits: int) -> LogSpool:
    return LogSpool(directory, run_id="run-1", attempt=2, source="gang/0", **limits)


def write(into: LogSpool, first: int, last: int) -> None:
    for number in range(first, last + 1):
        into.append([(1, 0, float(number), f"line {number}")])


def test_lines_are_numbered_and_read_after_a_number(tmp_path: Path) -> None:
    lines = spool(tmp_path)
    write(lines, 1, 10)
    assert [line.seq for line in lines.after(7, 100)] == [8, 9, 10]
    assert [line.text for line in lines.after(0, 2)] == ["line 1", "line 2"]


def test_acknowledged_lines_free_their_segments(tmp_path: Path) -> None:
    lines = spool(tmp_path, segment_bytes=200)
    write(lines, 1, 50)
    before = len(list(tmp_path.glob("*.log")))
    lines.acknowledge(40)
    assert len(list(tmp_path.glob("*.log"))) < before
    assert [line.seq for line in lines.after(40, 100)] == list(range(41, 51))


def test_more_lines_than_memory_keeps_are_read_from_disk(tmp_path: Path) -> None:
    lines = spool(tmp_path)
    write(lines, 1, 5000)
    assert [line.seq for line in lines.after(0, 3)] == [1, 2, 3]


def test_beyond_the_limit_the_oldest_lines_go_and_a_line_says_how_many(tmp_path: Path) -> None:
    lines = spool(tmp_path, segment_bytes=500, limit_bytes=2000)
    write(lines, 1, 200)
    kept = lines.after(0, 1000)
    assert kept[-1].seq == lines.last
    assert any("lines dropped" in line.text for line in kept)
    assert sum(path.stat().st_size for path in tmp_path.glob("*.log")) < 4000


def test_what_a_dead_writer_left_is_read_without_its_torn_last_line(tmp_path: Path) -> None:
    write(spool(tmp_path), 1, 3)
    with open(next(tmp_path.glob("*.log")), "a") as file:
        file.write('[4, 1, 0, 4.0, "to')
    assert [(line.seq, line.source, line.attempt) for line in leftover(tmp_path)] == [
        (1, "gang/0", 2),
        (2, "gang/0", 2),
        (3, "gang/0", 2),
    ]


class Disk:
    """Takes so many bytes and no more."""

    def __init__(self) -> None:
        self.free_bytes = 10**9
        self._write = os.write

    def write(self, descriptor: int, data: Any) -> int:
        if not self.free_bytes:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = bytes(data[: self.free_bytes])
        self.free_bytes -= len(taken)
        return self._write(descriptor, taken)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    disk = Disk()
    with monkeypatch.context() as patch:
        patch.setattr(module.os, "write", disk.write)
        yield disk


def test_lines_that_a_full_disk_did_not_take_come_from_memory(tmp_path: Path, disk: Disk) -> None:
    lines = spool(tmp_path)
    write(lines, 1, 10)
    disk.free_bytes = 5  # half a line
    write(lines, 11, 20)
    assert [line.seq for line in lines.after(0, 100)] == list(range(1, 21))
    disk.free_bytes = 10**9
    write(lines, 21, 25)
    assert [(line.seq, line.text) for line in leftover(tmp_path)][9:12] == [
        (10, "line 10"),
        (20, "[evertrain] 10 lines lost: this host's disk was full and the server did not take them in time"),
        (21, "line 21"),
    ]


def test_lines_that_neither_the_disk_nor_memory_holds_are_counted_in_their_place(tmp_path: Path, disk: Disk) -> None:
    lines = spool(tmp_path)
    write(lines, 1, 10)
    disk.free_bytes = 0
    lines.append([(1, 0, float(number), f"line {number}") for number in range(11, 5001)])
    disk.free_bytes = 10**9
    write(lines, 5001, 5010)
    read: list[Any] = []
    while batch := lines.after(read[-1].seq if read else 0, 500):
        read += batch
        lines.acknowledge(batch[-1].seq)
    assert read[-1].seq == lines.last == 5010
    assert [line.text for line in read[:10]] == [f"line {number}" for number in range(1, 11)]
    marker, first_kept = read[10], read[11]
    assert marker.text.startswith(f"[evertrain] {first_kept.seq - 11} lines lost: this host's disk was full")
    assert marker.seq == first_kept.seq - 1
    assert [line.seq for line in read[11:]] == list(range(first_kept.seq, 5011))


def test_lines_that_the_limit_took_are_counted_once(tmp_path: Path) -> None:
    lines = spool(tmp_path, segment_bytes=500, limit_bytes=2000)
    write(lines, 1, 200)
    markers = [line.text for line in lines.after(0, 1000) if line.text.startswith("[evertrain]")]
    assert markers
    assert all("spool is full" in each for each in markers)
