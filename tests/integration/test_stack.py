"""`evertrain up` and `down`, as typed: what comes up is whole, what goes down leaves nothing."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from orchestrator import Client
from orchestrator.cli.processes import end_marked, marked, wait_until
from orchestrator.cli.stack_state import StackState, load_state
from orchestrator.errors import Unavailable


class Machine:
    """Types commands for a home of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        kept = {key: value for key, value in os.environ.items() if not key.startswith("EVERTRAIN_")}
        self._environment = {**kept, "EVERTRAIN_HOME": str(home)}

    def type(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "orchestrator.cli.app", *words]
        return subprocess.run(command, env=self._environment, capture_output=True, text=True, timeout=180)

    @property
    def state(self) -> StackState:
        state = load_state(self.home)
        assert state is not None
        return state


@pytest.fixture
def machine() -> Iterator[Machine]:
    with tempfile.TemporaryDirectory(prefix="evh-", ignore_cleanup_errors=True) as directory:
        machine = Machine(Path(directory))
        yield machine
        state = load_state(machine.home)
        if state is not None:
            machine.type("down")
            end_marked(state.mark, patience_s=0.0)


def outside_ports(pids: set[int]) -> list[str]:
    """Listening TCP ports of these processes that are not bound to loopback."""
    inodes = set()
    for pid in pids:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            try:
                inodes.add(os.readlink(descriptor))
            except OSError:
                continue
    loopback = {"0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F"}
    found = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            address, port = fields[1].split(":")
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes and address not in loopback:
                found.append(f"{address}:{int(port, 16)}")
    return found


def has_agent(client: Client) -> bool:
    try:
        return any(each.connected for each in client.clusters())
    except Unavailable:  # a server that was started again serves only some seconds later
        return False


def test_a_stack_comes_up_closed_restarts_its_parts_and_leaves_nothing(machine: Machine) -> None:
    up = machine.type("up", "--port", "0", "--http-port", "0", "--cpus", "1", "-o", "json")
    assert up.returncode == 0, up.stderr
    state = machine.state
    for secret in (machine.home / "context", state.ray_token, state.server_dir / "admin.token"):
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert outside_ports({each.pid for each in marked(state.mark)}) == []

    again = machine.type("up", "-o", "json")
    assert (again.returncode, json.loads(again.stdout)["started"]) == (0, False)
    assert json.loads(again.stdout)["server"] == state.server

    server = state.parts["server"].process
    assert server is not None
    server.send(signal.SIGKILL)
    assert wait_until(lambda: machine.state.parts["server"].restarts == 1, timeout_s=20)
    token = (state.server_dir / "admin.token").read_text().strip()
    with Client(state.server, token) as client:
        assert wait_until(lambda: has_agent(client), timeout_s=30)

    before = marked(state.mark)
    titles = [" ".join(psutil.Process(each.pid).cmdline()).strip() for each in before]
    assert "ray::DashboardAgent" in titles, "it overwrites its environment, and must be ended all the same"
    down = machine.type("down")
    assert down.returncode == 0, down.stderr
    assert "none left" in down.stdout
    assert [each for each in before if each.alive] == []
    assert marked(state.mark) == []
    assert not Path(state.ray_dir).exists()
    assert not (machine.home / "context").exists()
    assert "nothing was up" in machine.type("down").stdout


def test_after_the_supervisor_was_killed_down_still_ends_all(machine: Machine) -> None:
    assert machine.type("up", "--port", "0", "--http-port", "0", "--cpus", "1").returncode == 0
    state = machine.state
    assert state.supervisor is not None
    state.supervisor.send(signal.SIGKILL)
    assert wait_until(lambda: state.supervisor is not None and not state.supervisor.alive, timeout_s=10)
    assert len(marked(state.mark)) > 3
    assert machine.type("down").returncode == 0
    assert marked(state.mark) == []


def test_a_taken_port_is_said_and_nothing_is_started(machine: Machine) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused = machine.type("up", "--port", str(port), "--http-port", "0")
    assert refused.returncode == 1
    assert (
        f"port {port} of 127.0.0.1 cannot be used (Address already in use): choose another with --port"
        in refused.stderr
    )
    assert load_state(machine.home) is None
