"""What a rank tells, and that telling never holds it up."""

from __future__ import annotations

import contextlib
import io
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from trainers import progress as module
from trainers.contract import (
    Done,
    EpochEnded,
    Failed,
    Hello,
    Launch,
    Message,
    PhaseChanged,
    Restored,
    Sealed,
    Skipped,
    Step,
    decode,
)
from trainers.progress import LoggedSink, Progress, SocketSink, TextSink, open_progress, text_of


class Recorder:
    """A sink that keeps everything."""

    interval_s = 0.1

    def __init__(self) -> None:
        self.said: list[Message] = []

    def put(self, message: Message) -> None:
        self.said.append(message)

    def close(self) -> None: ...


class Clock:
    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        return self.now_ns

    def go(self, seconds: float) -> None:
        self.now_ns += round(seconds * 1e9)


def step(number: int, samples: int = 0) -> Step:
    return Step(step=number, epoch=0, at_ns=0, samples=samples)


def told_steps(recorder: Recorder) -> list[int]:
    return [each.step for each in recorder.said if isinstance(each, Step)]


def test_the_first_and_the_last_step_are_told_and_others_at_most_every_100_ms() -> None:
    recorder, clock = Recorder(), Clock()
    progress = Progress(recorder, clock)
    progress.begin(10, 0, 0)
    for number in range(11, 20):
        clock.go(0.03)
        progress.stepped(step(number), last=number == 19)
    assert told_steps(recorder) == [11, 15, 19]


def test_a_step_is_told_once() -> None:
    recorder, clock = Recorder(), Clock()
    progress = Progress(recorder, clock)
    progress.begin(0, 0, 0)
    progress.stepped(step(1), last=False)
    clock.go(1)
    progress.stepped(step(1), last=True)
    assert told_steps(recorder) == [1]


def test_speed_is_measured_over_training_alone() -> None:
    recorder, clock = Recorder(), Clock()
    progress = Progress(recorder, clock)
    progress.phase("training")
    progress.begin(0, 0, 0)
    clock.go(1.0)
    progress.stepped(step(1, 100), last=False)
    with progress.during("evaluating"):
        clock.go(5.0)
    clock.go(1.0)
    progress.stepped(step(5, 500), last=False)
    last = recorder.said[-1]
    assert isinstance(last, Step)
    assert last.samples_per_s == pytest.approx(400)
    assert last.step_s == pytest.approx(0.25)


def test_phases_follow_one_another_without_repetition() -> None:
    recorder, clock = Recorder(), Clock()
    progress = Progress(recorder, clock)
    for phase in ("starting", "training", "training"):
        clock.go(1)
        progress.phase(phase)
    with progress.during("checkpoint"):
        clock.go(1)
    assert recorder.said == [
        PhaseChanged("starting", 1_000_000_000),
        PhaseChanged("training", 2_000_000_000),
        PhaseChanged("checkpoint", 3_000_000_000),
        PhaseChanged("training", 4_000_000_000),
    ]


def test_a_sign_of_life_is_the_phase_told_again_once_a_second() -> None:
    recorder, clock = Recorder(), Clock()
    progress = Progress(recorder, clock)
    progress.alive()  # nothing to repeat yet
    clock.go(1)
    with progress.during("evaluating"):
        for _ in range(25):
            clock.go(0.1)
            progress.alive()
    assert recorder.said == [PhaseChanged("evaluating", 1_000_000_000)] * 3


def test_an_exception_leaves_the_phase_it_came_from() -> None:
    recorder = Recorder()
    progress = Progress(recorder, Clock())
    progress.phase("training")
    with pytest.raises(OSError), progress.during("checkpoint"):
        raise OSError
    assert recorder.said[-1] == PhaseChanged("checkpoint", 0)


class Host:
    """The other side of the socket, which reads when it is told to."""

    def __init__(self, path: Path) -> None:
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen(1)
        self.connection: socket.socket | None = None

    def accept(self) -> None:
        self.connection, _ = self.listener.accept()

    def read_all(self, sink: SocketSink) -> list[Message]:
        """Everything up to the sink's end."""
        assert self.connection is not None
        closing = threading.Thread(target=sink.close)
        closing.start()
        with self.connection.makefile("rb") as lines:
            messages = [decode(line) for line in lines]
        closing.join()
        return messages

    def hang_up(self) -> None:
        assert self.connection is not None
        self.connection.close()

    def close(self) -> None:
        self.listener.close()
        if self.connection is not None:
            self.connection.close()


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    host = Host(tmp_path / "p.sock")
    yield host
    host.close()


