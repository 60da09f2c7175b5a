"""Log lines between a host and the server: numbered, on disk until acknowledged, bounded."""

from __future__ import annotations

from pathlib import Path

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
