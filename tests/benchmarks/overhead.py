"""Samples per second of an orchestrated run over bare torchrun + DeepSpeed: same model, steps and threads.

    python -m tests.benchmarks.overhead [--quick]

Two arms against `peers/digits.py` under torchrun, the stack up throughout: the same script, unchanged, as an Evertrain
run (`script:`); our own training loop as an Evertrain run (`entrypoint:` that is the digits recipe and notes the time of
its steps). Progress, logs and metrics are on in both.

This machine's speed wanders by a fifth within seconds, far more than what is looked for. So both sides of a pair are
started, warmed up, and then take turns of a second and a half: SIGSTOP holds the ranks of one, with torchrun or the host
actor that goes with them, while the other one trains. An orchestrated turn holds more than its share of the stack's
work, for what was due while it was held is made up for at once. Each pair has new processes on both sides; its ratio is
the median over its turns. Bare processes differ among themselves by a twentieth, for as long as they live: hence thirty
pairs.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.benchmarks.harness import Figure, arguments, lower_bound, median, report
from tests.benchmarks.stack import (
    PEERS,
    Stack,
    digits_run,
    end,
    read_marks,
    running_stack,
    torchrun,
    wait_for_event,
    wait_for_mark,
)

PAIRS = 30
FOREVER, BATCH, MARK_EVERY, WARM_STEPS = 1_000_000, 128, 10, 100
TURNS, TURN_S, SETTLE_S = 6, 1.5, 0.2  # SETTLE_S: after a turn has begun, until caches are its own again
START_S = 120.0


@dataclass(frozen=True)
class Arm:
    """Something that trains, and all that must be held for it to cost nothing."""

    marks: Path
    processes: Sequence[psutil.Process]

    def hold(self) -> None:
        self._signal(signal.SIGSTOP)

    def turn(self) -> float:
        """Let it train for a turn; answers its samples per second."""
        began = time.time() + SETTLE_S
        self._signal(signal.SIGCONT)
        time.sleep(SETTLE_S)
        within: list[dict[str, Any]] = []
        while len(within) < 2:  # a machine that others keep busy may need a longer turn
            time.sleep(TURN_S)
            within = [mark for mark in read_marks(self.marks) if "step" in mark and mark["at"] >= began]
        self.hold()
        first, last = within[0], within[-1]
        return float(BATCH * (last["step"] - first["step"]) / (last["at"] - first["at"]))

    def release(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        for process in self.processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)


@contextlib.contextmanager
def bare(work: Path) -> Iterator[Arm]:
    marks = work / "bare.jsonl"
    process = torchrun(["--steps", str(FOREVER), "--marks", str(marks), "--tell-every", str(MARK_EVERY)])
    try:
        if wait_for_mark(marks, "step", process, START_S, step=WARM_STEPS) is None:
            raise RuntimeError("the bare arm did not train")
        launcher = psutil.Process(process.pid)
        arm = Arm(marks, [launcher, *launcher.children(recursive=True)])
        yield arm
        arm.release()
    finally:
        end(process)


def script(marks: Path) -> dict[str, Any]:
    args = ["--steps", str(FOREVER), "--marks", str(marks), "--tell-every", str(MARK_EVERY)]
    return {
        "name": "overhead-script",
        "script": "digits.py",
        "code": str(PEERS),
        "args": args,
        "resources": {"workers": 2, "cpu": 1, "memory": "1GiB"},
    }


def loop(marks: Path) -> dict[str, Any]:
    run_file = digits_run("overhead-loop", steps=FOREVER)
    del run_file["recipe"]
    env = {"MARKS": str(marks), "MARK_EVERY": str(MARK_EVERY)}
    run_file |= {"entrypoint": "marked_digits:make_task", "code": str(PEERS), "env": env}
    return run_file | {"data": {"source": "sklearn://digits"}}


@contextlib.contextmanager
def orchestrated(stack: Stack, run_file: dict[str, Any], marks: Path) -> Iterator[Arm]:
    run = stack.client.submit(run_file)
    started = wait_for_event(stack.client, run.id, "ranks_started", timeout_s=START_S)
    ranks = [psutil.Process(int(pid)) for pid in started.data["pids"]]
    deadline = time.monotonic() + START_S
    while not any(mark.get("step", 0) >= WARM_STEPS for mark in read_marks(marks)):
        if time.monotonic() > deadline:
            raise RuntimeError(f"{run_file['name']} did not train: {stack.client.get(run.id).reason}")
        time.sleep(0.1)
    arm = Arm(marks, [*ranks, *_host_actors(stack)])
    try:
        yield arm
    finally:
        arm.release()
        stack.client.cancel(run.id)
        stack.client.wait(run.id)


def _host_actors(stack: Stack) -> list[psutil.Process]:
    """Of this stack; without a run there would be none at work."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            mine = process.environ().get("RAY_AUTH_TOKEN_PATH") == str(stack.state.ray_token)
            if mine and "ray::HostActor" in " ".join(process.cmdline()):
                found.append(process)
    return found


def in_turns(ours: Arm, theirs: Arm) -> tuple[list[float], list[float]]:
    """Rates of both, turn by turn; who begins changes each time."""
    ours.hold()
    theirs.hold()
    rates: dict[int, list[float]] = {0: [], 1: []}
    for number in range(TURNS):
        for which in (0, 1) if number % 2 == 0 else (1, 0):
            rates[which].append((ours, theirs)[which].turn())
    return rates[0], rates[1]


def main() -> None:
    options = arguments(__doc__ or "", PAIRS)
    ours: dict[str, list[float]] = {"script": [], "loop": []}
    bare_rates: list[float] = []
    ratios: dict[str, list[float]] = {"script": [], "loop": []}
    with running_stack() as stack:
        for pair in range(options.pairs):
            work = stack.work / f"pair-{pair}"
            work.mkdir()
            with bare(work) as theirs:
                theirs.hold()
                for name, run_file in (("script", script), ("loop", loop)):
                    marks = work / f"{name}.jsonl"
                    with orchestrated(stack, run_file(marks), marks) as arm:
                        mine, its = in_turns(arm, theirs)
                    ours[name] += mine
                    bare_rates += its
                    ratios[name].append(median([a / b for a, b in zip(mine, its, strict=True)]))
            told = ", ".join(f"{name} {values[-1]:.3f}" for name, values in ratios.items())
            print(f"pair {pair}: over bare: {told}", flush=True)
    figures = [Figure("bare torchrun, p50 of turns", median(bare_rates), "samples/s")]
    for name in ("script", "loop"):
        figures += [
            Figure(f"{name} orchestrated, p50 of turns", median(ours[name]), "samples/s"),
            Figure(f"{name} over bare, p50", median(ratios[name]), "ratio"),
            Figure(f"{name} over bare, lower 95 % bound", lower_bound(ratios[name]), "ratio", 0.97, "higher"),
        ]
    report("overhead", figures)


if __name__ == "__main__":
    main()
