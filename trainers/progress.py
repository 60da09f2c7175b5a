"""What a rank tells while it lives: contract messages to its host, or lines for people on standard output.

Telling never holds training up. The socket does not block; what it does not take waits in a bounded queue, from which
steps go first and an end, a seal or a result never.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, TextIO

from trainers.contract import (
    Done,
    EpochEnded,
    Failed,
    Hello,
    Launch,
    Message,
    Phase,
    PhaseChanged,
    Prepared,
    Profile,
    Profiled,
    Restored,
    Sealed,
    Step,
    decode_profile,
    encode,
)

STEP_INTERVAL_S = 0.25  # steps are told no more often: each telling wakes a host on the cores that train
TEXT_INTERVAL_S = 1.0
SIGN_INTERVAL_S = 1.0  # between two signs of life
CLOSE_S = 2.0  # how long an ending rank waits for its host to take the last messages
_RECONNECT_S = 0.5
_QUEUE_LIMIT = 1000
_HEARD_BYTES = 64 * 1024
_NEVER_DROPPED = (Failed, Done, Sealed, Prepared, Profiled)
_MILESTONES = (Restored, EpochEnded, Sealed, Done)  # what a log is read for; never steps, which are too many


class Sink(Protocol):
    """Takes messages without blocking and without raising."""

    interval_s: float  # between two steps

    def put(self, message: Message) -> None: ...

    def asked(self) -> Sequence[Profile]:
        """What the other side has said since the last call."""
        ...

    def close(self) -> None: ...


class Progress:
    """The rank's account: its phase at every moment, and its speed over the time spent training."""

    def __init__(
        self,
        sink: Sink,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        hold: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> None:
        """`hold` keeps signals from raising inside: half a message would spoil the next one."""
        self.step = 0  # the last optimizer step that was done
        self._sink = sink
        self._clock_ns = clock_ns
        self._hold = hold
        self._phase: PhaseChanged | None = None
        self._told = Step(step=0, epoch=0, at_ns=clock_ns())
        self._said_ns = clock_ns()
        self._first = True  # no step of this incarnation was told yet
        self._outside_ns = 0  # spent in `during` since the last step that was told

    @property
    def interval_s(self) -> float:
        """Between two steps that are told."""
        return self._sink.interval_s

    def send(self, message: Message) -> None:
        self._said_ns = self._clock_ns()
        with self._hold():
            self._sink.put(message)

    def asked(self) -> Sequence[Profile]:
        """What the host wants since the last call: a look that costs a microsecond, for between two steps."""
        return self._sink.asked()

    def phase(self, phase: Phase) -> None:
        """From now on the rank's time belongs to `phase`."""
        if self._phase is None or phase != self._phase.phase:
            self._phase = PhaseChanged(phase, self._clock_ns())
            self.send(self._phase)

    def alive(self) -> None:
        """A sign of life from inside a long phase, by telling it again: to its host a silent rank is one that hangs.

        Call it as often as something got done; it speaks once a second at most.
        """
        if self._phase is not None and self._clock_ns() - self._said_ns >= SIGN_INTERVAL_S * 1e9:
            self.send(self._phase)

    @contextlib.contextmanager
    def during(self, phase: Phase) -> Iterator[None]:
        """`phase` for a while, then what was before. An exception keeps `phase`: the rank is about to end in it."""
        before, began_ns = self._phase, self._clock_ns()
        self.phase(phase)
        yield
        self._outside_ns += self._clock_ns() - began_ns
        if before is not None:
            self.phase(before.phase)

    def begin(self, step: int, epoch: int, samples: int) -> None:
        """Training goes on after `step`: speed is measured from here."""
        self.step = step
        self._told = Step(step=step, epoch=epoch, samples=samples, at_ns=self._clock_ns())
        self._first = True
        self._outside_ns = 0

    def is_due(self) -> bool:
        """True for the first step of the incarnation, and when the last one was told `interval_s` ago."""
        return self._first or self._clock_ns() - self._told.at_ns >= self.interval_s * 1e9

    def stepped(self, step: Step, *, last: bool) -> None:
        """Tell `step` (whose time and speed are filled in here) unless another was told just before."""
        before, now_ns = self._told, self._clock_ns()
        if step.step <= before.step or not (last or self.is_due()):
            return
        elapsed_s = (now_ns - before.at_ns - self._outside_ns) / 1e9
        self._told = dataclasses.replace(
            step,
            at_ns=now_ns,
            samples_per_s=(step.samples - before.samples) / max(elapsed_s, 1e-9),
            step_s=elapsed_s / (step.step - before.step),
        )
        self._first = False
        self._outside_ns = 0
        self.send(self._told)

    def close(self) -> None:
        self._sink.close()


def open_progress(
    launch: Launch, rank: int, *, every_step: bool, hold: Callable[[], AbstractContextManager[None]]
) -> Progress:
    """To the host's socket where there is one, and the milestones to the log, where no script has the word; else to
    standard output."""
    sink: Sink
    if launch.progress_socket is None:
        sink = TextSink(rank, sys.stdout, 0.0 if every_step else TEXT_INTERVAL_S)
    else:
        sink = SocketSink(launch.progress_socket, Hello(rank, os.getpid()), 0.0 if every_step else STEP_INTERVAL_S)
        if launch.kind != "script":
            sink = LoggedSink(sink, TextSink(rank, sys.stdout, TEXT_INTERVAL_S))
    return Progress(sink, hold=hold)


class SocketSink:
    """One JSON object a line to a unix stream socket; connects again when the other side was away."""

    def __init__(self, path: str, hello: Hello, interval_s: float = STEP_INTERVAL_S) -> None:
        self.interval_s = interval_s
        self._path = path
        self._hello = hello
        self._queue: deque[Message] = deque()
        self._phase: PhaseChanged | None = None  # told again on a new connection
        self._socket: socket.socket | None = None
        self._begun: Message | None = None  # the message that `_unsent` is the rest of
        self._unsent = b""
        self._heard = b""  # the beginning of a line
        self._next_try_s = 0.0

    def put(self, message: Message) -> None:
        if isinstance(message, PhaseChanged):
            self._phase = message
            if message in self._queue:  # a sign of life, and not even the one before was taken
                return self._flush()
        if isinstance(message, Step):  # the newest says it all
            self._queue = deque(each for each in self._queue if not isinstance(each, Step))
        if len(self._queue) >= _QUEUE_LIMIT:
            self._drop_one()
        self._queue.append(message)
        return self._flush()

    def asked(self) -> Sequence[Profile]:
        if self._socket is None:
            return ()
        try:
            data = self._socket.recv(_HEARD_BYTES)
        except BlockingIOError:
            return ()
        except OSError:
            data = b""
        if not data:  # the host is gone: what it wanted, it wants no more
            self._disconnect()
            return ()
        *whole, self._heard = (self._heard + data).split(b"\n")
        try:
            return [decode_profile(line) for line in whole]
        except ValueError:  # of a host of another version
            return ()

    def close(self) -> None:
        deadline_s = time.monotonic() + CLOSE_S
        while (self._queue or self._unsent) and time.monotonic() < deadline_s:
            self._next_try_s = 0.0
            self._flush()
            if self._queue or self._unsent:
                time.sleep(0.01)
        self._disconnect()

    def _drop_one(self) -> None:
        for index, each in enumerate(self._queue):
            if not isinstance(each, _NEVER_DROPPED):
                del self._queue[index]
                return

    def _flush(self) -> None:
        if self._socket is None and not self._connect():
            return
        while self._queue or self._unsent:
            if not self._unsent:
                self._begun = self._queue.popleft()
                self._unsent = encode(self._begun)
            if not self._send_some():
                return

    def _send_some(self) -> bool:
        assert self._socket is not None
        try:
            sent = self._socket.send(self._unsent)
        except BlockingIOError:
            return False
        except OSError:
            self._disconnect()
            return False
        self._unsent = self._unsent[sent:]
        return True

    def _connect(self) -> bool:
        now_s = time.monotonic()
        if now_s < self._next_try_s:
            return False
        self._next_try_s = now_s + _RECONNECT_S
        fresh = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        fresh.setblocking(False)
        try:
            fresh.connect(self._path)
        except OSError:  # nobody listens, or its backlog is full: the queue keeps what matters
            fresh.close()
            return False
        self._socket = fresh
        begun = encode(self._hello)
        if self._phase is not None and self._phase not in self._queue:
            begun += encode(self._phase)
        self._unsent = begun
        return True

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket = None
        if self._begun is not None and self._unsent:
            self._queue.appendleft(self._begun)
        self._begun, self._unsent, self._heard = None, b"", b""


class TextSink:
    """Lines for people. Rank 0 speaks for all; the others tell only how they failed."""

    def __init__(self, rank: int, stream: TextIO, interval_s: float) -> None:
        self.interval_s = interval_s
        self._rank = rank
        self._stream = stream

    def put(self, message: Message) -> None:
        if (self._rank == 0 or isinstance(message, Failed)) and (line := text_of(message)) is not None:
            print(line, file=self._stream, flush=True)

    def asked(self) -> Sequence[Profile]:
        return ()

    def close(self) -> None:
        self._stream.flush()


class LoggedSink:
    """Tells the host everything, and leaves a line in the rank's log for each milestone of the run."""

    def __init__(self, host: Sink, log: TextSink) -> None:
        self.interval_s = host.interval_s
        self._host = host
        self._log = log

    def put(self, message: Message) -> None:
        self._host.put(message)
        if isinstance(message, _MILESTONES):
            with contextlib.suppress(OSError, ValueError):  # the task's own code may have closed standard output
                self._log.put(message)

    def asked(self) -> Sequence[Profile]:
        return self._host.asked()

    def close(self) -> None:
        self._host.close()


def text_of(message: Message) -> str | None:
    """One line for a person, or None for what only machines need."""
    match message:
        case Step():
            of_steps = f"/{message.total_steps}" if message.total_steps else ""
            loss = "" if message.loss is None else f"  loss {message.loss:.7g}"
            return f"step {message.step}{of_steps}  epoch {message.epoch}{loss}  {message.samples_per_s:.0f} samples/s"
        case EpochEnded():
            return f"epoch {message.epoch} ended at step {message.step}  {_figures(message.metrics)}"
        case Restored(step=step, checkpoint=checkpoint):
            skipped = "".join(f"\nskipped {each.checkpoint}: {each.why}" for each in message.skipped)
            afresh = f"starting with the weights of {message.weights}" if message.weights else "starting afresh"
            return (f"resuming after step {step} from {checkpoint}" if checkpoint else afresh) + skipped
        case Sealed():
            mark = " (best)" if message.best else ""
            return f"sealed {message.checkpoint}{mark}  {message.size_bytes} bytes in {message.seconds:.2f} s"
        case Failed():
            return f"{message.traceback}failed at step {message.step}: {message.message}"
        case Done():
            why = f" early: {message.stopped_early}" if message.stopped_early else ""
            note = f"\n{message.note}" if message.note else ""
            return f"done at step {message.step}{why}  {_figures(message.metrics)}{note}"
        case _:
            return None


def _figures(metrics: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
