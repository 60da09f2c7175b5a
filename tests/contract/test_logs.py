"""What ports.LogStore promises, and what the one on a disk adds: limits, mending, retention."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.records import LogLine, LogQuery
from orchestrator.errors import InvalidSpec, Refused, StorageFailed
from orchestrator.telemetry.logs import DiskLogStore
from tests.contract.stores import at_once

RUN = "run-aaaaaaaaaa"
ALL = LogQuery()
ROOT = Path(__file__).resolve().parents[2]
FIELDS: dict[str, Any] = {"run_id": RUN, "attempt": 1, "incarnation": 1, "rank": 0, "source": "host-a"}


@pytest.fixture
def logs(tmp_path: Path) -> DiskLogStore:
    return DiskLogStore(tmp_path / "logs")


def line(seq: int, **changes: Any) -> LogLine:
    return LogLine(**{**FIELDS, "seq": seq, "at": float(seq), "text": f"line {seq}", **changes})


def everything(logs: DiskLogStore, query: LogQuery = ALL, limit: int = 7, after: str = "") -> list[LogLine]:
    """All pages."""
    lines: list[LogLine] = []
    while True:
        found, after = logs.read(RUN, query, after=after, limit=limit)
        assert len(found) <= limit
        if not found:
            return lines
        lines += found


def seqs(lines: list[LogLine]) -> list[int]:
    return [each.seq for each in lines]


def small(tmp_path: Path, kilobytes: int = 64) -> DiskLogStore:
    return DiskLogStore(tmp_path / "logs", run_bytes=kilobytes * 1024)


# ---- keeping -------------------------------------------------------------------------------------------------------


def test_lines_come_back_as_they_were_in_order_of_arrival(logs: DiskLogStore) -> None:
    texts = ["", "plain", "NUL \x00", "half \udc80", "🚂", "a\nb\rc\u2028d\x85", '"[1,2]', "x" * 200_000]
    lines = [line(seq, text=text, rank=seq % 3 - 1, at=1e9 / seq) for seq, text in enumerate(texts, 1)]
    logs.append(lines[:3])
    logs.append([])
    logs.append(lines[3:])

    assert logs.read(RUN, ALL)[0] == lines
    assert everything(logs, limit=1) == lines


def test_a_tail_of_nothing_answers_the_end_and_nothing_is_read_beyond_it(tmp_path: Path) -> None:
    logs = small(tmp_path)
    assert logs.read(RUN, ALL, until=logs.read(RUN, LogQuery(tail=0))[1]) == ([], "0:0:0")
    for until in (1, 50, 100):
        logs.append([line(seq, text="x" * 100) for seq in range(1, until + 1)])
        lines, end = logs.read(RUN, LogQuery(tail=0))
        assert lines == []
        logs.append([line(until + 1)])
        assert seqs(logs.read(RUN, ALL, until=end)[0]) == list(range(1, until + 1))
        assert logs.read(RUN, ALL, after=end, until=end) == ([], end)


def test_a_repeat_is_kept_once_also_after_a_restart(logs: DiskLogStore, tmp_path: Path) -> None:
    logs.append([line(1), line(2), line(2), line(1)])
    logs.append([line(1), line(2), line(3)])
    again = DiskLogStore(tmp_path / "logs")
    again.append([line(2), line(3), line(4)])

    assert seqs(everything(again)) == [1, 2, 3, 4]
    assert again.last_seq(RUN, 1, "host-a") == 4


def test_sources_and_attempts_count_for_themselves(logs: DiskLogStore) -> None:
    logs.append([line(5), line(2, source="host-b"), line(1, attempt=2), line(1, run_id="run-other")])

    kept = {(a, s): logs.last_seq(RUN, a, s) for a in (1, 2) for s in ("host-a", "host-b")}
    assert kept == {(1, "host-a"): 5, (1, "host-b"): 2, (2, "host-a"): 1, (2, "host-b"): 0}
    assert logs.last_seq("run-unknown", 1, "host-a") == 0
    assert len(everything(logs)) == 3


def test_many_threads_lose_and_repeat_nothing(logs: DiskLogStore) -> None:
    def ship(source: str) -> None:
        for seq in range(1, 60, 2):
            logs.append([line(n, source=source) for n in (seq, seq + 1)])

    at_once([partial(ship, f"host-{n // 2}") for n in range(8)])  # two shippers a source: each repeats the other

    lines = everything(logs, limit=100)
    for source in ("host-0", "host-1", "host-2", "host-3"):
        assert seqs([each for each in lines if each.source == source]) == list(range(1, 61))


def test_lines_survive_kill_9_of_the_process(logs: DiskLogStore, tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from orchestrator.telemetry.logs import DiskLogStore
from tests.contract.test_logs import line
logs = DiskLogStore(Path(sys.argv[1]), run_bytes=2**20)
for seq in range(1, 10**9):
    logs.append([line(seq)])
    print(seq, flush=True)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "logs")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, text=True) as child:
        assert child.stdout is not None
        for _ in range(500):
            acknowledged = int(child.stdout.readline())
        child.send_signal(signal.SIGKILL)

    last = logs.last_seq(RUN, 1, "host-a")
    assert last >= acknowledged
    assert seqs(everything(logs, limit=1000)) == list(range(1, last + 1))


def test_a_line_that_was_being_written_when_the_machine_died_is_cut_off(logs: DiskLogStore, tmp_path: Path) -> None:
    logs.append([line(1), line(2)])
    (segment,) = (tmp_path / "logs" / RUN).iterdir()
    for torn in (b'[1,1,0,3,3.0,"host-a","li', b"\x00" * 50, b'[1,1,0,3,3.0,"host-a","whole but for its end"]'):
        with segment.open("ab") as file:
            file.write(torn)
        again = DiskLogStore(tmp_path / "logs")
        assert again.last_seq(RUN, 1, "host-a") == 2
        assert seqs(everything(again)) == [1, 2]
    again.append([line(3)])
    assert seqs(everything(again)) == [1, 2, 3]


def test_a_segment_that_was_never_begun_is_forgotten(tmp_path: Path) -> None:
    logs = small(tmp_path)
    for seq in range(1, 40):
        logs.append([line(seq)])
    segments = sorted((tmp_path / "logs" / RUN).iterdir())
    (segments[-1].with_name(f"{len(segments) + 1:08d}.log")).write_bytes(b'{"format": 1, "fir')

    again = small(tmp_path)
    again.append([line(39), line(40)])
    assert seqs(everything(again)) == list(range(1, 41))


def test_a_damaged_line_hides_no_other(tmp_path: Path) -> None:
    logs = small(tmp_path)
    for seq in range(1, 40):
        logs.append([line(seq)])
    first = min((tmp_path / "logs" / RUN).iterdir())
    first.write_bytes(first.read_bytes().replace(b'[1,1,0,3,3.0,"host-a"', b"\xff" * 21))

    assert seqs(everything(small(tmp_path))) == [1, 2, *range(4, 40)]
    assert seqs(everything(small(tmp_path), LogQuery(rank=0))) == [1, 2, *range(4, 40)]


def test_a_full_disk_is_a_storage_error_and_nothing_is_torn(
    logs: DiskLogStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs.append([line(1)])
    whole_write = os.write

    def half_then_full(fd: int, data: memoryview) -> int:
        if len(data) < 40:
            raise OSError(28, "No space left on device")
        return whole_write(fd, data[: len(data) // 2])

    monkeypatch.setattr(os, "write", half_then_full)
    with pytest.raises(StorageFailed, match="No space left"):
        logs.append([line(2), line(3)])
    monkeypatch.undo()

    logs.append([line(2), line(3)])
    assert seqs(everything(logs)) == [1, 2, 3]


@pytest.mark.parametrize("run_id", ["", "..", "../x", "a/b", ".hidden", "x" * 200])
def test_a_run_id_is_no_path(logs: DiskLogStore, run_id: str) -> None:
    for call in (
        lambda: logs.append([line(1, run_id=run_id)]),
        lambda: logs.read(run_id, ALL),
        lambda: logs.delete(run_id),
    ):
        with pytest.raises(Refused, match="id of a run"):
            call()


def test_files_are_for_their_owner_only(logs: DiskLogStore, tmp_path: Path) -> None:
    logs.append([line(1)])

    (segment,) = (tmp_path / "logs" / RUN).iterdir()
    assert segment.stat().st_mode & 0o777 == 0o600
    assert segment.parent.stat().st_mode & 0o777 == 0o700


# ---- reading -------------------------------------------------------------------------------------------------------


def test_a_run_without_lines_reads_as_empty_and_goes_on_later(logs: DiskLogStore) -> None:
    for query in (ALL, LogQuery(tail=5)):
        found, cursor = logs.read(RUN, query)
        assert found == []
    logs.append([line(1)])

    assert seqs(logs.read(RUN, ALL, after=cursor)[0]) == [1]


def test_a_follower_sees_each_line_once_across_segments(tmp_path: Path) -> None:
    logs = small(tmp_path)
    shown: list[int] = []
    cursor = ""
    for seq in range(1, 200):
        logs.append([line(seq)])
        if seq % 3 == 0:
            found, cursor = logs.read(RUN, ALL, after=cursor)
            shown += seqs(found)

    assert shown == list(range(1, 199))


def test_filters_combine(logs: DiskLogStore) -> None:
    lines = [line(seq, rank=seq % 3, attempt=1 + seq // 20, at=100.0 - seq % 10) for seq in range(1, 41)]
    logs.append(lines)

    for query in (LogQuery(rank=2), LogQuery(attempt=2), LogQuery(since_at=95.0), LogQuery(1, 2, 95.0), LogQuery(7)):
        expected = [
            each
            for each in lines
            if query.rank in (None, each.rank)
            and query.attempt in (None, each.attempt)
            and (query.since_at is None or each.at >= query.since_at)
        ]
        assert everything(logs, query, limit=4) == expected


@given(
    sizes=st.lists(st.integers(0, 400), max_size=60),
    tail=st.integers(0, 70),
    rank=st.sampled_from([None, 0, 1]),
    limit=st.integers(1, 20),
)
@settings(max_examples=60, deadline=None)
def test_a_tail_is_the_last_of_what_a_whole_read_gives(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], tail: int, rank: int | None, limit: int
) -> None:
    logs = small(tmp_path_factory.mktemp("tail"))
    for seq, size in enumerate(sizes, 1):
        logs.append([line(seq, rank=seq % 2, text="x" * size)])
    whole = everything(logs, LogQuery(rank=rank))

    ending, cursor = logs.read(RUN, LogQuery(rank=rank, tail=tail), limit=limit)
    ending += everything(logs, LogQuery(rank=rank, tail=tail), after=cursor) if ending else []

    assert ending == (whole[-tail:] if tail else [])


def test_a_tail_reads_the_end_only(logs: DiskLogStore, tmp_path: Path) -> None:
    logs.append([line(seq, text="y" * 1000) for seq in range(1, 6000)])
    logs.append([line(6000)])
    first = min((tmp_path / "logs" / RUN).iterdir())
    first.write_bytes(b"")  # whatever is there is not looked at

    assert seqs(logs.read(RUN, LogQuery(tail=1))[0]) == [6000]


def test_a_tail_counts_only_without_a_cursor(logs: DiskLogStore) -> None:
    logs.append([line(seq) for seq in range(1, 10)])
    _, cursor = logs.read(RUN, ALL, limit=2)

    assert seqs(logs.read(RUN, LogQuery(tail=1), after=cursor)[0]) == [3, 4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize("cursor", ["x", "1:2", "1:2:3:4", "-1:2:3", "1:2:" + "9" * 40])
def test_a_cursor_that_no_answer_held_is_refused(logs: DiskLogStore, cursor: str) -> None:
    with pytest.raises(InvalidSpec, match="cursor"):
        logs.read(RUN, ALL, after=cursor)


# ---- limits and retention ------------------------------------------------------------------------------------------


def disk_bytes(root: Path) -> int:
    return sum(path.stat().st_size for path in root.rglob("*.log"))


def test_beyond_its_limit_a_run_loses_the_oldest_lines_and_says_how_many(tmp_path: Path) -> None:
    logs = small(tmp_path)
    for seq in range(1, 5001):
        logs.append([line(seq)])

    marker, *rest = everything(logs, limit=100)

    assert seqs(rest) == list(range(rest[0].seq, 5001))
    assert rest[0].seq > 1
    assert (marker.rank, marker.attempt, marker.seq) == (-1, 1, 0)
    assert f"{rest[0].seq - 1:,} lines" in marker.text
    assert 50 * 1024 < disk_bytes(tmp_path) <= 64 * 1024


def test_a_reader_that_lags_behind_is_told_how_many_it_missed(tmp_path: Path) -> None:
    logs = small(tmp_path)
    logs.append([line(seq) for seq in range(1, 11)])
    _, cursor = logs.read(RUN, ALL, limit=6)
    for seq in range(11, 5001):
        logs.append([line(seq)])

    marker, *rest = everything(logs, limit=1, after=cursor)

    assert f"{rest[0].seq - 7:,} lines" in marker.text
    assert seqs(rest) == list(range(rest[0].seq, 5001))


def test_dropped_lines_are_not_taken_again(tmp_path: Path) -> None:
    logs = small(tmp_path)
    for seq in range(1, 5001):
        logs.append([line(seq)])
    before = everything(logs)

    for store in (logs, small(tmp_path)):
        store.append([line(seq) for seq in range(1, 5001)])
        assert everything(store) == before


def test_no_marker_where_nothing_asked_for_can_be_missing(tmp_path: Path) -> None:
    logs = small(tmp_path)
    for seq in range(1, 5001):
        logs.append([line(seq, attempt=1 + seq // 4990)])

    assert seqs(everything(logs, LogQuery(tail=3))) == [4998, 4999, 5000]
    assert seqs(everything(logs, LogQuery(attempt=2))) == list(range(4990, 5001))
    assert seqs(everything(logs, LogQuery(since_at=4999.0))) == [4999, 5000]
    assert everything(logs, LogQuery(attempt=1))[0].rank == -1


def test_reading_goes_on_while_the_oldest_lines_are_dropped(tmp_path: Path) -> None:
    logs = small(tmp_path, kilobytes=16)
    done = threading.Event()

    def write() -> None:
        for seq in range(1, 4001):
            logs.append([line(seq)])
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    shown: list[LogLine] = []
    cursor = ""
    while True:
        over = done.is_set()
        found, cursor = logs.read(RUN, ALL, after=cursor, limit=50)
        shown += found
        if over and not found:
            break
    writer.join()

    kept = [each.seq for each in shown if each.rank != -1]
    missed = sum(int(each.text.split()[0].strip("[").replace(",", "")) for each in shown if each.rank == -1)
    assert kept == sorted(set(kept))
    assert kept[-1] == 4000
    assert len(kept) + missed == 4000


def test_a_deleted_log_is_gone(logs: DiskLogStore, tmp_path: Path) -> None:
    logs.append([line(1)])
    logs.delete(RUN)
    logs.delete(RUN)

    assert list((tmp_path / "logs").iterdir()) == []
    assert logs.last_seq(RUN, 1, "host-a") == 0
    assert everything(logs) == []


def test_old_logs_are_pruned_except_of_runs_to_keep(logs: DiskLogStore, tmp_path: Path) -> None:
    assert logs.prune(1e12, keep=()) == []
    for run_id in ("run-old", "run-kept", "run-new"):
        logs.append([replace(line(1), run_id=run_id)])
    for run_id in ("run-old", "run-kept"):
        (segment,) = (tmp_path / "logs" / run_id).iterdir()
        os.utime(segment, (1000.0, 1000.0))

    assert logs.prune(2000.0, keep={"run-kept"}) == ["run-old"]
    assert sorted(path.name for path in (tmp_path / "logs").iterdir()) == ["run-kept", "run-new"]
