"""Faults that need the whole stack to be seen: what people are told, and what is left."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import psutil

from tests.integration.small_disk import fill
from tests.integration.stack.conftest import Stack, kind, long_digits

# Steps until it is killed. Started again it says so, and never comes to a step: its run stays RECOVERING.
NEVER_RECOVERS = """
import os, time, torch
from trainers.contract import LAUNCH_ENV, Launch
with open(os.environ[LAUNCH_ENV]) as file:
    incarnation = Launch.from_json(file.read()).incarnation
if incarnation > 1:
    print("here again", flush=True)
    time.sleep(600)
weight = torch.zeros(2, requires_grad=True)
optimizer = torch.optim.SGD([weight], lr=0.1)
while True:
    weight.sum().backward()
    optimizer.step()
    time.sleep(0.05)
"""
ROOM_BYTES = 2 * 2**20  # for some checkpoints of the smallest model


def test_a_run_that_recovers_is_cancelled_and_leaves_nothing(stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(NEVER_RECOVERS)
    script = {"script": "train.py", "code": str(tmp_path)}
    run = stack.client.submit({"name": "unrecovered", **script, "resources": {"workers": 2, "cpu": 1}})
    first = stack.until(run.id, kind("ranks_started"))
    stack.until(run.id, kind("training"))
    os.kill(int(first.data["pids"][1]), signal.SIGKILL)
    again = stack.until(run.id, kind("ranks_started"), after=first.seq)
    assert stack.client.get(run.id).state == "RECOVERING"
    stack.client.cancel(run.id, reason="wrong data")
    ended = stack.client.wait(run.id)
    assert (ended.state, ended.reason.code) == ("CANCELLED", "cancelled_by_user")
    assert ended.reason.message == f"cancelled by {run.submitted_by}: wrong data"
    assert [each.number for each in ended.attempts[0].incarnations] == [1, 2]
    assert not [pid for pid in (*first.data["pids"], *again.data["pids"]) if psutil.pid_exists(int(pid))]
    # The machine is free again: this one needs all of it, and Ray gives out no CPU that a placement group holds.
    (tmp_path / "train.py").write_text("print('all mine')")
    whole = stack.client.submit({"name": "whole", **script, "resources": {"workers": 1, "cpu": 4}})
    assert stack.client.wait(whole.id).state == "SUCCEEDED"


def filling_digits(name: str, disk: Path, **sections: Any) -> dict[str, Any]:
    """Keeps every checkpoint that it makes, until there is no room for another."""
    return long_digits(
        name, storage=str(disk / "runs"), checkpoint={"every_steps": 5, "every": None, "keep": 1000}, **sections
    )


def test_a_full_disk_ends_a_run_with_its_name_and_spares_the_earlier_checkpoints(
    stack: Stack, small_disk: Path
) -> None:
    fill(small_disk, leave_bytes=ROOM_BYTES)
    run = stack.client.submit(filling_digits("full-disk", small_disk, retry={"max_infrastructure": 1}))
    ended = stack.client.wait(run.id)
    assert (ended.state, ended.reason.code) == ("FAILED", "budget_spent")
    assert ended.failure is not None
    assert (ended.failure.kind, ended.failure.host) == ("storage", ended.attempts[0].shares[0].host)
    told = stack.evertrain("describe", run.id).stdout
    assert f"Rank {ended.failure.rank} on {ended.failure.host} failed" in told
    assert f"cannot write {small_disk}/runs/" in ended.failure.message
    assert "No space left on device" in told
    assert len(ended.attempts[0].incarnations) == 2
    verified = stack.evertrain("checkpoint", "verify", run.id, "--all")
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_a_run_on_a_full_disk_recovers_once_there_is_room(stack: Stack, small_disk: Path) -> None:
    ballast = fill(small_disk, leave_bytes=ROOM_BYTES)
    run = stack.client.submit(filling_digits("full-for-a-while", small_disk))
    failed = stack.until(run.id, kind("rank_failed"))
    sealed = max(each.step for each in stack.client.checkpoints(run.id))
    ballast.unlink()
    restored = stack.until(run.id, kind("restored"), after=failed.seq)
    assert restored.data["step"] == sealed
    later = stack.until(run.id, kind("checkpoint_sealed"), after=failed.seq)
    assert later.data["step"] > sealed
    stack.client.cancel(run.id)
    assert stack.client.wait(run.id).state == "CANCELLED"
