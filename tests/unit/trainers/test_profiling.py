"""A trace of a rank's steps, asked for and answered over the rank's own socket."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from trainers.contract import Hello, Launch, Message, Profile, Profiled, decode, decode_profile, encode
from trainers.profiling import OUTSIDE, Profiling, own_times
from trainers.progress import Progress, SocketSink

PATIENCE_S = 60.0


class Rank:
    """One that takes steps when the test says so, and its host's side of the socket."""

    def __init__(self, directory: Path) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(directory / "p"))
        self._listener.listen(1)
        self._progress = Progress(SocketSink(str(directory / "p"), Hello(0, 7)))
        self._progress.phase("training")
        self.host, _ = self._listener.accept()
        self._lines = self.host.makefile("rb")
        launch = Launch("r", "r", 1, 2, "recipe", "digits_cnn", {}, str(directory / "run" / "checkpoints"), "")
        self.launch = replace(launch, staging_dir=str(directory / "staging"))
        self.profiling = Profiling(self.launch, 0, self._progress)
        self.step = 0

    def ask(self, identity: str = "q-1", steps: int = 3, within_s: float = PATIENCE_S) -> None:
        self.host.sendall(encode(Profile(identity, steps, time.monotonic_ns() + int(within_s * 1e9))))

    def train(self, steps: int) -> None:
        for _ in range(steps):
            self.step += 1
            torch.ones(64, 64) @ torch.ones(64, 64)
            if self.profiling.tracing:
                self.profiling.stepped(self.step)
            with self.profiling.paused():
                torch.linalg.inv(torch.eye(8))  # judges the epoch
            self.profiling.look(self.step)

    def answer(self) -> Profiled:
        """The next one; the rank looks around until it is there."""
        self.host.settimeout(0.05)
        deadline_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline_s:
            self.profiling.look(self.step)
            message = self._next()
            if isinstance(message, Profiled):
                return message
        raise AssertionError("no answer")

    def _next(self) -> Message | None:
        data = b""
        while not data.endswith(b"\n"):
            try:
                data += self.host.recv(1)
            except TimeoutError:
                return None
        return decode(data)

    def close(self) -> None:
        self.profiling.finish()
        self._progress.close()
        self._lines.close()
        self.host.close()
        self._listener.close()


@pytest.fixture
def rank(tmp_path: Path) -> Iterator[Rank]:
    rank = Rank(tmp_path)
    yield rank
    rank.close()


def names_in(trace: str | None) -> list[str]:
    assert trace is not None
    events: list[dict[str, Any]] = json.loads(Path(trace).read_text())["traceEvents"]
    return [each["name"] for each in events if each.get("ph") == "X"]


def test_the_steps_that_are_asked_for_are_traced_and_nothing_else(rank: Rank, tmp_path: Path) -> None:
    rank.train(2)
    rank.ask(steps=3)
    rank.train(1)
    rank.train(9)
    told = rank.answer()
    assert told.message.startswith("steps 4 to 6 took ")
    expected = tmp_path / "run" / "profiles" / "attempt-0001-incarnation-0002-step-000000000004-rank-00000.json"
    assert told.trace == str(expected)
    names = names_in(told.trace)
    assert {"step 4", "step 5", "step 6"} <= set(names)
    assert not {"step 3", "step 7"} & set(names)
    assert names.count("aten::matmul") == 3
    assert not any("inv" in each for each in names), "what is between two steps was traced"
    assert "aten::mm" in told.table
    assert list((tmp_path / "staging").iterdir()) == []


def test_what_lies_within_is_taken_from_what_lies_around() -> None:
    spans = [
        (1, 0, 100, "step 1"),
        (1, 10, 40, "linear"),
        (1, 15, 25, "matmul"),
        (1, 25, 30, "matmul"),
        (2, 20, 90, "backward"),
        (1, 50, 60, "linear"),
        (1, 100, 150, "step 2"),
    ]
    assert own_times(reversed(spans)) == {
        OUTSIDE: (60 + 50, 2),
        "linear": (15 + 10, 2),
        "matmul": (15, 2),
        "backward": (70, 1),
    }


def test_without_a_question_nothing_is_traced(rank: Rank) -> None:
    rank.train(3)
    assert not rank.profiling.tracing


def test_a_second_question_meanwhile_is_refused_in_words(rank: Rank) -> None:
    rank.ask("q-1")
    rank.train(1)
    rank.ask("q-2")
    rank.train(1)
    told = rank.answer()
    assert (told.id, told.trace) == ("q-2", None)
    assert "somebody else" in told.message


def test_when_the_time_is_over_the_steps_so_far_are_kept(rank: Rank) -> None:
    rank.ask(steps=50, within_s=0.0)
    rank.train(2)
    told = rank.answer()
    assert told.message.startswith("step 2 (50 were asked for) took ")
    assert "step 2" in names_in(told.trace)


def test_the_end_of_training_ends_the_trace_as_well(rank: Rank) -> None:
    rank.ask(steps=50)
    rank.train(3)
    rank.profiling.finish()
    told = rank.answer()
    assert told.message.startswith("steps 2 to 3 (50 were asked for) took ")


def test_a_task_that_profiles_itself_goes_on_and_the_asker_is_told(rank: Rank) -> None:
    rank.ask()
    with profile(activities=[ProfilerActivity.CPU]):
        rank.train(2)
    told = rank.answer()
    assert told.trace is None
    assert told.message.startswith("cannot be profiled now: its own code does it")
    rank.ask("q-2")
    rank.train(5)
    assert rank.answer().trace is not None


def test_a_trace_that_cannot_be_stored_is_told_and_training_goes_on(rank: Rank, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("no directory")
    rank.ask()
    rank.train(8)
    told = rank.answer()
    assert told.trace is None
    assert "was profiled, but its trace is lost: StorageError: cannot write" in told.message


def test_a_host_of_another_version_is_not_obeyed(rank: Rank) -> None:
    rank.host.sendall(b'{"kind": "dance"}\n')
    rank.train(2)
    assert not rank.profiling.tracing
    rank.ask()
    rank.train(5)
    assert rank.answer().trace is not None


@pytest.mark.parametrize("line", [b"", b"[]", b"{}", b'{"kind": "hello"}', b'{"kind": "profile", "id": "q"}', b"\xff"])
def test_what_no_host_says_is_no_request(line: bytes) -> None:
    with pytest.raises(ValueError, match="not a host's word"):
        decode_profile(line)


def test_a_step_that_nobody_asked_for_costs_next_to_nothing(rank: Rank) -> None:
    """A step looks at one attribute, some times a second there is one look at the socket."""
    began_s = time.process_time()
    for _ in range(10_000):
        assert not rank.profiling.tracing
    a_step_s = (time.process_time() - began_s) / 10_000
    for step in range(1_000):
        with rank.profiling.paused():
            pass
        rank.profiling.look(step)
    a_look_s = (time.process_time() - began_s) / 1_000
    assert a_step_s < 2e-6
    assert a_look_s < 200e-6
