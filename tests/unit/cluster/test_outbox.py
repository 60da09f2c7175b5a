"""What a coordinator leaves on disk is read to its last whole record, whatever happened to the file."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from orchestrator.cluster import outbox
from orchestrator.cluster.outbox import FILE_NAME, Outbox, leftover
from orchestrator.core.observations import IncarnationFailed, Waiting
from orchestrator.core.runs import Failure, FailureKind, Reason, ReasonCode, Spent
from trainers import contract


def what(number: int) -> Waiting:
    return Waiting(Reason(ReasonCode.WAITING_FOR_CAPACITY, f"number {number}"))


def seqs(directory: Path) -> list[int]:
    return [each.seq for each in leftover(directory)]


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    box = Outbox(tmp_path, "run-1", 1)
    for number in range(3):
        box.put(what(number))
    box.close()
    return tmp_path


def test_a_torn_tail_is_left_out_at_whatever_byte_it_was_torn(filled: Path) -> None:
    path = filled / FILE_NAME
    data = path.read_bytes()
    for size in range(len(data)):
        path.write_bytes(data[:size])
        assert seqs(filled) == list(range(1, len(seqs(filled)) + 1))
    assert seqs(filled) == [1, 2]


def test_a_tail_of_garbage_is_left_out(filled: Path) -> None:
    path = filled / FILE_NAME
    for garbage in (b"\x00\x00\x00\x03\xff\xff\xff", b"\x00\x00\x00\x00", bytes(64)):
        data = path.read_bytes()
        path.write_bytes(data + garbage)
        assert seqs(filled) == [1, 2, 3]
        path.write_bytes(data)


def test_a_failure_whose_words_are_not_utf8_is_kept_with_its_traceback(tmp_path: Path) -> None:
    words = "No such file: '/data/\udcff', nor a\0b"
    said = contract.decode(contract.encode(contract.Failed(1, words, traceback=f"Traceback\n{words}", step=3)))
    assert isinstance(said, contract.Failed)
    box = Outbox(tmp_path, "run-1", 1)
    failure = Failure(FailureKind.APPLICATION, said.message, step=said.step, traceback=said.traceback)
    box.put(IncarnationFailed(1, failure, True, Reason(ReasonCode.RESTARTING_IN_PLACE, said.message), Spent(), 3))
    box.close()
    (kept,) = leftover(tmp_path)
    assert isinstance(kept.what, IncarnationFailed)
    shown = r"No such file: '/data/\udcff', nor a\x00b"
    assert (kept.what.failure.message, kept.what.failure.traceback) == (shown, f"Traceback\n{shown}")


def test_short_writes_are_finished_and_a_failed_one_leaves_no_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, room = os.write, [10**6]

    def grudging(fd: int, data: bytes) -> int:
        if room[0] == 0:
            raise OSError(28, "No space left on device")
        written = real(fd, bytes(data[: min(7, room[0])]))
        room[0] -= written
        return written

    monkeypatch.setattr(outbox.os, "write", grudging)
    box = Outbox(tmp_path, "run-1", 1)
    box.put(what(1))
    room[0] = 20
    box.put(what(2))
    room[0] = 10**6
    box.put(what(3))
    told = asyncio.run(box.wait_after(0, 0.0))
    box.close()
    assert [each.seq for each in told] == [1, 2, 3], "the disk costs nothing while the coordinator lives"
    assert seqs(tmp_path) == [1, 3]
