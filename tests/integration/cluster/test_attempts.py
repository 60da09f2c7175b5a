"""An attempt on a real Ray: from the order to its end, with faults on the way."""

from __future__ import annotations

import os
import signal
from typing import Any

from orchestrator.core import observations as seen
from orchestrator.core.runs import FailureKind
from tests.integration.cluster.conftest import Stage

DIGITS: dict[str, Any] = {
    "name": "digits",
    "recipe": "digits_cnn",
    "data": {"source": "sklearn://digits", "split": [0.7, 0.15, 0.15]},
    "train": {"epochs": 2, "global_batch": 64, "optimizer": "adamw", "lr": 1e-3},
    "parallelism": {"zero": 2},
    "checkpoint": {"every_steps": 10, "keep": 3},
    "retry": {},
}


def test_a_two_rank_deepspeed_run_trains_to_its_end(stage: Stage) -> None:
    key = stage.run(DIGITS)
    ended = stage.server.wait_ended(key)
    assert ended.outcome == "succeeded", ended
    assert ended.result is not None
    assert ended.result.metrics["test_accuracy"] > 0.5
    kinds = [each.what.kind for each in stage.server.observations[key]]
    assert kinds[:4] == ["placed", "incarnation_started", "ranks_restored", "first_step"]
    assert [each.seq for each in stage.server.observations[key]] == list(range(1, len(kinds) + 1))


def test_a_killed_rank_is_recovered_in_place(stage: Stage) -> None:
    key = stage.run({**DIGITS, "train": {**DIGITS["train"], "epochs": 20}})
    started = stage.server.wait_heard(key, seen.IncarnationStarted)
    stage.server.wait_heard(key, seen.CheckpointSealed)
    os.kill(started.pids[1], signal.SIGKILL)
    failed = stage.server.wait_heard(key, seen.IncarnationFailed)
    assert (failed.failure.kind, failed.failure.rank, failed.restarting) == (FailureKind.KILLED, 1, True)
    resumed = stage.server.wait_heard(key, seen.RanksRestored, 2)
    assert resumed.step > 0
    assert stage.server.wait_heard(key, seen.FirstStep, 2).recovery_s is not None
    ended = stage.server.wait_ended(key)
    assert ended.outcome == "succeeded"
    assert ended.spent.infrastructure == 1
