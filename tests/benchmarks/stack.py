"""An Evertrain of its own for a benchmark, started and ended by the same commands that a user types."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator import Client
from orchestrator.cli.stack_state import StackState, load_state
from orchestrator.core.runs import Event

Process = subprocess.Popen[bytes]
PEERS = Path(__file__).parent / "peers"
LOGICAL_CPUS = 8  # room for every gang that is pooled while the next one is placed; the ranks at work are always two


@dataclass(frozen=True)
class Stack:
    client: Client
    state: StackState
    work: Path  # scratch directory, gone at the end


@contextlib.contextmanager
def running_stack() -> Iterator[Stack]:
    subprocess.run([sys.executable, "-m", "trainers.build_ops"], check=True, stdout=subprocess.DEVNULL)
    with tempfile.TemporaryDirectory(prefix="evb-") as directory:
        home = Path(directory) / "home"
        env = {**os.environ, "EVERTRAIN_HOME": str(home), "EVERTRAIN_CONTEXT": str(home / "context")}
        evertrain = [sys.executable, "-m", "orchestrator.cli.app"]
        subprocess.run(
            [*evertrain, "up", "--cpus", str(LOGICAL_CPUS), "--port", "0", "--http-port", "0"], env=env, check=True
        )
        try:
            state = load_state(home)
            assert state is not None, "up has returned, so its state is written"
            token = (state.server_dir / "admin.token").read_text().strip()
            with Client(state.server, token) as client:
                yield Stack(client, state, Path(directory))
        finally:
            subprocess.run([*evertrain, "down"], env=env, check=True)


def wait_for_event(client: Client, run: str, kind: str, *, after: int = 0, timeout_s: float = 120.0) -> Event:
    """The first event of that kind above `after`. Raises TimeoutError, or RuntimeError when the run ended without it."""
    deadline = time.monotonic() + timeout_s
    for update in client.watch(run, after_event=after):
        for event in update.events:
            if event.kind == kind:
                return event
        if update.ended:
            raise RuntimeError(f"run {run} ended without {kind!r}: {update.run and update.run.reason}")
        if time.monotonic() > deadline:
            raise TimeoutError(f"run {run} had no {kind!r} within {timeout_s:g} s")
    raise RuntimeError(f"run {run}: the watch ended without {kind!r}")


def digits_run(name: str, *, steps: int, width: int = 16, memory: str = "1GiB", **sections: Any) -> dict[str, Any]:
    """The run file that `peers/digits.py` is the counterpart of."""
    return {
        "name": name,
        "recipe": "digits_cnn",
        "model": {"width": width},
        "train": {"steps": steps, "global_batch": 128, "optimizer": "adamw", "lr": 2e-3},
        "parallelism": {"zero": 2},
        "resources": {"workers": 2, "cpu": 1, "memory": memory},
        "checkpoint": {"every_steps": None, "every": None},
        **sections,
    }


# ---- peers ----------------------------------------------------------------------------------------------------------


def read_marks(path: Path) -> list[dict[str, Any]]:
    """What `peers/digits.py` has told so far; a line that is being written is left for later."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


def torchrun(options: list[str], *, max_restarts: int = 0) -> Process:
    """Start the peer under bare torchrun, as its documentation says for one machine."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["--max-restarts", str(max_restarts), str(PEERS / "digits.py"), *options]
    env = peer_environment("torchrun")
    return subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def ray_train(stack: Stack, options: list[str], *, max_failures: int = 0) -> Process:
    """Start the peer under Ray Train on the stack's own running Ray."""
    env = peer_environment("ray_train") | {
        "RAY_ADDRESS": stack.state.ray_address,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(stack.state.ray_token),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }
    command = [sys.executable, "-m", "tests.benchmarks.peers.ray_train", str(max_failures), str(stack.work), *options]
    return subprocess.Popen(
        command, env=env, stdout=subprocess.DEVNULL, stderr=(stack.work / "ray_train.log").open("ab")
    )


def peer_environment(peer: str) -> dict[str, str]:
    """With the installation's own ninja and a cache of compiled ops for this peer alone: torchrun and Ray's workers compile
    DeepSpeed's op by different command lines, and in one cache each would find the other's out of date, every time.
    """
    variables = {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    compiled = Path.home() / ".cache" / "evertrain-benchmarks" / peer
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, **variables, "TORCH_EXTENSIONS_DIR": str(compiled), "PATH": path}


def wait_for_mark(
    marks: Path, kind: str, process: Process, timeout_s: float, *, after: float = 0.0, step: int = 0
) -> dict[str, Any] | None:
    """The first mark of that kind ("first", "step", "done", ...) later than `after` and at `step` or beyond.

    None when the time is over or the process ended without it.
    """
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        ended = process.poll() is not None
        for mark in read_marks(marks):
            if mark.get(kind) and mark["at"] > after and mark.get("step", 0) >= step:
                return mark
        if ended:
            return None
        time.sleep(0.02)
    return None


def end(process: Process) -> None:
    """End a peer that this benchmark started."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
