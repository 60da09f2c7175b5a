"""SIGKILL of one rank to the next optimizer step: against torchrun's elastic restart and Ray Train's FailureConfig.

    python -m tests.benchmarks.recovery [--quick]

All arms seal or save every 20 steps and have restart budgets that no kill exhausts. A peer that shows no new step for
60 s counts as hung; it is started anew. Recomputed steps are reported apart.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.benchmarks.harness import Figure, arguments, median, report
from tests.benchmarks.stack import (
    Process,
    Stack,
    digits_run,
    end,
    ray_train,
    read_marks,
    running_stack,
    torchrun,
    wait_for_event,
    wait_for_mark,
)

OUR_KILLS, PEER_KILLS = 5, 2  # of each round
SAVE_EVERY = 20
HUNG_S = 60.0
START_S = 180.0
FOREVER = 1_000_000
BUDGET = 1000


@dataclass
class Arm:
    seconds: list[float] = field(default_factory=list)
    recomputed: list[float] = field(default_factory=list)
    failed: int = 0

    @property
    def kills(self) -> int:
        return len(self.seconds) + self.failed

    @property
    def success(self) -> float:
        return len(self.seconds) / self.kills if self.kills else float("nan")


def ours(stack: Stack, arm: Arm, number: int, chance: random.Random) -> None:
    """One run, killed several times."""
    run_file = digits_run(
        f"recovery-{number}",
        steps=FOREVER,
        checkpoint={"every_steps": SAVE_EVERY, "every": None},
        retry={"max_restarts": BUDGET, "max_infrastructure": BUDGET},
    )
    run = stack.client.submit(run_file)
    seq = 0
    for _ in range(OUR_KILLS):
        started = wait_for_event(stack.client, run.id, "ranks_started", after=seq)
        training = wait_for_event(stack.client, run.id, "training", after=started.seq)
        _wait_for_steps(stack, run.id, SAVE_EVERY + chance.randrange(SAVE_EVERY))
        pid = int(started.data["pids"][chance.randrange(2)])
        killed_at = time.time()
        os.kill(pid, signal.SIGKILL)
        try:
            failed = wait_for_event(stack.client, run.id, "rank_failed", after=training.seq, timeout_s=HUNG_S)
            restored = wait_for_event(stack.client, run.id, "restored", after=failed.seq, timeout_s=HUNG_S)
            again = wait_for_event(stack.client, run.id, "training", after=failed.seq, timeout_s=HUNG_S)
        except (TimeoutError, RuntimeError) as error:
            print(f"not recovered: {error}", flush=True)
            arm.failed += 1
            break
        arm.seconds.append(again.at - killed_at)
        arm.recomputed.append(float(failed.data["step"]) - float(restored.data["step"]))
        seq = failed.seq
    stack.client.cancel(run.id)
    stack.client.wait(run.id)


def _wait_for_steps(stack: Stack, run: str, steps: int) -> None:
    """Until the current incarnation has made so many steps."""
    first: int | None = None
    for update in stack.client.watch(run):
        step = update.progress.step if update.progress else None
        first = step if first is None else first
        if first is not None and step is not None and step >= first + steps:
            return


def peer(start: Callable[[list[str]], Process], work: Path, arm: Arm, chance: random.Random) -> None:
    """One start of a peer, killed several times."""
    work.mkdir()
    marks = work / "marks.jsonl"
    options = ["--steps", str(FOREVER), "--marks", str(marks), "--tell-every", "1"]
    process = start([*options, "--checkpoint-dir", str(work / "seals"), "--checkpoint-every", str(SAVE_EVERY)])
    since = 0.0
    try:
        for _ in range(PEER_KILLS):
            first = wait_for_mark(marks, "first", process, START_S, after=since)
            if first is None:
                arm.failed += 1
                return
            reached = int(first["step"]) + SAVE_EVERY + chance.randrange(SAVE_EVERY)
            wait_for_mark(marks, "step", process, START_S, after=first["at"], step=reached)
            told = read_marks(marks)
            killed_at = time.time()
            os.kill(_worker(told, chance.randrange(2)), signal.SIGKILL)
            again = wait_for_mark(marks, "first", process, HUNG_S, after=killed_at)
            if again is None:
                arm.failed += 1
                return
            arm.seconds.append(float(again["at"]) - killed_at)
            arm.recomputed.append(max(0.0, float(told[-1]["step"]) - float(again["step"]) + 1))
            since = killed_at
    finally:
        end(process)


def _worker(marks: list[dict[str, Any]], rank: int) -> int:
    return int([mark["pid"] for mark in marks if mark.get("started") and mark["rank"] == rank][-1])


def main() -> None:
    options = arguments(__doc__ or "")
    chance = random.Random(0)
    evertrain, elastic, fit = Arm(), Arm(), Arm()
    with running_stack() as stack:
        for pair in range(options.pairs):
            ours(stack, evertrain, pair, chance)
            peer(lambda args: torchrun(args, max_restarts=BUDGET), stack.work / f"elastic-{pair}", elastic, chance)
            peer(lambda args: ray_train(stack, args, max_failures=BUDGET), stack.work / f"fit-{pair}", fit, chance)
            shown = [
                f"{median(arm.seconds):.2f} s ({len(arm.seconds)}/{arm.kills})" for arm in (evertrain, elastic, fit)
            ]
            print(f"round {pair}: ours {shown[0]}, torchrun {shown[1]}, Ray Train {shown[2]}", flush=True)
    mine = median(evertrain.seconds)
    report(
        "recovery",
        [
            Figure("kill to next step, p50", mine, "s", 2.0),
            Figure("kills recovered", evertrain.success, "ratio", 1.0, "higher"),
            Figure("kills", evertrain.kills, "count", None if options.quick else 50, "higher"),
            Figure("torchrun's kill to next step, p50", median(elastic.seconds), "s"),
            Figure("Ray Train's kill to next step, p50", median(fit.seconds), "s"),
            Figure("torchrun over ours", median(elastic.seconds) / mine, "ratio", 3.0, "higher"),
            Figure("Ray Train over ours", median(fit.seconds) / mine, "ratio", 3.0, "higher"),
            Figure("torchrun's kills recovered", elastic.success, "ratio"),
            Figure("Ray Train's kills recovered", fit.success, "ratio"),
            Figure("steps recomputed, p50", median(evertrain.recomputed), "steps"),
            Figure("torchrun's steps recomputed, p50", median(elastic.recomputed), "steps"),
            Figure("Ray Train's steps recomputed, p50", median(fit.recomputed), "steps"),
        ],
    )


if __name__ == "__main__":
    main()
