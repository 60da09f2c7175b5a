"""What ports.ObservationStore promises, and what the one on a disk adds: durability, mending, limits, retention."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapters import observation_segments, observations
from orchestrator.adapters.memory_observations import MemoryObservationStore
from orchestrator.adapters.observations import DiskObservationStore
from orchestrator.adapters.replay import WINDOW
from orchestrator.errors import Refused, StorageFailed
from orchestrator.ports import ObservationStore, Observed
from tests.contract.stores import at_once

ROOT = Path(__file__).resolve().parents[2]
WHERE = ("default", "digits")


def batch(seq: int, **changes: Any) -> Observed:
    values: dict[str, Any] = {"at": 1000.0 + seq, "source": "replica-a", "kind": "rows", "version": 1, "rows": 10}
    return Observed(**{"number": 0, "seq": seq, "data": f"data {seq}".encode(), **values, **changes})


def small(root: Path) -> DiskObservationStore:
    """Of 64 KiB in segments of 1 KiB."""
    return DiskObservationStore(root, monitor_bytes=64 * 1024)


@pytest.fixture(params=["memory", "disk", "disk in small segments"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObservationStore:
    stores: dict[str, Callable[[], ObservationStore]] = {
        "memory": MemoryObservationStore,
        "disk": lambda: DiskObservationStore(tmp_path / "observations"),
        "disk in small segments": lambda: small(tmp_path / "observations"),
    }
    return stores[request.param]()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "observations"


def seqs(store: ObservationStore, after: int = 0) -> list[int]:
    return [each.seq for each in store.read(*WHERE, after=after)]


def files(root: Path) -> list[Path]:
    return sorted(root.joinpath(*WHERE).glob("*.obs"))


# ---- the contract ---------------------------------------------------------------------------------------------------


def test_batches_come_back_as_they_were_numbered_in_order_of_arrival(store: ObservationStore) -> None:
    given = [
        batch(1, data=b""),
        batch(1, source="replica-b", kind="labels", rows=3, version=0),
        batch(2, data=bytes(range(256)) * 100, at=0.1),
        batch(3, data=b"EVOB" * 50, kind="sketch", rows=10**6),
    ]
    store.append(*WHERE, given[:2])
    store.append(*WHERE, [])
    store.append(*WHERE, given[2:])

    assert store.read(*WHERE, after=0) == [replace(each, number=n) for n, each in enumerate(given, 1)][:3]
    assert store.read(*WHERE, after=3) == [replace(given[3], number=4)]
    assert store.last(*WHERE) == 4


def test_a_monitor_without_batches_is_empty(store: ObservationStore) -> None:
    assert store.read(*WHERE, after=0) == []
    assert (store.last(*WHERE), store.rows(*WHERE)) == (0, 0)


def test_monitors_are_kept_apart(store: ObservationStore) -> None:
    for project, model in (WHERE, ("default", "wine"), ("other", "digits")):
        store.append(project, model, [batch(1, data=f"{project} {model}".encode())])

    assert [each.data for each in store.read("other", "digits", after=0)] == [b"other digits"]
    assert store.last("default", "wine") == 1


def test_a_read_ends_at_its_limit_of_rows_and_answers_one_batch_at_least(store: ObservationStore) -> None:
    store.append(*WHERE, [batch(seq) for seq in range(1, 31)])

    assert [each.number for each in store.read(*WHERE, after=3, limit_rows=40)] == [4, 5, 6, 7]
    assert [each.number for each in store.read(*WHERE, after=3, limit_rows=49)] == [4, 5, 6, 7]
    assert [each.number for each in store.read(*WHERE, after=29, limit_rows=1)] == [30]
    assert store.read(*WHERE, after=30, limit_rows=1) == []
    assert store.read(*WHERE, after=99) == []


def test_a_read_of_large_rows_ends_before_it_fills_the_memory(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observations, "READ_BYTES", 1000)
    store = DiskObservationStore(root)
    store.append(*WHERE, [batch(seq, data=b"x" * size) for seq, size in enumerate((400, 400, 400, 2000, 1), 1)])
    assert seqs(store) == [1, 2]
    assert seqs(store, after=2) == [3]
    assert seqs(store, after=3) == [4]
    assert seqs(store, after=4) == [5]


def test_a_cursor_reads_every_batch_once(store: ObservationStore) -> None:
    store.append(*WHERE, [batch(seq, data=b"x" * (seq * 7 % 300)) for seq in range(1, 101)])
    read: list[int] = []
    while some := store.read(*WHERE, after=read[-1] if read else 0, limit_rows=70):
        read += [each.number for each in some]
    assert read == list(range(1, 101))


def test_rows_are_counted_from_anywhere_and_labels_and_answers_in_shadow_are_none(store: ObservationStore) -> None:
    kinds = ["rows", "labels", "sketch", "shadow"]
    given = [batch(seq, kind=kinds[seq % 4], rows=seq, data=b"x" * 100) for seq in range(1, 61)]
    store.append(*WHERE, given)

    for since in (0, 1, 17, 30, 59, 60, 100):
        assert store.rows(*WHERE, since=since) == sum(
            each.rows for each in given[since:] if each.kind in ("rows", "sketch")
        )


def test_what_was_kept_before_is_dropped_silently(store: ObservationStore) -> None:
    store.append(*WHERE, [batch(1), batch(2), batch(2, data=b"another")])
    store.append(*WHERE, [batch(1), batch(2), batch(3)])

    assert seqs(store) == [1, 2, 3]
    assert store.read(*WHERE, after=1)[0].data == b"data 2"
    assert store.last(*WHERE) == 3


def test_batches_out_of_order_are_each_kept_once(store: ObservationStore) -> None:
    order = [*range(1, 301), *range(50, 200)]
    random.Random(0).shuffle(order)
    for start in range(0, len(order), 7):
        store.append(*WHERE, [batch(seq, rows=1) for seq in order[start : start + 7]])

    assert sorted(seqs(store)) == list(range(1, 301))
    assert seqs(store) != sorted(seqs(store))


def test_sources_are_counted_for_themselves(store: ObservationStore) -> None:
    store.append(*WHERE, [batch(7), batch(7, source="replica-b"), batch(1, source="replica-b")])
    assert [(each.source, each.seq) for each in store.read(*WHERE, after=0)] == [
        ("replica-a", 7),
        ("replica-b", 7),
        ("replica-b", 1),
    ]


def test_what_is_too_far_behind_its_source_counts_as_kept(store: ObservationStore) -> None:
    store.append(*WHERE, [batch(WINDOW + 10), batch(10), batch(11)])
    assert seqs(store) == [WINDOW + 10, 11]


@pytest.mark.parametrize("name", ["", "..", "a/b", "A", "x" * 64, "a b", ".", "-a", "a\n"])
def test_what_is_no_name_is_refused(store: ObservationStore, name: str) -> None:
    for where in ((name, "digits"), ("default", name)):
        for call in (
            lambda where=where: store.append(*where, [batch(1)]),
            lambda where=where: store.read(*where, after=0),
            lambda where=where: store.rows(*where),
            lambda where=where: store.last(*where),
        ):
            with pytest.raises(Refused, match="is not the name of a"):
                call()


def test_many_threads_lose_and_repeat_nothing(store: ObservationStore) -> None:
    def send(source: str) -> None:
        for seq in range(1, 40, 2):
            store.append(*WHERE, [batch(seq, source=source), batch(seq + 1, source=source)])

    at_once([partial(send, f"replica-{n // 2}") for n in range(6)])  # two threads a source: each repeats the other

    found = store.read(*WHERE, after=0)
    assert [each.number for each in found] == list(range(1, 121))
    for source in {each.source for each in found}:
        assert sorted(each.seq for each in found if each.source == source) == list(range(1, 41))


# ---- on a disk ------------------------------------------------------------------------------------------------------


def test_a_restart_knows_numbers_rows_and_what_was_sent(root: Path) -> None:
    small(root).append(*WHERE, [batch(seq, data=b"x" * 100) for seq in range(1, 51)])
    again = small(root)
    again.append(*WHERE, [batch(3), batch(50), batch(51)])

    assert seqs(again) == list(range(1, 52))
    assert (again.last(*WHERE), again.rows(*WHERE), again.rows(*WHERE, since=20)) == (51, 510, 310)


def test_batches_survive_kill_9_of_the_process(root: Path) -> None:
    code = """