@pytest.fixture
def sink(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SocketSink:
    monkeypatch.setattr(module, "_RECONNECT_S", 0.0)
    return SocketSink(str(tmp_path / "p.sock"), Hello(3, 77))


def test_messages_arrive_in_order_after_a_greeting(host: Host, sink: SocketSink) -> None:
    sent: list[Message] = [PhaseChanged("starting", 1), Restored(0, None, (Skipped("c", "torn"),)), step(1), Done(1)]
    for each in sent:
        sink.put(each)
    host.accept()
    assert host.read_all(sink) == [Hello(3, 77), *sent]


def test_a_host_that_does_not_read_holds_nothing_up(host: Host, sink: SocketSink) -> None:
    kept = [Sealed(f"c{number}", number, 1, 0.0, 0.0) for number in range(3000)]
    for number, seal in enumerate(kept):
        sink.put(step(number))
        sink.put(seal)
        sink.put(EpochEnded(number, number))
    sink.put(Failed(1, "why"))
    host.accept()
    received = host.read_all(sink)
    assert [each for each in received if isinstance(each, Sealed)] == kept
    assert received[-1] == Failed(1, "why")
    assert len([each for each in received if isinstance(each, EpochEnded)]) < 3000


def test_of_waiting_steps_only_the_newest_is_kept(sink: SocketSink, tmp_path: Path) -> None:
    for number in range(5):
        sink.put(step(number))
    host = Host(tmp_path / "p.sock")
    sink.put(EpochEnded(0, 4))
    host.accept()
    assert host.read_all(sink) == [Hello(3, 77), step(4), EpochEnded(0, 4)]
    host.close()


def test_signs_of_life_do_not_pile_up_while_the_host_is_away(sink: SocketSink, tmp_path: Path) -> None:
    sink.put(EpochEnded(0, 4))
    for _ in range(5000):
        sink.put(PhaseChanged("checkpoint", 7))
    host = Host(tmp_path / "p.sock")
    sink.put(Done(4))
    host.accept()
    assert host.read_all(sink) == [Hello(3, 77), EpochEnded(0, 4), PhaseChanged("checkpoint", 7), Done(4)]
    host.close()


def test_a_new_connection_is_told_the_phase_again(host: Host, sink: SocketSink) -> None:
    sink.put(PhaseChanged("training", 5))
    host.accept()
    host.hang_up()
    sink.put(Sealed("c1", 1, 1, 0.0, 0.0))  # finds the connection broken
    sink.put(Sealed("c2", 2, 1, 0.0, 0.0))
    host.accept()
    received = host.read_all(sink)
    assert received[:2] == [Hello(3, 77), PhaseChanged("training", 5)]
    assert [each.step for each in received if isinstance(each, Sealed)] == [1, 2]


def test_nobody_listening_costs_an_ending_rank_a_bounded_time(
    sink: SocketSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CLOSE_S", 0.05)
    sink.put(Failed(1, "why"))
    sink.close()


def test_people_read_what_rank_0_says_and_why_others_failed() -> None:
    out = io.StringIO()
    TextSink(0, out, 1.0).put(EpochEnded(0, 9, {"val_loss": 0.5}))
    TextSink(1, out, 1.0).put(EpochEnded(0, 9, {"val_loss": 0.5}))
    TextSink(1, out, 1.0).put(Failed(1, "no luck", step=9))
    assert out.getvalue() == "epoch 0 ended at step 9  val_loss 0.5000\nfailed at step 9: no luck\n"


def test_the_log_of_a_rank_that_has_a_host_tells_the_milestones_of_the_run() -> None:
    host, out = Recorder(), io.StringIO()
    sink = LoggedSink(host, TextSink(0, out, 1.0))
    sent = [PhaseChanged("training", 1), Restored(0, None), step(1), EpochEnded(0, 9), Failed(1, "why"), Done(9)]
    for each in sent:
        sink.put(each)
    assert host.said == sent
    assert sink.interval_s == host.interval_s
    assert out.getvalue().splitlines() == ["starting afresh", "epoch 0 ended at step 9  ", "done at step 9  "]


def test_a_closed_standard_output_holds_no_message_up() -> None:
    host, out = Recorder(), io.StringIO()
    out.close()
    LoggedSink(host, TextSink(0, out, 1.0)).put(Done(9))
    assert host.said == [Done(9)]


@pytest.mark.parametrize("kind", ["recipe", "script"])
def test_a_script_keeps_its_log_to_itself(
    kind: Literal["recipe", "script"], host: Host, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    launch = Launch("run", "run", 1, 1, kind, "target", {}, "/c", "/s", progress_socket=str(tmp_path / "p.sock"))
    progress = open_progress(launch, 0, every_step=False, hold=contextlib.nullcontext)
    progress.send(Done(9))
    progress.close()
    assert capfd.readouterr().out == ("done at step 9  \n" if kind == "recipe" else "")


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (Step(3, 1, 0, loss=0.25, samples_per_s=99.6, total_steps=9), "step 3/9  epoch 1  loss 0.25  100 samples/s"),
        (Restored(5, "c5", (Skipped("c6", "torn"),)), "resuming after step 5 from c5\nskipped c6: torn"),
        (Restored(0, None), "starting afresh"),
        (Restored(0, None, weights="digits@1"), "starting with the weights of digits@1"),
        (Sealed("c5", 5, 9, 0.1, 0.2, best=True), "sealed c5 (best)  9 bytes in 0.20 s"),
        (Done(9, {"test_loss": 1.0}, stopped_early="enough"), "done at step 9 early: enough  test_loss 1.0000"),
        (Done(9, {"test_loss": 1.0}, note="of the last"), "done at step 9  test_loss 1.0000\nof the last"),
    ],
)
def test_lines_for_people(message: Message, words: str) -> None:
    assert text_of(message) == words
