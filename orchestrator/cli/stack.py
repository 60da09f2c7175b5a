"""`up` and `down`: the embedded stack of one user on one machine, started whole and ended without remains."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.cli.processes import MARK, Process, end_marked, marked, wait_until
from orchestrator.cli.stack_state import PARTS, StackState, load_state, state_file
from orchestrator.cli.supervisor import free_port
from orchestrator.cluster.local_dirs import default_root, remove_dead_nodes
from orchestrator.errors import Conflict, EvertrainError, Refused, Unauthenticated, Unavailable
from orchestrator.settings import Connection, forget_connection, save_connection, write_private

if TYPE_CHECKING:
    from orchestrator.api.client import Client

READY_TIMEOUT_S = 120.0
_ENDING_TOO_OFTEN = 4
_STOP_PATIENCE_S = 25.0
# <dir>/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store has to stay within 107 characters.
_RAY_DIR_CHARS = 40


def up(
    home: Path, *, grpc_port: int, http_port: int, cpus: int | None, tell: Callable[[str], None]
) -> tuple[StackState, bool]:
    """Start the stack and wait until its cluster is attached. Answers it, and whether it was started now.

    Raises Refused when a part is not installed, Conflict for a port that is taken, Unavailable when the stack does not
    come up: then everything that was started has been ended again.
    """
    with _locked(home):
        state = load_state(home)
        if state is not None and is_up(state):
            _wait_until_ready(state, tell)
            return state, False
        if state is not None:
            tell("ending what an earlier stack left behind")
            _end(state)
        _check_installed()
        state = _plan(home, grpc_port, http_port, cpus)
        state.save()
        _spawn_supervisor(state)
        try:
            _wait_until_ready(state, tell)
        except BaseException:
            _end(state)
            raise
        return state, True


def down(home: Path) -> int | None:
    """End everything that `up` started. Answers the number of processes ended; None when nothing was up."""
    with _locked(home):
        state = load_state(home)
        return None if state is None else _end(state)


def is_up(state: StackState) -> bool:
    return state.supervisor is not None and state.supervisor.alive


@contextlib.contextmanager
def _locked(home: Path) -> Iterator[None]:
    """One `up` or `down` of a home at a time. Raises Conflict, and Refused for a home that cannot be written."""
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        (home / "logs").mkdir(exist_ok=True)
        opened = (home / "stack.lock").open("w")
    except OSError as error:
        where = error.filename or home
        raise Refused(
            f"{where} cannot be written ({error.strerror}): set EVERTRAIN_HOME to a directory of your own"
        ) from error
    with opened as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(f"another `evertrain up` or `down` of {home} is at work: wait for it") from None
        yield


def _check_installed() -> None:
    missing = [name for name in ("ray", "torch", "deepspeed") if importlib.util.find_spec(name) is None]
    if missing:
        raise Refused(f"a local cluster needs {', '.join(missing)}: install evertrain[cluster]")


def _plan(home: Path, grpc_port: int, http_port: int, cpus: int | None) -> StackState:
    for port, what in ((grpc_port, "--port"), (http_port, "--http-port")):
        _check_free(port, what)
    state = StackState(
        mark=f"stack-{secrets.token_hex(8)}",
        home=str(home),
        cluster="local",
        grpc_port=grpc_port or free_port(),
        http_port=http_port or free_port(),
        ray_port=free_port(),
        ray_dir=_short_directory(),
        cpus=cpus,
    )
    write_private(state.ray_token, secrets.token_hex(32))
    return state


def _check_free(port: int, what: str) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise Conflict(
                f"port {port} of 127.0.0.1 cannot be used ({error.strerror}): choose another with {what}"
            ) from None


def _short_directory() -> str:
    """Made by us alone, mode 0700."""
    parent = tempfile.gettempdir()
    if len(parent) + len("/evt-12345678") > _RAY_DIR_CHARS:
        parent = "/tmp"
    return tempfile.mkdtemp(prefix="evt-", dir=parent)


def _spawn_supervisor(state: StackState) -> None:
    with state.log("supervisor").open("ab") as output:
        subprocess.Popen(
            [sys.executable, "-m", "orchestrator.cli.supervisor", state.home],
            env={**os.environ, MARK: f"{state.mark}/supervisor"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=state.home,
            start_new_session=True,
        )


# ---- becoming ready -------------------------------------------------------------------------------------------------


def _wait_until_ready(state: StackState, tell: Callable[[str], None]) -> None:
    stages: tuple[tuple[str, Callable[[StackState], bool]], ...] = (
        ("starting the server", _server_answers),
        ("starting Ray and the agent", _cluster_attached),
    )
    for words, reached in stages:
        tell(words)
        check = functools.partial(_reached, state, reached)
        if not wait_until(check, timeout_s=READY_TIMEOUT_S, pause_s=0.2):
            raise Unavailable(f"{words} took longer than {READY_TIMEOUT_S:.0f} s.{_tails(state)}")


def _reached(state: StackState, reached: Callable[[StackState], bool]) -> bool:
    _check_parts(state)
    return reached(state)


def _check_parts(state: StackState) -> None:
    """Raises Unavailable when a part keeps ending, or nobody starts them any more."""
    now = load_state(Path(state.home))
    parts = now.parts if now is not None else {}
    for name, part in parts.items():
        if part.restarts >= _ENDING_TOO_OFTEN:
            raise Unavailable(
                f"{name} ended {part.restarts} times in a row, last with {part.last_end}.{_tail(state, name)}"
            )
    if now is not None and now.supervisor is not None and not now.supervisor.alive:
        raise Unavailable(f"the supervisor ended.{_tail(state, 'supervisor')}")


def _admin_token(state: StackState) -> str:
    return (state.server_dir / "admin.token").read_text().strip()


def _client(state: StackState, token: str) -> Client:
    from orchestrator.api.client import Client

    return Client(state.server, token, timeout_s=5.0)


def _server_answers(state: StackState) -> bool:
    """Raises Unauthenticated where waiting would not help."""
    if not (state.server_dir / "admin.token").exists():
        return False
    token = _admin_token(state)
    try:
        with _client(state, token) as client:
            client.clusters()
    except Unauthenticated as error:
        if _admin_token(state) != token:  # the server has replaced it while it started
            return False
        path = state.server_dir / "admin.token"
        raise Unauthenticated(f"{path}: {error}. `evertrain down`, then `up`, makes a new one") from None
    except EvertrainError:
        return False
    return True


def _cluster_attached(state: StackState) -> bool:
    try:
        with _client(state, _admin_token(state)) as client:
            return any(each.name == state.cluster and each.connected for each in client.clusters())
    except Unavailable:
        return False


def connect(state: StackState) -> Path:
    """Make the stack the one that commands talk to. Answers the path of the context file."""
    return save_connection(Connection(state.server, _admin_token(state)))


def _tails(state: StackState) -> str:
    return "".join(_tail(state, part) for part in PARTS)


def _tail(state: StackState, part: str) -> str:
    try:
        lines = state.log(part).read_text(errors="replace").splitlines()[-5:]
    except OSError:
        lines = []
    return f"\nThe end of {state.log(part)}:\n" + "\n".join(f"  {line}" for line in lines or ["(empty)"])


# ---- ending ---------------------------------------------------------------------------------------------------------


def _end(state: StackState) -> int:
    """Supervisor first, which ends its siblings in order; then whatever still carries the stack's mark."""
    before = set(marked(state.mark))
    if state.supervisor is not None:
        supervisor: Process = state.supervisor
        supervisor.send(signal.SIGTERM)
        wait_until(lambda: not supervisor.alive, timeout_s=_STOP_PATIENCE_S)
    ended = end_marked(state.mark, patience_s=2.0, known=before)
    shutil.rmtree(state.ray_dir, ignore_errors=True)
    remove_dead_nodes(Path(default_root()))
    # Nothing of the stack is left: whatever comes of the context file, the next `up` need not end it again.
    state_file(Path(state.home)).unlink(missing_ok=True)
    forget_connection(state.server)
    return ended
