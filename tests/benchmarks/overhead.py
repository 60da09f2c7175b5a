"""Samples per second of an orchestrated run over bare torchrun + DeepSpeed: same model, steps and threads.

    python -m tests.benchmarks.overhead [--quick]

Three arms, the stack up in all of them: `peers/digits.py` under torchrun; the same script, unchanged, as an Evertrain
run (`script:`); our own training loop as an Evertrain run (`entrypoint:` that is the digits recipe and notes the time of
its steps). Progress, logs and metrics are on in both orchestrated arms. Each pair begins with another arm, so that a
machine which slows down does it to all.

The rate of an arm is the median of its windows of 100 steps, about two seconds each, by the wall clock of rank 0. What
the stack does for a run it does every second or more often, so that it is in every window; what somebody else on this
machine does for a moment is in one. The ratios of the plain means are told beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.harness import Figure, arguments, lower_bound, median, report
from tests.benchmarks.stack import PEERS, Stack, digits_run, end, read_marks, running_stack, torchrun, wait_for_mark

STEPS, WINDOW, BATCH = 1000, 100, 128
TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Rate:
    """Samples per second after the first window."""

    typical: float  # the median of the windows
    mean: float


def rate(marks: Path) -> Rate:
    at = {mark["step"]: mark["at"] for mark in read_marks(marks) if "step" in mark}
    ends = range(2 * WINDOW, STEPS + 1, WINDOW)
    windows = [WINDOW * BATCH / (at[end] - at[end - WINDOW]) for end in ends]
    return Rate(median(windows), (STEPS - WINDOW) * BATCH / (at[STEPS] - at[WINDOW]))


def bare(stack: Stack, number: int) -> Rate:
    marks = stack.work / f"bare-{number}.jsonl"
    process = torchrun(["--steps", str(STEPS), "--marks", str(marks)])
    done = wait_for_mark(marks, "done", process, TIMEOUT_S)
    end(process)
    if done is None:
        raise RuntimeError("the bare arm did not finish")
    return rate(marks)


def script(stack: Stack, number: int) -> Rate:
    marks = stack.work / f"script-{number}.jsonl"
    return _orchestrated(
        stack,
        marks,
        {
            "name": f"overhead-script-{number}",
            "script": "digits.py",
            "code": str(PEERS),
            "args": ["--steps", str(STEPS), "--marks", str(marks)],
            "resources": {"workers": 2, "cpu": 1, "memory": "1GiB"},
        },
    )


def loop(stack: Stack, number: int) -> Rate:
    marks = stack.work / f"loop-{number}.jsonl"
    run_file = digits_run(f"overhead-loop-{number}", steps=STEPS)
    del run_file["recipe"]
    run_file |= {"entrypoint": "marked_digits:make_task", "code": str(PEERS), "env": {"MARKS": str(marks)}}
    run_file |= {"data": {"source": "sklearn://digits"}}
    return _orchestrated(stack, marks, run_file)


def _orchestrated(stack: Stack, marks: Path, run_file: dict[str, Any]) -> Rate:
    run = stack.client.submit(run_file)
    ended = stack.client.wait(run.id)
    if ended.state != "SUCCEEDED":
        raise RuntimeError(f"{ended.name}: {ended.state}: {ended.reason}")
    return rate(marks)


def main() -> None:
    options = arguments(__doc__ or "")
    arms = [("bare", bare), ("script", script), ("loop", loop)]
    rates: dict[str, list[Rate]] = {name: [] for name, _ in arms}
    with running_stack() as stack:
        for pair in range(options.pairs):
            first = pair % len(arms)
            for name, arm in arms[first:] + arms[:first]:
                rates[name].append(arm(stack, pair))
            told = ", ".join(f"{name} {values[-1].typical:.0f}/s" for name, values in rates.items())
            print(f"pair {pair}: {told}", flush=True)
    figures = [Figure("bare torchrun, p50", median([each.typical for each in rates["bare"]]), "samples/s")]
    for name in ("script", "loop"):
        pairs = list(zip(rates[name], rates["bare"], strict=True))
        ratios = [ours.typical / theirs.typical for ours, theirs in pairs]
        figures += [
            Figure(f"{name} orchestrated, p50", median([each.typical for each in rates[name]]), "samples/s"),
            Figure(f"{name} over bare, p50", median(ratios), "ratio"),
            Figure(f"{name} over bare, lower 95 % bound", lower_bound(ratios), "ratio", 0.97, "higher"),
            Figure(
                f"{name} over bare by the means, p50",
                median([ours.mean / theirs.mean for ours, theirs in pairs]),
                "ratio",
            ),
        ]
    report("overhead", figures)


if __name__ == "__main__":
    main()
