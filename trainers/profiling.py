"""A torch profiler's trace of the next optimizer steps, for somebody who asked the rank's host for it.

Between two questions nothing of torch's profiler runs, and a step costs one look at `tracing`. Nothing that fails here
ends the training: it is told in place of a trace.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch._C._autograd import DeviceType, _profiler_enabled
from torch.profiler import ProfilerActivity, profile, record_function

from trainers.contract import Launch, Profile, Profiled, incarnation_dir
from trainers.progress import Progress
from trainers.storage import open_storage

DIRECTORY = "profiles"  # beside the run's checkpoints
TOLD_OPERATORS = 12
WRITE_AT_END_S = 30.0  # how long a rank that is done with training waits for a trace to be stored
OUTSIDE = "(outside of operators)"
_STEP = "step "  # what the range around a step is called in the trace


class Profiling:
    """One rank's. `look` and `stepped` are called between two steps."""

    def __init__(self, launch: Launch, rank: int, progress: Progress) -> None:
        self._launch, self._rank, self._progress = launch, rank, progress
        self._trace: _Trace | None = None
        self._writing: _Writing | None = None

    @property
    def tracing(self) -> bool:
        """True from the moment that a trace begins until its last step is done: then `stepped` wants every step."""
        return self._trace is not None

    def look(self, step: int) -> None:
        """After `step`, some times a second: begin what was asked for, tell what is written."""
        self._tell_written()
        for asked in self._progress.asked():
            self._begin(asked, step)

    def stepped(self, step: int) -> None:
        """`step` is done, and was traced."""
        self._unless_it_fails(lambda trace: trace.stepped(step))
        if self._trace is not None and self._trace.wants_no_more:
            self._write()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """What is done inside belongs to no step: to judge an epoch, to write a checkpoint."""
        self._unless_it_fails(_Trace.pause)
        yield
        self._unless_it_fails(_Trace.resume)

    def finish(self) -> None:
        """Training is over: write what was traced, and tell it."""
        self._write()
        if self._writing is not None:
            self._writing.join(WRITE_AT_END_S)
            self._tell_written()

    def _unless_it_fails(self, what: Callable[[_Trace], None]) -> None:
        """Do it with the trace, where there is one. An error of the profiler's ends the trace, and is told."""
        trace = self._trace
        if trace is None:
            return
        try:
            what(trace)
        except Exception as error:
            self._trace = None
            with contextlib.suppress(Exception):
                trace.profiler.stop()
            self._progress.send(Profiled(trace.asked.id, f"cannot be profiled: {type(error).__name__}: {error}"))

    def _begin(self, asked: Profile, step: int) -> None:
        if self._trace is not None or self._writing is not None:
            self._progress.send(Profiled(asked.id, "is being profiled for somebody else: ask again once that is done"))
            return
        if _profiler_enabled():
            self._progress.send(Profiled(asked.id, "cannot be profiled now: its own code does it, by torch's profiler"))
            return
        self._trace = _Trace(asked, step + 1)
        self._unless_it_fails(_Trace.start)

    def _write(self) -> None:
        self._unless_it_fails(_Trace.stop)
        if self._trace is not None:
            self._writing = _Writing(self._trace, self._launch, self._rank)
            self._writing.start()
            self._trace = None

    def _tell_written(self) -> None:
        writing = self._writing
        if writing is not None and not writing.is_alive():
            self._writing = None
            self._progress.send(writing.answer)


class _Trace:
    """Steps that are being traced, the first of them `first`. Every method raises what torch's profiler does."""

    def __init__(self, asked: Profile, first: int) -> None:
        self.asked, self.first = asked, first
        self.last = first - 1
        self.seconds = 0.0  # of the steps alone
        self._activities = [ProfilerActivity.CPU]
        if torch.cuda.is_available():
            self._activities.append(ProfilerActivity.CUDA)
        self.profiler = profile(activities=self._activities)
        self._range: record_function | None = None  # around the step that is being done

    @property
    def wants_no_more(self) -> bool:
        return self.last - self.first + 1 >= self.asked.steps or time.monotonic_ns() >= self.asked.until_ns

    def start(self) -> None:
        self.profiler.start()
        self._enter()

    def stepped(self, step: int) -> None:
        self._leave()
        self.last = step
        if not self.wants_no_more:
            self._enter()

    def pause(self) -> None:
        self._leave()
        self.profiler.toggle_collection_dynamic(False, self._activities)

    def resume(self) -> None:
        self.profiler.toggle_collection_dynamic(True, self._activities)
        self._enter()

    def stop(self) -> None:
        self._leave()
        self.profiler.stop()

    def events(self) -> Sequence[Any]:
        """Once it has stopped: the profiler's raw ones."""
        raw: Any = self.profiler.profiler  # untyped
        events: Sequence[Any] = raw.kineto_results.events()
        return events

    def _enter(self) -> None:
        self._began_s = time.perf_counter()
        self._range = record_function(f"{_STEP}{self.last + 1}")
        self._range.__enter__()  # type: ignore[no-untyped-call]

    def _leave(self) -> None:
        if self._range is not None:
            self._range.__exit__(None, None, None)
            self._range = None
            self.seconds += time.perf_counter() - self._began_s


