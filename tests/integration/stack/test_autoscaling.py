"""A Ray cluster without workers, whose autoscaler (version 2, with a provider for one machine) adds nodes when asked to."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from orchestrator import Client
from orchestrator.errors import EvertrainError
from tests.integration.cluster.conftest import REPOSITORY, RayNode

IDLE_MINUTES = 0.1
HEAD_ID = "fffffffffffffffffffffffffffffffffffffffffffffffffff00000"  # what that provider calls its head
PATIENCE_S = 120.0
TWO_RANKS = {
    "name": "grown-for",
    "recipe": "digits_cnn",
    "train": {"steps": 5, "global_batch": 128},
    "resources": {"workers": 2, "cpu": 1},
}
TOO_LARGE = {**TWO_RANKS, "name": "too-large", "resources": {"workers": 1, "cpu": 64}}


def autoscaling(gcs_address: str) -> dict[str, Any]:
    lists = (
        "initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands", "rsync_filter",
        "head_start_ray_commands", "worker_start_ray_commands", "cluster_synced_files", "rsync_exclude",
    )  # fmt: skip
    return {
        "cluster_name": "growing",
        "max_workers": 2,
        "idle_timeout_minutes": IDLE_MINUTES,
        "upscaling_speed": 1.0,
        "provider": {
            "type": "external",
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
            "launch_multiple": True,
            "head_node_id": HEAD_ID,
            "gcs_address": gcs_address,
        },
        "head_node_type": "ray.head.default",
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "worker": {
                "resources": {"CPU": 2, "object_store_memory": 100_000_000},
                "node_config": {},
                "min_workers": 0,
                "max_workers": 2,
            },
        },
        "file_mounts": {},
        "file_mounts_sync_continuously": False,
        "auth": {},
        "docker": {},
        **{name: [] for name in lists},
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(what: str, reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not reached():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


class Growing:
    """Server, Ray's head with its autoscaler, agent; and the nodes that the autoscaler starts."""

    def __init__(self, directory: Path) -> None:
        self._directory, self._processes = directory, list[subprocess.Popen[bytes]]()
        self.head = self._start_head(free_port())
        port, http_port = free_port(), free_port()
        settings = {
            "EVERTRAIN_DATA_DIR": str(directory / "server"),
            "EVERTRAIN_GRPC_PORT": str(port),
            "EVERTRAIN_HTTP_PORT": str(http_port),
        }
        self._start("orchestrator.main", "server", env=settings)
        token = directory / "server" / "agent.token"
        wait_until("the server has written its tokens", token.exists)
        options = [f"--server=127.0.0.1:{port}", f"--token-file={token}", f"--ray-address={self.head.address}"]
        options += ["--cluster=growing", f"--local-dir={directory / 'l'}", "--pool-ttl=1", "--autoscaling"]
        self._start("orchestrator.cluster.agent", *options, env=self.head.env)
        self.client = Client(f"127.0.0.1:{port}", (directory / "server" / "admin.token").read_text().strip())

    def _start_head(self, port: int) -> RayNode:
        file = self._directory / "autoscaling.json"  # JSON is YAML
        file.write_text(json.dumps(autoscaling(f"127.0.0.1:{port}")))
        variables = {
            "RAY_FAKE_CLUSTER": "1",
            "RAY_enable_autoscaler_v2": "1",
            "RAY_CLOUD_INSTANCE_ID": HEAD_ID,
            "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID,
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        }
        return RayNode(
            self._directory,
            "--head",
            f"--port={port}",
            "--include-dashboard=false",
            f"--temp-dir={self._directory / 'r'}",
            "--node-ip-address=127.0.0.1",
            "--num-cpus=0",
            f"--autoscaling-config={file}",
            prefix=("env", *(f"{name}={value}" for name, value in variables.items())),
        )

    def _start(self, module: str, *words: str, env: dict[str, str]) -> None:
        own = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "EVERTRAIN_"))}
        with (self._directory / f"{module}.log").open("wb") as log:
            command = [sys.executable, "-m", module, *words]
            self._processes.append(
                subprocess.Popen(command, env={**own, "PYTHONPATH": str(REPOSITORY), **env}, stdout=log, stderr=log)
            )

    def workers(self) -> int:
        """Nodes that have CPUs."""
        with contextlib.suppress(EvertrainError):
            return sum(1 for each in self.client.clusters() for node in each.nodes if node.cpu)
        return 0

    def close(self) -> None:
        for process in self._processes:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
        for each in psutil.process_iter(["cmdline"]):  # the nodes' own processes, which leave the head's family
            if str(self._directory) in " ".join(each.info["cmdline"] or ()):
                with contextlib.suppress(psutil.Error):
                    each.kill()
        self.head.close()


@pytest.fixture(scope="module")
def growing() -> Iterator[Growing]:
    with tempfile.TemporaryDirectory(prefix="eta-", ignore_cleanup_errors=True) as directory:
        growing = Growing(Path(directory))
        try:
            yield growing
        finally:
            growing.close()


def test_nodes_come_for_a_run_that_waits_and_go_when_nothing_does(growing: Growing) -> None:
    wait_until("the agent is attached", lambda: any(each.connected for each in growing.client.clusters()))
    assert growing.workers() == 0
    run = growing.client.submit(TWO_RANKS)
    ended = growing.client.wait(run.id)
    assert ended.state == "SUCCEEDED", ended.reason
    wait_until("the nodes that idle have gone", lambda: growing.workers() == 0)


def test_a_run_that_no_node_will_ever_hold_waits_and_says_for_what(growing: Growing) -> None:
    run = growing.client.submit(TOO_LARGE)
    wait_until("it says so", lambda: "Ray's autoscaler is asked for nodes" in growing.client.get(run.id).reason.message)
    growing.client.cancel(run.id)
