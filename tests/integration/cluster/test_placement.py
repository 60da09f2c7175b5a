"""Where a gang goes, what it waits for, and that it leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from orchestrator.cluster.local_dirs import NodeDirs
from orchestrator.core import observations as seen
from orchestrator.core.runs import FailureKind, ReasonCode
from tests.integration.cluster.conftest import CPUS, Stage
from tests.integration.cluster.test_attempts import ONCE

HOLD_CPUS = """
import sys, time, ray
ray.init(address=sys.argv[1], log_to_driver=False)
@ray.remote
class Holder:
    def held(self): return True
holder = Holder.options(num_cpus=int(sys.argv[2])).remote()
ray.get(holder.held.remote())
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def somebody_else(stage: Stage) -> Iterator[subprocess.Popen[bytes]]:
    """Another user of the same Ray holds all but one CPU, without having to wait a minute for a pooled gang to go."""
    stage.restart_agent()
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD_CPUS, stage.ray.address, str(CPUS - 1)], env=stage.ray.env, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.wait()


def test_the_inventory_tells_what_others_hold_and_not_what_we_do(
    stage: Stage, somebody_else: subprocess.Popen[bytes]
) -> None:
    stage.server.wait("the inventory", lambda: stage.server.nodes[0].free_cpu == 1)
    key = stage.run_script("import time; time.sleep(600)", {"resources": {"workers": 1}})
    stage.server.wait_heard(key, seen.IncarnationStarted)
    somebody_else.send_signal(signal.SIGKILL)
    stage.server.wait("the inventory without them", lambda: stage.server.nodes[0].free_cpu == CPUS)
    assert stage.ranks(), "ours still holds its CPU, and the server subtracts that itself"
    assert not stage.server.heard(key, seen.AttemptEnded)


def test_a_gang_that_does_not_fit_now_waits_with_a_reason_and_is_given_back(
    stage: Stage, somebody_else: subprocess.Popen[bytes]
) -> None:
    key = stage.run({"name": "wide", "script": "none.py"}, shares=(stage.share(2),))
    waiting = stage.server.wait_heard(key, seen.Waiting)
    assert waiting.reason.code == ReasonCode.WAITING_FOR_CAPACITY
    assert f"others on Ray hold {CPUS - 1} CPU" in waiting.reason.message
    unplaceable = stage.server.wait_heard(key, seen.Unplaceable)
    assert (unplaceable.final, unplaceable.reason.code) == (False, ReasonCode.PLACEMENT_STALE)


def test_a_gang_on_a_node_that_is_gone_is_given_back(stage: Stage) -> None:
    key = stage.run({"name": "gone", "script": "none.py"}, shares=(replace(stage.share(2), node_id="f" * 56),))
    unplaceable = stage.server.wait_heard(key, seen.Unplaceable)
    assert not unplaceable.final
    assert "has no node ffff" in unplaceable.reason.message


def test_a_later_attempt_that_cannot_see_the_earlier_ones_seals_is_refused_instead_of_started_from_nothing(
    stage: Stage,
) -> None:
    key = stage.run({"name": "elsewhere", "script": "none.py"}, shares=(stage.share(1),), attempt=2, sealed_before=True)
    unplaceable = stage.server.wait_heard(key, seen.Unplaceable)
    assert unplaceable.final
    assert "on the disk of another host" in unplaceable.reason.message


def test_hosts_are_used_again_by_a_gang_of_the_same_shape_and_make_room_for_others(stage: Stage) -> None:
    spec = {"resources": {"workers": 2, "cpu": 1}}
    assert stage.server.wait_ended(stage.run_script("print('first')", spec)).outcome == "succeeded"
    second = stage.run_script("print('second')", spec)
    assert stage.server.wait_ended(second).outcome == "succeeded"
    assert stage.server.wait_heard(second, seen.Placed).pooled
    other = stage.run_script("print('other')", {"resources": {"workers": 1, "cpu": CPUS}})
    assert stage.server.wait_ended(other).outcome == "succeeded"
    assert not stage.server.wait_heard(other, seen.Placed).pooled


def test_code_that_the_server_has_not_is_told(stage: Stage) -> None:
    key = stage.run({"name": "no-code", "script": "x.py"}, bundle="0" * 64)
    unplaceable = stage.server.wait_heard(key, seen.Unplaceable)
    assert "0000" in unplaceable.reason.message


def test_requirements_are_installed_into_an_environment_of_their_own(stage: Stage, tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, "evertrain_probe", "colour = 'blue'\n")
    environment = {"requirements": [f"evertrain_probe @ file://{wheel}"]}
    script = "import evertrain_probe, torch; print('colour', evertrain_probe.colour)"
    key = stage.run_script(script, {"environment": environment})
    assert stage.server.wait_ended(key).outcome == "succeeded"
    stage.server.wait("the line", lambda: "colour blue" in stage.server.text(key))
    plain = stage.run_script("import evertrain_probe")
    ended = stage.server.wait_ended(plain)
    assert ended.failure is not None
    assert "evertrain_probe" in ended.failure.message


def test_requirements_that_cannot_be_installed_end_the_attempt_with_the_build_log(stage: Stage) -> None:
    key = stage.run_script("pass", {"environment": {"requirements": ["nothing @ file:///does/not/exist.whl"]}})
    ended = stage.server.wait_ended(key)
    assert ended.failure is not None
    assert ended.failure.kind == FailureKind.CONFIG
    assert "/does/not/exist.whl" in ended.failure.message


def test_nothing_of_an_attempt_is_left_after_its_end(stage: Stage) -> None:
    groups = stage.placement_groups()
    key = stage.run_script(
        """
        import os, subprocess, time, torch, torch.distributed as dist
        dist.init_process_group("gloo")
        tensor = torch.ones(1000).share_memory_()
        dist.barrier()
        print("started", subprocess.Popen(["sleep", "600"], start_new_session=True).pid, flush=True)
        if dist.get_rank() == 0:
            time.sleep(0.5)
            os.kill(os.getpid(), 9)
        time.sleep(600)
        """,
        budgets=ONCE,
    )
    assert stage.server.wait_ended(key).outcome == "failed"
    stage.server.wait("both ranks' words", lambda: stage.server.text(key).count("started") == 2)
    orphans = [int(line.text.split()[1]) for line in stage.server.lines[key] if line.text.startswith("started")]
    pids = stage.server.wait_heard(key, seen.IncarnationStarted).pids
    stage.server.forget(key)
    stage.server.wait("no rank lives", lambda: not stage.ranks())
    assert not [pid for pid in (*pids, *orphans) if psutil.pid_exists(pid)]
    dirs = NodeDirs(str(stage.local_dir), stage.server.nodes[0].id)
    stage.server.wait("no file is left", lambda: not dirs.attempt(*key).exists())
    assert not [name for name in os.listdir("/dev/shm") if name.startswith(tuple(f"torch_{pid}_" for pid in pids))]
    sockets = [line.split()[-1] for line in Path("/proc/net/unix").read_text().splitlines()]
    assert not [each for each in sockets if each.startswith(f"{dirs.gangs}/")]
    stage.agent.close()  # it pools the gang for a while, and gives the pool back at its end
    assert not stage.placement_groups() - groups
    stage.server.wait("no host actor lives", lambda: not stage.host_actors())


def make_wheel(directory: Path, name: str, text: str) -> Path:
    """The smallest wheel that an installer takes: built by hand, so that nothing is downloaded."""
    path = directory / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", text)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return path
