"""What the ranks hang on dies: the zygote that forked them, the keeper that owns the zygote."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import psutil

from orchestrator.core import observations as seen
from orchestrator.core.runs import Budgets, FailureKind, Spent
from tests.integration.cluster.conftest import CPUS, Stage
from tests.integration.cluster.recording_server import Key
from tests.integration.cluster.test_attempts import LONG_DIGITS

ONE_RESTART = Budgets(application=0, infrastructure=1)  # one start that failed on the way would end the run


def started(stage: Stage, spec: dict[str, Any] = LONG_DIGITS) -> tuple[Key, seen.IncarnationStarted]:
    """A run that has something to resume from."""
    key = stage.run(spec, budgets=ONE_RESTART)
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


def gated_python(directory: Path) -> tuple[Path, Path]:
    """An interpreter that starts only while the gate, the second of the two, is there."""
    python, gate = directory / "python", directory / "gate"
    python.write_text(f'#!/bin/sh\nwhile [ ! -e {gate} ]; do sleep 0.1; done\nexec {sys.executable} "$@"\n')
    python.chmod(0o700)
    gate.touch()
    return python, gate


def test_a_gang_whose_ranks_wait_for_another_zygote_is_cancelled_and_leaves_nothing(
    stage: Stage, tmp_path: Path
) -> None:
    python, gate = gated_python(tmp_path)
    key, first = started(stage, {**LONG_DIGITS, "environment": {"python": str(python)}})
    zygotes = set(stage.zygotes())
    gate.unlink()
    zygote_of(first).terminate()  # in order: it lives on until its ranks have gone, and must fork no others
    stage.server.wait_heard(key, seen.IncarnationFailed)
    (successor,) = stage.server.wait("another zygote", lambda: set(stage.zygotes()) - zygotes)
    stage.server.stop(key, "cancel")
    ended = stage.server.wait_ended(key)
    successor.kill()
    assert (ended.outcome, ended.reason.message) == ("cancelled", "cancel by ada")
    assert len(stage.server.heard(key, seen.IncarnationStarted)) == 1
    stage.server.forget(key)
    stage.server.wait("no rank lives", lambda: not stage.ranks())
    # Nothing holds a CPU any more: this one needs all of them.
    whole = stage.run_script("print('all mine')", {"resources": {"workers": 1, "cpu": CPUS}})
    assert stage.server.wait_ended(whole).outcome == "succeeded"


def test_a_zygote_that_dies_costs_one_restart_in_place(stage: Stage) -> None:
    key, first = started(stage)
    zygote = zygote_of(first)
    zygote.kill()
    assert_recovered(stage, key, first, zygote)


def test_a_keeper_that_dies_costs_one_restart_in_place(stage: Stage) -> None:
    key, first = started(stage)
    zygote = zygote_of(first)
    (keeper,) = stage.keepers()
    keeper.kill()
    assert_recovered(stage, key, first, zygote)
    (successor,) = stage.keepers()
    assert successor.pid != keeper.pid
