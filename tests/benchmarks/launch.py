"""Submit through the API to the first optimizer step, zygotes warm: against bare torchrun and against Ray Train's fit().

python -m tests.benchmarks.launch [--quick]
"""

from __future__ import annotations

import time
from pathlib import Path

from tests.benchmarks.harness import Figure, arguments, median, report
from tests.benchmarks.stack import (
    Process,
    Stack,
    digits_run,
    end,
    ray_train,
    running_stack,
    torchrun,
    wait_for_event,
    wait_for_mark,
)

STEPS = 3
PEER_TIMEOUT_S = 180.0


def ours(stack: Stack, name: str, memory: str) -> tuple[float, bool]:
    """Seconds to the first step, and whether a pooled gang was used."""
    started = time.time()
    run = stack.client.submit(digits_run(name, steps=STEPS, memory=memory))
    step = wait_for_event(stack.client, run.id, "training")
    ended = stack.client.wait(run.id)
    if ended.state != "SUCCEEDED":
        raise RuntimeError(f"{name}: {ended.state}: {ended.reason}")
    pooled = any("from the pool" in each.message for each in stack.client.events(run.id) if each.kind == "hosts_ready")
    return step.at - started, pooled


def bare(stack: Stack, number: int) -> float:
    marks = stack.work / f"torchrun-{number}.jsonl"
    started = time.time()
    return _first_step(torchrun(["--steps", str(STEPS), "--marks", str(marks)]), marks) - started


def fit(stack: Stack, number: int) -> float:
    """From the call of fit(): the driver's imports and its connection to Ray are not counted."""
    marks = stack.work / f"fit-{number}.jsonl"
    process = ray_train(stack, ["--steps", str(STEPS), "--marks", str(marks)])
    called = wait_for_mark(marks, "fit", process, PEER_TIMEOUT_S)
    if called is None:
        raise RuntimeError("Ray Train's driver did not come as far as fit()")
    return _first_step(process, marks) - float(called["at"])


def _first_step(process: Process, marks: Path) -> float:
    first = wait_for_mark(marks, "first", process, PEER_TIMEOUT_S)
    end(process)
    if first is None:
        raise RuntimeError(f"a peer made no step within {PEER_TIMEOUT_S:g} s")
    return float(first["at"])


def main() -> None:
    options = arguments(__doc__ or "")
    cold: list[float] = []
    pooled: list[float] = []
    torch_s: list[float] = []
    ray_s: list[float] = []
    with running_stack() as stack:
        ours(stack, "warm-up", "1GiB")
        bare(stack, -1)
        fit(stack, -1)
        for pair in range(options.pairs):
            memory = f"{1025 + pair}MiB"  # a shape that no pooled gang has
            for expected, times in ((False, cold), (True, pooled)):
                seconds, was_pooled = ours(stack, f"launch-{pair}-{'pooled' if expected else 'new'}", memory)
                if was_pooled != expected:
                    raise RuntimeError(f"expected pooled={expected}, got {was_pooled}")
                times.append(seconds)
            torch_s.append(bare(stack, pair))
            ray_s.append(fit(stack, pair))
            print(
                f"pair {pair}: new {cold[-1]:.2f} s, pooled {pooled[-1]:.2f} s, "
                f"torchrun {torch_s[-1]:.2f} s, fit {ray_s[-1]:.2f} s",
                flush=True,
            )
    report(
        "launch",
        [
            Figure("submit to first step, new host actors, p50", median(cold), "s", 3.0),
            Figure("submit to first step, pooled gang, p50", median(pooled), "s", 1.5),
            Figure("torchrun to first step, p50", median(torch_s), "s"),
            Figure("Ray Train fit to first step, p50", median(ray_s), "s"),
            Figure(
                "torchrun over ours",
                median([b / a for a, b in zip(cold, torch_s, strict=True)]),
                "ratio",
                3.0,
                "higher",
            ),
            Figure(
                "Ray Train over ours", median([b / a for a, b in zip(cold, ray_s, strict=True)]), "ratio", 6.0, "higher"
            ),
        ],
    )


if __name__ == "__main__":
    main()
