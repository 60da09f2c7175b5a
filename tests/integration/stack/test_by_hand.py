"""Three machines without Kubernetes, as deploy/README.md has it: server, Ray's head with the agent, and one more Ray node.
They are network namespaces; the agent is started by the entrypoint of the images.
"""

from __future__ import annotations

import contextlib
import os
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
from tests.integration.cluster.conftest import REPOSITORY, RayNode
from tests.integration.cluster.network_hosts import NetworkHosts, why_not

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())

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


class Machines:
    def __init__(self, directory: Path) -> None:
        self.hosts = NetworkHosts(3)
        self._directory, self._processes, self._nodes = directory, list[Process](), list[RayNode]()
        self._env = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "EVERTRAIN_"))}
        self._env["PYTHONPATH"] = str(REPOSITORY)

    def start_all(self) -> None:
        address = self.hosts.addresses
        settings = {
            "EVERTRAIN_DATA_DIR": str(self._directory / "server"),
            "EVERTRAIN_GRPC_HOST": address[SERVER],
            "EVERTRAIN_STORAGE": str(
                self._directory / "storage"
            ),  # one directory of all three, as a shared file system is
        }
        self.start(SERVER, [sys.executable, "-m", "orchestrator.main", "server"], settings)
        token = self._directory / "server" / "agent.token"
        wait_until("the server has written its tokens", token.exists)
        node = (f"--node-ip-address={address[HEAD]}", "--num-cpus=1")
        head = RayNode.head(self._directory, *node, prefix=self.hosts.inside(HEAD))
        self._nodes.append(head)
        other = (f"--address={head.address}", f"--node-ip-address={address[OTHER]}", "--num-cpus=1")
        self._nodes.append(RayNode(self._directory, *other, prefix=self.hosts.inside(OTHER)))
        options = ["--server", f"{address[SERVER]}:7460", "--token-file", str(token), "--cluster", "lab"]
        options += ["--ray-address", head.address, "--local-dir", str(self._directory / "l")]
        self.agent = self.start(HEAD, [str(self._entrypoint()), "agent", *options], head.env)

    def start(self, host: int, command: list[str], env: dict[str, str]) -> Process:
        log = self._directory / f"{len(self._processes)}.log"
        self._processes.append(Process(self.hosts.inside(host, *command), log, {**self._env, **env}))
        return self._processes[-1]

    def _entrypoint(self) -> Path:
        """As in an installation's `bin`, where it has its Python beside it."""
        bin_dir = self._directory / "bin"
        bin_dir.mkdir()
        (bin_dir / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        (bin_dir / "python").chmod(0o755)
        (bin_dir / "evertrain-entrypoint").symlink_to(REPOSITORY / "deploy" / "image" / "entrypoint.sh")
        return bin_dir / "evertrain-entrypoint"

    def client(self) -> Client:
        token = (self._directory / "server" / "admin.token").read_text().strip()
        return Client(f"{self.hosts.addresses[SERVER]}:7460", token)

    def close(self) -> None:
        for process in reversed(self._processes):
            process.close()
        for node in reversed(self._nodes):
            node.close()
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
