"""Samples per second of an orchestrated run over bare torchrun + DeepSpeed: same model, steps and threads.

    python -m tests.benchmarks.overhead [--quick]

Three arms in turn, the stack up in all of them: `peers/digits.py` under torchrun; the same script, unchanged, as an
Evertrain run (`script:`); our own training loop as an Evertrain run (`entrypoint:` that is the digits recipe and notes the
time of its steps). Progress, logs and metrics are on in both orchestrated arms. The rate is that of the steps between the
100th and the last, by the wall clock of rank 0.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.benchmarks.harness import Figure, arguments, lower_bound, median, report
from tests.benchmarks.stack import PEERS, Stack, digits_run, end, read_marks, running_stack, torchrun, wait_for_mark

STEPS, FROM_STEP, BATCH = 400, 100, 128
TIMEOUT_S = 300.0


def rate(marks: Path) -> float:
    at = {mark["step"]: mark["at"] for mark in read_marks(marks) if "step" in mark}
    return (STEPS - FROM_STEP) * BATCH / (at[STEPS] - at[FROM_STEP])


def bare(stack: Stack, number: int) -> float:
    marks = stack.work / f"bare-{number}.jsonl"
    process = torchrun(["--steps", str(STEPS), "--marks", str(marks)])
    done = wait_for_mark(marks, "done", process, TIMEOUT_S)
    end(process)
    if done is None:
        raise RuntimeError("the bare arm did not finish")
    return rate(marks)


def script(stack: Stack, number: int) -> float:
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


def loop(stack: Stack, number: int) -> float:
    marks = stack.work / f"loop-{number}.jsonl"
    run_file = digits_run(f"overhead-loop-{number}", steps=STEPS)
    del run_file["recipe"]
    run_file |= {"entrypoint": "marked_digits:make_task", "code": str(PEERS), "env": {"MARKS": str(marks)}}
    run_file |= {"data": {"source": "sklearn://digits"}}
    return _orchestrated(stack, marks, run_file)


def _orchestrated(stack: Stack, marks: Path, run_file: dict[str, Any]) -> float:
    run = stack.client.submit(run_file)
    ended = stack.client.wait(run.id)
    if ended.state != "SUCCEEDED":
        raise RuntimeError(f"{ended.name}: {ended.state}: {ended.reason}")
    return rate(marks)


def main() -> None:
    options = arguments(__doc__ or "")
    rates: dict[str, list[float]] = {"bare": [], "script": [], "loop": []}
    with running_stack() as stack:
        for pair in range(options.pairs):
            for name, arm in (("bare", bare), ("script", script), ("loop", loop)):
                rates[name].append(arm(stack, pair))
            print(
                f"pair {pair}: " + ", ".join(f"{name} {values[-1]:.0f}/s" for name, values in rates.items()), flush=True
            )
    against = {
        name: [ours / bare_s for ours, bare_s in zip(rates[name], rates["bare"], strict=True)]
        for name in ("script", "loop")
    }
    report(
        "overhead",
        [
            Figure("bare torchrun, p50", median(rates["bare"]), "samples/s"),
            Figure("the same script orchestrated, p50", median(rates["script"]), "samples/s"),
            Figure("our loop orchestrated, p50", median(rates["loop"]), "samples/s"),
            Figure("script over bare, p50", median(against["script"]), "ratio"),
            Figure("script over bare, lower 95 % bound", lower_bound(against["script"]), "ratio", 0.97, "higher"),
            Figure("loop over bare, p50", median(against["loop"]), "ratio"),
            Figure("loop over bare, lower 95 % bound", lower_bound(against["loop"]), "ratio", 0.97, "higher"),
        ],
    )


if __name__ == "__main__":
    main()
