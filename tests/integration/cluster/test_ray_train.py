"""The same run under Ray Train."""

from __future__ import annotations

import os
import signal

from orchestrator.core import observations as seen
from orchestrator.core.runs import FailureKind, Spent
from tests.integration.cluster.conftest import Stage
from tests.integration.cluster.test_attempts import DIGITS

FIT_S = 180.0  # Ray Train starts in 15 s on a quiet machine; a bound for hanging, not a measurement


def test_ray_train_runs_and_restarts_the_same_recipe(stage: Stage) -> None:
    key = stage.run({**DIGITS, "launcher": "ray_train", "train": {**DIGITS["train"], "epochs": 30}})
    started = stage.server.wait_heard(key, seen.IncarnationStarted, timeout_s=FIT_S)
    stage.server.wait_heard(key, seen.CheckpointSealed)
    os.kill(started.pids[1], signal.SIGKILL)
    failed = stage.server.wait_heard(key, seen.IncarnationFailed)
    assert failed.restarting
    assert (failed.failure.kind, failed.failure.rank) == (FailureKind.KILLED, 1), failed.failure
    assert failed.spent == Spent(infrastructure=1)
    assert stage.server.wait_heard(key, seen.RanksRestored, 2, timeout_s=FIT_S).step > 0
    ended = stage.server.wait_ended(key)
    assert ended.outcome == "succeeded", ended
    assert ended.result is not None
    assert ended.result.metrics["test_accuracy"] > 0.9


def test_a_cancelled_run_under_ray_train_leaves_no_driver(stage: Stage) -> None:
    key = stage.run({**DIGITS, "launcher": "ray_train"})
    stage.server.wait("the driver", stage.train_drivers)
    stage.server.stop(key, "cancel")
    assert stage.server.wait_ended(key).outcome == "cancelled"
    stage.server.wait("no driver", lambda: not stage.train_drivers())


def test_a_lost_leader_takes_its_driver_along(stage: Stage) -> None:
    """Workers may live on until Ray has missed their driver: no other attempt may start before."""
    key = stage.run({**DIGITS, "launcher": "ray_train"})
    (driver,) = stage.server.wait("the driver", stage.train_drivers)
    driver.parent().kill()
    ended = stage.server.wait_ended(key)
    assert ended.outcome == "lost", ended
    assert ended.fence_s > 0
    stage.server.wait("no driver", lambda: not stage.train_drivers())