class _Writing(threading.Thread):
    """Stores a trace while training goes on. `answer` is there once the thread has ended."""

    def __init__(self, trace: _Trace, launch: Launch, rank: int) -> None:
        super().__init__(name="profile", daemon=True)
        self._trace, self._launch, self._rank = trace, launch, rank
        self.answer = Profiled(trace.asked.id, "its trace was not written in time")

    def run(self) -> None:
        trace = self._trace
        count = trace.last - trace.first + 1
        if not count:
            self.answer = Profiled(trace.asked.id, "no step was done in time")
            return
        try:
            url = self._store()
            table = operators(trace.events(), count)
        except Exception as error:
            words = f"was profiled, but its trace is lost: {type(error).__name__}: {error}"
            self.answer = Profiled(trace.asked.id, words)
            return
        which = f"step {trace.first}" if count == 1 else f"steps {trace.first} to {trace.last}"
        less = f" ({trace.asked.steps} were asked for)" if count < trace.asked.steps else ""
        words = f"{which}{less} took {trace.seconds:.3g} s under the profiler: {url}"
        self.answer = Profiled(trace.asked.id, words, url, table)

    def _store(self) -> str:
        launch = self._launch
        root = launch.checkpoint_root.rstrip("/").rpartition("/")[0] or "."
        place = incarnation_dir(launch.attempt, launch.incarnation).replace("/", "-")
        name = f"{place}-step-{self._trace.first:012d}-rank-{self._rank:05d}.json"
        local = Path(launch.staging_dir, name)
        local.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._trace.profiler.export_chrome_trace(str(local))
            with open(local, "rb") as file:
                os.fsync(file.fileno())
            storage = open_storage(root, lambda: None)  # this thread must not speak for the rank
            storage.publish(local, f"{DIRECTORY}/{name}")
            storage.sync(DIRECTORY)
        finally:
            local.unlink(missing_ok=True)
        return storage.url(f"{DIRECTORY}/{name}")


def operators(events: Iterable[Any], steps: int) -> str:
    """A table of what took most time of its own, a step: operators, or kernels where a device ran some.

    `events` are the profiler's raw ones, of `steps` steps: torch's own averages take thirty times as long, and would take
    that time from training. What the ranges around the steps did not spend in any operator is Python's own, and waiting.
    """
    kept = [each for each in events if not (each.is_async() or each.is_hidden_event())]
    on_device = [each for each in kept if each.device_type() != DeviceType.CPU and not each.is_user_annotation()]
    spent = own_times(
        (
            each.device_resource_id() if on_device else each.start_thread_id(),
            each.start_ns(),
            each.end_ns(),
            each.name(),
        )
        for each in (on_device or kept)
    )
    whole_ns = sum(own_ns for own_ns, _ in spent.values()) or 1
    head = f"{'kernel' if on_device else 'operator':<56} {'ms':>9} {'share':>6} {'calls':>7}   a step"
    lines = [
        f"{name[:56]:<56} {own_ns / 1e6 / steps:>9.3f} {own_ns / whole_ns:>6.1%} {calls / steps:>7.1f}"
        for name, (own_ns, calls) in sorted(spent.items(), key=lambda row: -row[1][0])[:TOLD_OPERATORS]
    ]
    return "\n".join([head, *lines])


def own_times(spans: Iterable[tuple[int, int, int, str]]) -> Mapping[str, tuple[int, int]]:
    """By name: nanoseconds outside of the spans that lie within, and how many there were.

    `spans`: thread, start, end (ns) and name. Ranges around steps are all called OUTSIDE.
    """
    spent: dict[str, tuple[int, int]] = {}
    around: list[tuple[int, int, str]] = []  # thread, end and name of the spans that the present one lies in
    for thread, start, minus_end, name in sorted((thread, start, -end, name) for thread, start, end, name in spans):
        while around and (around[-1][0] != thread or around[-1][1] <= start):
            around.pop()
        if around:
            own_ns, calls = spent[around[-1][2]]
            spent[around[-1][2]] = (own_ns - (min(-minus_end, around[-1][1]) - start), calls)
        called = OUTSIDE if name.startswith(_STEP) else name
        own_ns, calls = spent.get(called, (0, 0))
        spent[called] = (own_ns - minus_end - start, calls + 1)
        around.append((thread, -minus_end, called))
    return spent
