"""A search of short distributed trials: ours against raw Ray Tune over Ray Train's TorchTrainer, on the same Ray.

python -m tests.benchmarks.sweep [--quick] [--trials N] [--alone]

Trials are two ranks of the digits network under ASHA, two at a time. Searcher, scheduler, seed, points and slots are the
same. Wall time is from the submission, or from Tune's own start, to the end of the last trial; a slot is idle from the end
of its trial to the first optimizer step of the next one.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.core.sweeps import Sweep, Trial
from tests.benchmarks.harness import Figure, median, report
from tests.benchmarks.stack import Stack, digits_run, end, peer_environment, running_stack, wait_for_mark

TRIALS, QUICK_TRIALS = 32, 8
SLOTS, EPOCHS, WIDTH = 2, 9, 16
LEGS = ("placed", "hosts_ready", "ranks_started", "restored", "training")  # events of a run's start, in order
PEER_TIMEOUT_S = 3600.0


def search(trials: int) -> dict[str, Any]:
    return {
        "metric": "val_accuracy",
        "mode": "max",
        "algorithm": "random",
        "scheduler": {"type": "asha", "grace": 1, "reduction": 3},
        "trials": trials,
        "max_concurrent": SLOTS,
        "space": {"train.lr": {"log": [1e-4, 3e-2]}},
        "seed": 7,
    }


def run_file(trials: int) -> dict[str, Any]:
    plain = digits_run("sweep", steps=1, width=WIDTH)
    return {**plain, "train": {"epochs": EPOCHS, "global_batch": 128, "optimizer": "adamw"}, "search": search(trials)}


def ours(stack: Stack, trials: int) -> Sweep:
    ended = stack.client.wait(stack.client.submit(run_file(trials)).id)
    if ended.state != "SUCCEEDED":
        raise RuntimeError(f"the sweep is {ended.state}: {ended.reason}")
    return stack.client.sweep(ended.id)


def raw(stack: Stack, trials: int, name: str) -> float:
    """Seconds from Tune's start to its end."""
    marks = stack.work / f"{name}.jsonl"
    given = {
        "search": search(trials),
        "epochs": EPOCHS,
        "slots": SLOTS,
        "storage": str(stack.work / name),
        "marks": str(marks),
        "width": WIDTH,
    }
    env = peer_environment("ray_train") | {
        "RAY_ADDRESS": stack.state.ray_address,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(stack.state.ray_token),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    log = (stack.work / "tune.log").open("ab")
    command = [sys.executable, "-m", "tests.benchmarks.peers.tune_train", json.dumps(given)]
    process = subprocess.Popen(command, env=env, stdout=log, stderr=log)
    try:
        begun = wait_for_mark(marks, "begun", process, PEER_TIMEOUT_S)
        done = wait_for_mark(marks, "done", process, PEER_TIMEOUT_S)
    finally:
        end(process)
    if begun is None or done is None:
        raise RuntimeError(f"the peer did not end in order: {(stack.work / 'tune.log').read_text()[-3000:]}")
    if done["errors"]:
        raise RuntimeError(
            f"{done['errors']} of the peer's trials failed: {(stack.work / 'tune.log').read_text()[-3000:]}"
        )
    return float(done["at"]) - float(begun["at"])


@dataclass(frozen=True)
class Gap:
    """A slot without a trial: from the end of one to the first step of the next."""

    free_at: float
    trial: Trial  # that took it

    @property
    def seconds(self) -> float:
        return max(0.0, (self.trial.started_at or 0.0) - self.free_at)


def gaps(trials: Sequence[Trial], slots: int) -> list[Gap]:
    """Trials take slots in the order of their first steps, each the one that has been free for longest."""
    free: list[float] = []
    found: list[Gap] = []
    order = sorted((each for each in trials if each.started_at is not None), key=lambda each: each.started_at or 0.0)
    for place, trial in enumerate(order):
        if place >= slots:
            earliest = min(free)
            free.remove(earliest)
            found.append(Gap(earliest, trial))
        free.append(trial.ended_at or 0.0)
    return found


def legs(stack: Stack, found: Sequence[Gap]) -> dict[str, float]:
    """Median seconds of each part of a gap, from the record's own events."""
    parts: dict[str, list[float]] = {}
    for gap in found:
        at = {
            each.kind: each.at for each in reversed([*stack.client.events(gap.trial.run_id)])
        }  # the first of each kind
        before = gap.free_at
        for kind in LEGS:
            if kind in at:
                parts.setdefault(kind, []).append(at[kind] - before)
                before = max(before, at[kind])
    return {kind: median(values) for kind, values in parts.items()}


def idle_share(trials: Sequence[Trial], slots: int) -> float:
    """Of the time of all slots, from the first step of any trial until the last one began: no later slot is waited for."""
    started = [each for each in trials if each.started_at is not None]
    since = min(each.started_at or 0.0 for each in started)
    until = max(each.started_at or 0.0 for each in started)
    busy = sum(max(0.0, min(each.ended_at or until, until) - (each.started_at or 0.0)) for each in started)
    return 1.0 - busy / (slots * (until - since))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_TRIALS} trials instead of {TRIALS}")
    parser.add_argument("--trials", type=int)
    parser.add_argument("--alone", action="store_true", help="ours only, where its slots' time goes: no figures")
    options = parser.parse_args()
    trials = options.trials or (QUICK_TRIALS if options.quick else TRIALS)
    with running_stack() as stack:
        ours(stack, SLOTS)  # zygotes and pooled gangs are warm from then on, as they are for any second sweep
        sweep = ours(stack, trials)
        waits = gaps(sweep.trials, SLOTS)
        print(f"a gap by its parts: {legs(stack, waits)}", flush=True)
        if options.alone:
            print(f"p50 {median([each.seconds for each in waits]):.2f} s, idle {idle_share(sweep.trials, SLOTS):.1%}")
            return
        raw(stack, SLOTS, "tune-warm-up")  # the peer's ops are compiled from then on
        raw_s = raw(stack, trials, "tune")
    ours_s = (sweep.ended_at or 0.0) - sweep.submitted_at
    print(f"{trials} trials: ours {ours_s:.1f} s, raw Tune over Ray Train {raw_s:.1f} s", flush=True)
    report(
        "sweep",
        [
            Figure(f"wall time of {trials} trials, ours", ours_s, "s"),
            Figure(f"wall time of {trials} trials, raw Tune over Ray Train", raw_s, "s"),
            Figure("raw Tune over Ray Train over ours", raw_s / ours_s, "ratio", 4.0, "higher"),
            Figure("slot free to the next trial's first step, p50", median([each.seconds for each in waits]), "s", 1.5),
            Figure("slots idle", idle_share(sweep.trials, SLOTS), "share", 0.1),
        ],
    )


if __name__ == "__main__":
    main()
