"""The process that keeps server, Ray and agent alive, as three siblings: `python -m orchestrator.cli.supervisor HOME`.

A sibling that ends is started again, with growing pauses while it keeps ending soon. SIGTERM ends all three, agent first.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from orchestrator.cli.processes import MARK, Process, end_marked, of_session
from orchestrator.cli.stack_state import PARTS, Part, StackState, load_state

_YIELDING = ("server", "agent")  # on the machine that trains they take what the ranks leave; Ray hands its own to ranks
_YIELDING_NICENESS = 5
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
_STEADY_AFTER_S = 60.0
_TICK_S = 0.1
_AGENT_SUPERSEDED = 3  # `EXIT_SUPERSEDED` of the agent, which the command line may not import
_OBJECT_STORE_BYTES = 200 * 2**20  # Evertrain keeps nothing there; Ray's own default is 30 % of the memory
# Ray would wait for its actors up to 30 s; nothing of ours is kept there, so it is given a moment only.
_STOP_PATIENCE_S = {"agent": 3.0, "ray": 1.0, "server": 10.0}


class Sibling:
    """One part: whether it may start, whether it lives, when to try again."""

    def __init__(self, name: str, state: StackState) -> None:
        self.name = name
        self.part = Part()
        self._state = state
        self._child: subprocess.Popen[bytes] | None = None
        self._pause_s = _FIRST_PAUSE_S
        self._started_s = 0.0
        self._not_before_s = 0.0

    def tend(self, now_s: float) -> bool:
        """Notice an end, start what may start. Answers whether anything changed."""
        if self._child is not None and self._child.poll() is not None:
            self._note_end(now_s)
            return True
        if self._child is None and now_s >= self._not_before_s and may_start(self.name, self._state):
            self._start(now_s)
            return True
        if self._child is not None and self.part.restarts and now_s - self._started_s > _STEADY_AFTER_S:
            self.part = replace(self.part, restarts=0)  # `up` would take a part that once ended often for a broken one
            return True
        return False

    def _start(self, now_s: float) -> None:
        log = self._state.log(self.name)
        with log.open("ab") as output:
            self._child = subprocess.Popen(
                command(self.name, self._state),
                env=environment(self.name, self._state, os.environ),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self._state.home,
                start_new_session=True,
            )
        if self.name in _YIELDING:
            os.setpriority(os.PRIO_PROCESS, self._child.pid, _YIELDING_NICENESS)
        self._started_s = now_s
        self.part = replace(self.part, process=Process.of(self._child.pid))

    def _note_end(self, now_s: float) -> None:
        assert self._child is not None
        lived_s = now_s - self._started_s
        steady = lived_s > _STEADY_AFTER_S
        self._pause_s = _FIRST_PAUSE_S if steady else min(self._pause_s * 2, _LONGEST_PAUSE_S)
        self._not_before_s = now_s + self._pause_s
        if self.name == "agent" and self._child.returncode == _AGENT_SUPERSEDED:
            self._not_before_s = math.inf
        end = f"exit code {self._child.returncode} after {lived_s:.1f} s"
        if self._not_before_s == math.inf:
            end += (
                ": another agent serves this cluster now, so it is not started again; `evertrain down` and `up` would"
            )
            print(f"agent: {end}", flush=True)
        # What it had started must not live beside its successor.
        self._end_all(patience_s=1.0)
        self.part = Part(None, 1 if steady else self.part.restarts + 1, end)
        self._child = None

    def stop(self) -> None:
        if self._child is not None:
            self._child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(_STOP_PATIENCE_S[self.name])
        self._end_all(patience_s=0.5)
        if self._child is not None:
            self._child.wait()

    def _end_all(self, *, patience_s: float) -> None:
        leader = self.part.process
        orphans = of_session(leader) if leader is not None else []
        end_marked(f"{self._state.mark}/{self.name}", patience_s=patience_s, known=orphans)


def may_start(part: str, state: StackState) -> bool:
    """The agent needs the server's token file and Ray's port; the others need nobody."""
    return part != "agent" or (agent_token(state).exists() and _listens(state.ray_port) and _listens(state.grpc_port))


def agent_token(state: StackState) -> Path:
    return state.server_dir / "agent.token"


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def command(part: str, state: StackState) -> list[str]:
    if part == "server":
        return [sys.executable, "-m", "orchestrator.main", "server"]
    if part == "agent":
        return [
            sys.executable, "-m", "orchestrator.cluster.agent", "--server", state.server,
            "--token-file", str(agent_token(state)), "--cluster", state.cluster, "--ray-address", state.ray_address,
        ]  # fmt: skip
    return ray_command(state)


def ray_command(state: StackState) -> list[str]:
    ports = [free_port() for _ in range(2)]
    options = [
        "--head", "--block", "--disable-usage-stats", "--log-style=record", "--node-ip-address=127.0.0.1",
        f"--port={state.ray_port}", f"--temp-dir={state.ray_dir}", f"--object-store-memory={_OBJECT_STORE_BYTES}",
        # Ray Train asks the dashboard's State API; the fixed defaults of these ports would meet another Ray.
        "--include-dashboard=true", "--dashboard-host=127.0.0.1", f"--dashboard-port={ports[0]}",
        f"--ray-client-server-port={ports[1]}", "--dashboard-agent-listen-port=0", "--metrics-export-port=0",
        "--node-manager-port=0", "--object-manager-port=0", "--min-worker-port=0", "--max-worker-port=0",
    ]  # fmt: skip
    if state.cpus is not None:
        options.append(f"--num-cpus={state.cpus}")
    return [sys.executable, "-c", "from ray.scripts.scripts import main; main()", "start", *options]


def environment(part: str, state: StackState, inherited: Mapping[str, str]) -> dict[str, str]:
    variables = {key: value for key, value in inherited.items() if not key.startswith("RAY_")}
    variables[MARK] = f"{state.mark}/{part}"
    if part == "server":
        return variables | {
            "EVERTRAIN_DATA_DIR": str(state.server_dir),
            "EVERTRAIN_GRPC_HOST": "127.0.0.1",
            "EVERTRAIN_GRPC_PORT": str(state.grpc_port),
            "EVERTRAIN_HTTP_PORT": str(state.http_port),
        }
    return variables | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(state.ray_token),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",  # ranks inherit it: at Ray's 15 they would yield to everything else on the machine
        # Ray takes 127.0.0.1 for the address of its node only under this switch; without it, it listens on every interface.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def supervise(state: StackState) -> None:
    """Until SIGTERM or SIGINT."""
    asked_to_stop = False

    def note(_number: int, _frame: object) -> None:
        nonlocal asked_to_stop
        asked_to_stop = True

    signal.signal(signal.SIGTERM, note)
    signal.signal(signal.SIGINT, note)
    siblings = [Sibling(name, state) for name in PARTS]
    while not asked_to_stop:
        changed = [each.tend(time.monotonic()) for each in siblings]
        if any(changed):
            replace(state, parts={each.name: each.part for each in siblings}).save()
        time.sleep(_TICK_S)
    for sibling in reversed(siblings):
        sibling.stop()


def main() -> None:
    state = load_state(Path(sys.argv[1]))
    if state is None:
        sys.exit(f"{sys.argv[1]} holds no stack: start one with `evertrain up`")
    state = replace(state, supervisor=Process.of(os.getpid()))
    state.save()
    supervise(state)


if __name__ == "__main__":
    main()