import sys
from pathlib import Path
from tests.contract.test_observations import WHERE, batch, small
store = small(Path(sys.argv[1]))
for seq in range(1, 10**9):
    store.append(*WHERE, [batch(seq)])
    print(seq, flush=True)
"""
    command = [sys.executable, "-c", code, str(root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, text=True) as child:
        assert child.stdout is not None
        for _ in range(50):
            acknowledged = int(child.stdout.readline())
        child.send_signal(signal.SIGKILL)

    store = small(root)
    last = store.last(*WHERE)
    assert last >= acknowledged
    assert seqs(store) == list(range(1, last + 1))


def test_nothing_is_answered_before_it_is_on_the_disk(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = DiskObservationStore(root)
    store.append(*WHERE, [batch(1)])
    seen: list[list[int]] = []
    flush = observation_segments.flush

    def look_then_flush(path: Path) -> None:
        seen.append([each.seq for each in store.read(*WHERE, after=0)])
        flush(path)

    monkeypatch.setattr(observation_segments, "flush", look_then_flush)
    store.append(*WHERE, [batch(2)])
    assert seen == [[1]]
    assert seqs(store) == [1, 2]


def test_threads_that_append_at_once_share_a_flush(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = DiskObservationStore(root)
    store.append(*WHERE, [batch(1)])
    flushes: list[Path] = []
    flush = observation_segments.flush

    def slow_flush(path: Path) -> None:
        """So slow that all the others have written before the first is done."""
        flushes.append(path)
        deadline = time.monotonic() + 60
        while store._known[WHERE].end.number < 9 and time.monotonic() < deadline:
            threading.Event().wait(0.001)
        flush(path)

    monkeypatch.setattr(observation_segments, "flush", slow_flush)
    at_once([partial(store.append, *WHERE, [batch(seq)]) for seq in range(2, 10)])

    assert len(flushes) <= 2
    assert sorted(seqs(store)) == list(range(1, 10))


@pytest.mark.parametrize("torn", [b"EV", b"EVOB\x10\x00\x00\x00" + b"\x00" * 40, b"\x00" * 500, b"EVOB" * 20])
def test_a_batch_that_was_being_written_when_the_machine_died_is_cut_off(root: Path, torn: bytes) -> None:
    DiskObservationStore(root).append(*WHERE, [batch(1), batch(2)])
    (segment,) = files(root)
    size = segment.stat().st_size
    with segment.open("ab") as file:
        file.write(torn)

    again = DiskObservationStore(root)
    assert seqs(again) == [1, 2]
    assert segment.stat().st_size == size
    again.append(*WHERE, [batch(3)])
    assert seqs(DiskObservationStore(root)) == [1, 2, 3]


def test_a_segment_that_was_never_begun_is_forgotten(root: Path) -> None:
    small(root).append(*WHERE, [batch(seq, data=b"x" * 300) for seq in range(1, 2)])
    small(root).append(*WHERE, [batch(2, data=b"x" * 900)])
    last = files(root)[-1]
    last.with_name(f"{int(last.stem) + 1:08d}.obs").write_bytes(b'{"format": 1, "num')

    again = small(root)
    again.append(*WHERE, [batch(3)])
    assert seqs(again) == [1, 2, 3]


def test_a_damaged_batch_hides_no_other(root: Path) -> None:
    DiskObservationStore(root).append(*WHERE, [batch(seq) for seq in range(1, 6)])
    (segment,) = files(root)
    segment.write_bytes(segment.read_bytes().replace(b"data 3", b"data X"))

    again = DiskObservationStore(root)
    assert seqs(again) == [1, 2, 4, 5]
    again.append(*WHERE, [batch(6)])
    assert [each.number for each in again.read(*WHERE, after=0)] == [1, 2, 4, 5, 6]


def test_a_segment_without_a_readable_header_is_set_aside_and_not_deleted(root: Path) -> None:
    store = small(root)
    for seq in range(1, 20):
        store.append(*WHERE, [batch(seq, data=b"x" * 300)])
    broken = files(root)[1]
    broken.write_bytes(b"\xff" * 20 + broken.read_bytes()[20:])

    again = small(root)
    assert len(seqs(again)) < 19
    assert seqs(again)[-1] == 19
    assert broken.with_suffix(".damaged").exists()


def test_a_full_disk_is_a_storage_error_and_what_was_not_kept_comes_again(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = DiskObservationStore(root)
    store.append(*WHERE, [batch(1)])
    whole_write = os.write

    def half_then_full(fd: int, data: memoryview) -> int:
        if len(data) < 40:
            raise OSError(28, "No space left on device")
        return whole_write(fd, data[: len(data) // 2])

    monkeypatch.setattr(os, "write", half_then_full)
    with pytest.raises(StorageFailed, match=r"default/digits .*No space left"):
        store.append(*WHERE, [batch(2), batch(3)])
    monkeypatch.undo()

    assert seqs(store) == [1]
    store.append(*WHERE, [batch(2), batch(3)])
    assert seqs(store) == [1, 2, 3] == seqs(DiskObservationStore(root))


def test_what_the_disk_would_not_flush_is_taken_back(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = DiskObservationStore(root)
    store.append(*WHERE, [batch(1)])

    def fail(path: Path) -> None:
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr(observation_segments, "flush", fail)
    with pytest.raises(StorageFailed, match="Input/output error"):
        store.append(*WHERE, [batch(2)])
    monkeypatch.undo()

    assert seqs(store) == [1]
    store.append(*WHERE, [batch(2)])
    assert [(each.number, each.seq) for each in store.read(*WHERE, after=0)] == [(1, 1), (2, 2)]


def test_files_are_for_their_owner_only(root: Path) -> None:
    DiskObservationStore(root).append(*WHERE, [batch(1)])

    (segment,) = files(root)
    assert segment.stat().st_mode & 0o777 == 0o600
    assert segment.parent.stat().st_mode & 0o777 == segment.parent.parent.stat().st_mode & 0o777 == 0o700


def test_beyond_its_limit_a_monitor_loses_the_oldest_and_numbers_go_on(root: Path) -> None:
    store = small(root)
    for seq in range(1, 301, 5):
        store.append(*WHERE, [batch(seq + n, data=b"x" * 700) for n in range(5)])

    kept = store.read(*WHERE, after=0)
    assert 48 * 1024 < sum(path.stat().st_size for path in files(root)) <= 64 * 1024
    assert [each.number for each in kept] == list(range(kept[0].number, 301))
    assert store.rows(*WHERE) == 10 * len(kept)
    assert small(root).last(*WHERE) == 300
    small(root).append(*WHERE, [batch(5)])
    assert small(root).last(*WHERE) == 300  # known, although it has gone


def test_only_what_is_old_is_pruned_and_numbers_go_on(root: Path) -> None:
    store = small(root)
    for seq in range(1, 20):
        store.append(*WHERE, [batch(seq, data=b"x" * 400)])
    store.append("default", "kept", [batch(1)])
    old = files(root)[:3]
    for path in (*old, *root.joinpath("default", "kept").iterdir()):
        os.utime(path, (1.0, 1.0))

    removed = store.prune(100.0, keep={"default/kept"})

    assert removed == [str(path.relative_to(root)) for path in old]
    assert seqs(store)[-1] == 19
    assert len(seqs(store)) < 19
    assert store.last("default", "kept") == 1
    assert store.prune(100.0, keep={"default/kept"}) == []


def test_a_monitor_that_nothing_comes_to_any_more_keeps_its_count_alone(root: Path) -> None:
    store = DiskObservationStore(root)
    store.append(*WHERE, [batch(1), batch(2)])
    os.utime(files(root)[0], (1.0, 1.0))

    assert store.prune(100.0, keep=()) == ["default/digits/00000001.obs"]
    assert (store.read(*WHERE, after=0), store.rows(*WHERE), store.last(*WHERE)) == ([], 0, 2)
    for again in (store, DiskObservationStore(root)):
        again.append(*WHERE, [batch(2)])
        assert again.last(*WHERE) == 2
    os.utime(files(root)[0], (1.0, 1.0))
    assert store.prune(100.0, keep=()) == []  # an empty one is not replaced by another


def test_a_reader_is_not_disturbed_by_what_is_dropped_meanwhile(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = small(root)
    for seq in range(1, 20):
        store.append(*WHERE, [batch(seq, data=b"x" * 400)])
    snapshot = store._snapshot
    dropped: list[Path] = []

    def drop_behind_its_back(journal: Any, after: int) -> Any:
        seen = snapshot(journal, after)
        if not dropped:
            dropped.append(files(root)[0])
            os.utime(dropped[0], (1.0, 1.0))
            store.prune(100.0, keep=())
        return seen

    monkeypatch.setattr(store, "_snapshot", drop_behind_its_back)
    found = seqs(store)
    assert found == list(range(found[0], 20))
    assert found[0] > 1
