"""What the ranks hang on dies: the zygote that forked them, the keeper that owns the zygote."""

from __future__ import annotations

import signal

import psutil
import pytest

from orchestrator.core import observations as seen
from orchestrator.core.runs import Budgets, FailureKind, Spent
from tests.integration.cluster.conftest import Stage
from tests.integration.cluster.recording_server import Key
from tests.integration.cluster.test_attempts import LONG_DIGITS

ONE_RESTART = Budgets(application=0, infrastructure=1)  # one start that failed on the way would end the run


def started(stage: Stage) -> tuple[Key, seen.IncarnationStarted]:
    """A run that has something to resume from."""
    key = stage.run(LONG_DIGITS, budgets=ONE_RESTART)
    first = stage.server.wait_heard(key, seen.IncarnationStarted)
    stage.server.wait_heard(key, seen.CheckpointSealed)
    return key, first


def zygote_of(started: seen.IncarnationStarted) -> psutil.Process:
    (zygote,) = {psutil.Process(pid).ppid() for pid in started.pids}
    return psutil.Process(zygote)


def assert_recovered(stage: Stage, key: Key, first: seen.IncarnationStarted, zygote: psutil.Process) -> None:
    """In place, from a seal, under another zygote, for one restart, and in the end nothing of it is left."""
    failed = stage.server.wait_heard(key, seen.IncarnationFailed)
    assert (failed.failure.kind, failed.restarting) == (FailureKind.KILLED, True)
    assert "ended with its zygote" in failed.failure.message
    assert stage.server.wait_heard(key, seen.RanksRestored, 2).step > 0
    assert stage.server.wait_heard(key, seen.FirstStep, 2).recovery_s is not None
    assert not any(map(psutil.pid_exists, first.pids))
    second = stage.server.wait_heard(key, seen.IncarnationStarted, 2)
    assert zygote_of(second).pid != zygote.pid
    stage.server.stop(key, "cancel")
    ended = stage.server.wait_ended(key)
    assert (ended.outcome, ended.spent) == ("cancelled", Spent(infrastructure=1))
    stage.server.forget(key)
    stage.server.wait("no rank lives", lambda: not stage.ranks())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_zygote_that_dies_costs_one_restart_in_place(stage: Stage, number: signal.Signals) -> None:
    key, first = started(stage)
    zygote = zygote_of(first)
    zygote.send_signal(number)
    assert_recovered(stage, key, first, zygote)


def test_a_keeper_that_dies_costs_one_restart_in_place(stage: Stage) -> None:
    key, first = started(stage)
    zygote = zygote_of(first)
    (keeper,) = stage.keepers()
    keeper.kill()
    assert_recovered(stage, key, first, zygote)
    (successor,) = stage.keepers()
    assert successor.pid != keeper.pid
