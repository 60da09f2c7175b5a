"""One Ray and one agent for all tests of this folder: they cost ten seconds, a test some."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from orchestrator import bundle
from orchestrator.core.orders import AttemptOrder
from orchestrator.core.runs import NodeShare
from orchestrator.core.scheduling.fit import Fits, GangShape, Node, fit
from tests.integration.cluster.network_hosts import NetworkHosts
from tests.integration.cluster.recording_server import TOKEN, Key, RecordingServer

REPOSITORY = Path(__file__).resolve().parents[3]
CPUS = 4
_PLACEMENT_GROUPS = """
import sys, ray
from ray.util.placement_group import placement_group_table
ray.init(address=sys.argv[1], log_to_driver=False)
print(*(group["name"] for group in placement_group_table().values() if group["state"] != "REMOVED"))
"""


class RayNode:
    """A Ray node of our own: its directory, its token, its ports; ended by its pid."""

    def __init__(self, directory: Path, *options: str, prefix: Sequence[str] = ()) -> None:
        token = directory / "ray-token"
        if not token.exists():
            token.touch(mode=0o600)
            token.write_text(secrets.token_hex(32))
        self.env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "PYTHONPATH": str(REPOSITORY),
        }
        self._address = directory / "r" / "ray_current_cluster"
        self._log = directory / f"ray-{uuid.uuid4().hex[:6]}.log"
        ray = str(Path(sys.executable).with_name("ray"))
        with open(self._log, "wb") as output:
            self.process = subprocess.Popen(
                [
                    *prefix,
                    ray,
                    "start",
                    "--block",
                    "--disable-usage-stats",
                    "--object-store-memory=100000000",
                    *options,
                ],
                env=self.env,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._wait_started("--head" in options)

    @classmethod
    def head(cls, directory: Path, *options: str, prefix: Sequence[str] = ()) -> RayNode:
        head = ("--head", "--port=0", "--include-dashboard=false", f"--temp-dir={directory / 'r'}")
        return cls(directory, *head, *options, prefix=prefix)

    @property
    def address(self) -> str:
        return self._address.read_text().strip()

    def raylet(self) -> psutil.Process:
        return next(self._raylets())

    def has_raylet(self) -> bool:
        return next(self._raylets(), None) is not None

    def _raylets(self) -> Iterator[psutil.Process]:
        with contextlib.suppress(psutil.NoSuchProcess):  # the node has ended, and with it all that it started
            for each in psutil.Process(self.process.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    if "/raylet" in "".join(each.cmdline()[:1]):
                        yield each

    def _wait_started(self, is_head: bool) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.process.poll() is None:
            told = "Ray runtime started" in self._log.read_text()
            # A head says so before it has written its address.
            if told and (not is_head or (self._address.exists() and self._address.read_text().strip())):
                return
            time.sleep(0.1)
        raise AssertionError(f"Ray did not start: {self._log.read_text()}")

    def close(self) -> None:
        """At once: Ray takes half a minute to end in order."""
        with contextlib.suppress(psutil.NoSuchProcess):
            node = psutil.Process(self.process.pid)
            for process in (*node.children(recursive=True), node):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        self.process.wait()


class AgentProcess:
    def __init__(
        self,
        ray_head: RayNode,
        server: RecordingServer,
        directory: Path,
        token_value: str = TOKEN,
        prefix: Sequence[str] = (),
    ) -> None:
        token = directory / f"agent-token-{uuid.uuid4().hex[:6]}"
        token.write_text(token_value)
        self.log = directory / f"agent-{uuid.uuid4().hex[:6]}.log"
        with open(self.log, "wb") as output:
            self.process = subprocess.Popen(
                [
                    *(*prefix, sys.executable, "-m", "orchestrator.cluster.agent", "--cluster", "test"),
                    *("--server", server.address, "--token-file", str(token), "--ray-address", ray_head.address),
                    *("--local-dir", str(directory / "n")),
                ],
                env=ray_head.env,
                stdout=output,
                stderr=output,
            )

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def close(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()


class Stage:
    """Ray, agent and recording server, and the orders that a test makes of them."""

    def __init__(self, directory: Path, hosts: NetworkHosts | None = None) -> None:
        """With `hosts` Ray and the agent live on the first of them."""
        self.directory = directory
        self._prefix = hosts.inside(0) if hosts else []
        self.server = RecordingServer(hosts.gateway if hosts else "127.0.0.1")
        address = [f"--node-ip-address={hosts.addresses[0]}"] if hosts else []
        self.ray = RayNode.head(directory, f"--num-cpus={CPUS}", *address, prefix=self._prefix)
        self.agent = self.start_agent()
        self.wait_attached(1)

    @property
    def local_dir(self) -> Path:
        return self.directory / "n"

    def start_agent(self, token: str = TOKEN) -> AgentProcess:
        return AgentProcess(self.ray, self.server, self.directory, token, self._prefix)

    def restart_agent(self) -> None:
        """Another agent, with no gang in its pool: the one before gives its pool back at its end."""
        self.agent.close()
        count = len(self.server.hellos)
        self.agent = self.start_agent()
        self.wait_attached(count + 1)

    def wait_attached(self, count: int) -> None:
        self.server.wait("an attached agent", lambda: len(self.server.hellos) >= count and self.server.nodes)

    def order(self, spec: dict[str, Any], **changes: Any) -> AttemptOrder:
        """An order for a new run. Without `shares` it goes where it fits, once it does."""
        run_id = f"run-{uuid.uuid4().hex[:10]}"
        resources = {"workers": 2, "cpu": 1, **spec.get("resources", {})}
        values: dict[str, Any] = {
            "run_id": run_id,
            "project": "default",
            "run_name": "test",
            "attempt": 1,
            "spec": {**spec, "resources": resources},
            "checkpoint_root": str(self.directory / "checkpoints" / run_id),
        }
        if "shares" not in changes:
            shape = GangShape(
                workers=resources["workers"],
                cpu=resources["cpu"],
                memory=resources.get("memory", 0),
                spread=resources.get("placement") == "spread",
            )
            values["shares"] = self.server.wait("room for the gang", lambda: _shares(shape, self.server.nodes))
        return AttemptOrder(**{**values, **changes})

    def share(self, ranks: int) -> NodeShare:
        """That many ranks on the only node."""
        node = self.server.nodes[0]
        return NodeShare(node.id, node.host, node.ip, ranks)

    def run(self, spec: dict[str, Any], **changes: Any) -> Key:
        return self.server.order(self.order(spec, **changes))

    def run_script(self, text: str, spec: dict[str, Any] | None = None, **changes: Any) -> Key:
        """An order for `text` as a script of somebody else's, shipped as a bundle."""
        with tempfile.TemporaryDirectory() as directory:
            (Path(directory) / "script.py").write_text(textwrap.dedent(text))
            data = bundle.pack(Path(directory)).data
        digest = hashlib.sha256(data).hexdigest()
        self.server.bundles[digest] = data
        return self.run({"name": "script", "script": "script.py", **(spec or {})}, bundle=digest, **changes)

    def ranks(self) -> list[psutil.Process]:
        """Living forks of this stage's zygotes: ranks and rendezvous stores."""
        return self._zygotes_and_forks()[1]

    def zygotes(self) -> list[psutil.Process]:
        return self._zygotes_and_forks()[0]

    def _zygotes_and_forks(self) -> tuple[list[psutil.Process], list[psutil.Process]]:
        parents: dict[psutil.Process, int] = {}
        for each in _living(lambda process: f"--socket {self.local_dir}/" in " ".join(process.cmdline())):
            with contextlib.suppress(psutil.NoSuchProcess):  # it has ended since it was seen
                parents[each] = each.ppid()
        pids = {each.pid for each in parents}
        forks = [each for each, parent in parents.items() if parent in pids]
        return [each for each in parents if each not in forks], forks

    def placement_groups(self) -> set[str]:
        """Names of those that Ray holds, asked by a driver of its own."""
        command = [sys.executable, "-c", _PLACEMENT_GROUPS, self.ray.address]
        done = subprocess.run(command, env=self.ray.env, capture_output=True, text=True, timeout=120, check=True)
        return set(done.stdout.split())

    def train_drivers(self) -> list[psutil.Process]:
        """Living drivers of `launcher: ray_train`."""
        return list(
            _living(
                lambda process: (
                    "orchestrator.cluster.ray_train_driver" in " ".join(process.cmdline())
                    and process.environ().get("RAY_ADDRESS") == self.ray.address
                )
            )
        )

    def host_actors(self) -> list[psutil.Process]:
        return self._actors("HostActor")

    def keepers(self) -> list[psutil.Process]:
        return self._actors("KeeperActor")

    def _actors(self, name: str) -> list[psutil.Process]:
        token = self.ray.env["RAY_AUTH_TOKEN_PATH"]
        return list(
            _living(
                lambda process: (
                    f"ray::{name}" in " ".join(process.cmdline())
                    and process.environ().get("RAY_AUTH_TOKEN_PATH") == token
                )
            )
        )

    def close(self) -> None:
        self.agent.close()
        self.ray.close()
        self.server.down()


def _shares(shape: GangShape, nodes: Sequence[Node]) -> tuple[NodeShare, ...]:
    found = fit(shape, nodes)
    return found.shares if isinstance(found, Fits) else ()


def _living(wanted: Callable[[psutil.Process], bool]) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE and wanted(process):
                yield process


@pytest.fixture(scope="session")
def session_stage() -> Iterator[Stage]:
    directory = Path(tempfile.mkdtemp(prefix="et-"))
    stage = Stage(directory)
    try:
        yield stage
    finally:
        stage.close()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def stage(session_stage: Stage) -> Iterator[Stage]:
    """The shared stage, with an agent alive; what the test ordered is forgotten afterwards."""
    before = set(session_stage.server.observations)
    if session_stage.agent.process.poll() is not None:
        session_stage.restart_agent()
    yield session_stage
    for key in set(session_stage.server.observations) - before:
        session_stage.server.forget(key)
