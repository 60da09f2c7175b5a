"""Three machines without Kubernetes, as deploy/README.md has it: server, Ray's head with the agent, and one more Ray node.
They are network namespaces; the agent is started by the entrypoint of the images.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from orchestrator import Client
from orchestrator.errors import EvertrainError
from tests.certificates import self_signed
from tests.integration.cluster.conftest import REPOSITORY
from tests.integration.cluster.network_hosts import NetworkHosts, why_not

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())

README = (REPOSITORY / "deploy" / "README.md").read_text()
SERVER, HEAD, OTHER = range(3)
SPREAD = {
    "name": "by-hand",
    "recipe": "digits_cnn",
    "train": {"steps": 30, "global_batch": 128},
    "resources": {"workers": 2, "cpu": 1, "placement": "spread"},
    "checkpoint": {"every_steps": 10},
}


def wait_until(what: str, reached: Callable[[], bool], *, timeout_s: float = 90.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not reached():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


class Process:
    """One command on one host, ended with all that it started."""

    def __init__(self, command: list[str], log: Path, env: dict[str, str]) -> None:
        self.log = log
        with log.open("wb") as output:
            self._child = subprocess.Popen(command, env=env, stdout=output, stderr=output, start_new_session=True)

    @property
    def pid(self) -> int:
        return self._child.pid

    def terminate(self) -> int:
        self._child.terminate()
        return self._child.wait(timeout=60)

    def close(self) -> None:
        if self._child.poll() is None:
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()


def told(where: str) -> list[str]:
    """The lines that deploy/README.md has people type there."""
    section = README.partition("## Several machines by hand")[2].partition("```sh")[2].partition("```")[0]
    (found,) = [each for each in section.split("\n\n") if each.strip().startswith(f"# On {where}")]
    return [line for line in found.strip().splitlines() if not line.startswith("#")]


class Machines:
    """Three hosts that type what deploy/README.md says, with addresses and paths of here in the place of its own."""

    def __init__(self, directory: Path) -> None:
        self.hosts = NetworkHosts(3)
        self._directory, self._processes = directory, list[Process]()
        self._data = directory / "server"
        self.certificate, key = self_signed(directory, self.hosts.addresses[SERVER])
        token = directory / "ray-token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        addresses = dict(zip(("10.0.0.1", "10.0.0.11", "10.0.0.12"), self.hosts.addresses, strict=True))
        self._here = {
            **{rf"{re.escape(theirs)}(?!\d)": ours for theirs, ours in addresses.items()},
            "/var/lib/evertrain": str(self._data),
            "s3://bucket/evertrain": str(
                directory / "storage"
            ),  # one directory of all three, as a shared file system is
            "/etc/evertrain/ray-token": str(token),
            r"server\.pem": str(self.certificate),
            r"server\.key": str(key),
            r"(?<= )agent\.token": str(self._data / "agent.token"),
        }
        own = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "EVERTRAIN_"))}
        places = {"TMPDIR": str(directory / "t"), "RAY_TMPDIR": str(directory / "r")}
        path = f"{directory / '.venv' / 'bin'}:{os.environ['PATH']}"
        self._env = {**own, **places, "PATH": path, "PYTHONPATH": str(REPOSITORY)}
        (directory / "t").mkdir()

    def start_all(self) -> None:
        self._installation()
        self.start(SERVER, told("the server's host"))
        wait_until("the server has written its tokens", (self._data / "agent.token").exists)
        *exports, first, others = told("every host of the cluster")
        for host, line in ((HEAD, first), (OTHER, others)):
            script = self._script([*exports, line])
            subprocess.run(
                self.hosts.inside(host, "sh", "-euc", script), env=self._env, cwd=self._directory, check=True
            )
        self.agent = self.start(HEAD, [*exports, *told("the head's host")])

    def start(self, host: int, lines: list[str]) -> Process:
        log = self._directory / f"{len(self._processes)}.log"
        script = self._script([*lines[:-1], f"exec {lines[-1]}"])
        command = self.hosts.inside(host, "env", "-C", str(self._directory), "sh", "-euc", script)
        self._processes.append(Process(command, log, self._env))
        return self._processes[-1]

    def _script(self, lines: list[str]) -> str:
        text = "\n".join(lines)
        for theirs, ours in self._here.items():
            text = re.sub(theirs, ours, text)
        return text

    def _installation(self) -> None:
        """The directory that people stand in: the repository, with a virtual environment in it."""
        bin_dir = self._directory / ".venv" / "bin"
        bin_dir.mkdir(parents=True)
        (bin_dir / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        (bin_dir / "python").chmod(0o755)
        (bin_dir / "ray").symlink_to(Path(sys.executable).with_name("ray"))
        (self._directory / "deploy").symlink_to(REPOSITORY / "deploy")

    def client(self) -> Client:
        token = (self._data / "admin.token").read_text().strip()
        return Client(f"{self.hosts.addresses[SERVER]}:7460", token, ca_cert=self.certificate)

    def close(self) -> None:
        for process in reversed(self._processes):
            process.close()
        for name in self.hosts.names:  # Ray's own, which nobody waits for
            pids = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True).stdout.split()
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
        self.hosts.close()


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    directory = Path(tempfile.mkdtemp(prefix="et-"))
    machines = Machines(directory)
    try:
        machines.start_all()
        yield machines
    finally:
        machines.close()
        shutil.rmtree(directory, ignore_errors=True)


def nodes_of(client: Client) -> int:
    try:
        return sum(len(each.nodes) for each in client.clusters() if each.connected)
    except EvertrainError:
        return 0


def test_a_run_trains_across_two_of_three_machines(machines: Machines) -> None:
    with machines.client() as client:
        wait_until("both Ray nodes", lambda: nodes_of(client) == 2)
        run = client.submit(SPREAD)
        states = [update.run.state for update in client.watch(run.id) if update.run]
        assert states[-1] == "SUCCEEDED", client.get(run.id).reason
        placed = client.get(run.id).attempts[-1]
        assert {share.ip for share in placed.shares} == set(machines.hosts.addresses[HEAD:])


def test_the_entrypoint_starts_an_agent_again_and_ends_with_its_own(machines: Machines) -> None:
    def agents() -> list[psutil.Process]:
        living = []
        for each in psutil.Process(machines.agent.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):  # it has just ended
                if "orchestrator.cluster.agent" in each.cmdline():
                    living.append(each)
        return living

    with machines.client() as client:
        wait_until("it is attached", lambda: nodes_of(client) == 2)
        first = agents()[-1]
        first.kill()
        wait_until("another agent", lambda: bool(agents()) and agents()[-1].pid != first.pid)
        wait_until("the other is attached", lambda: nodes_of(client) == 2)
        again = agents()[-1]
        assert machines.agent.terminate() == 0
        assert not again.is_running()
