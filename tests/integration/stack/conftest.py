"""One embedded stack for all tests of this folder, started by the command that users type."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestrator import Client
from orchestrator.api.views import RunUpdate
from orchestrator.cli.stack_state import StackState, load_state
from orchestrator.core.runs import Event
from orchestrator.errors import Unavailable
from tests.webhook_receiver import Receiver

PATIENCE_S = 120.0


@dataclass(frozen=True)
class Stack:
    client: Client
    home: Path
    env: dict[str, str]
    receiver: Receiver  # of what its webhooks are told

    @property
    def state(self) -> StackState:
        state = load_state(self.home)
        assert state is not None
        return state

    def evertrain(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Type one command."""
        command = [sys.executable, "-m", "orchestrator.cli.app", *words]
        env = {**self.env, "COLUMNS": "5000"}  # whatever whoever runs the tests has: no line is broken
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=PATIENCE_S, check=False)

    def pid(self, part: str) -> int:
        """Process id of `server`, `ray` or `agent` as of now."""
        process = self.state.parts[part].process
        assert process is not None
        return process.pid

    def updates(self, run: str, after: int = 0) -> Iterator[RunUpdate]:
        """What happens to the run; a server that was killed is waited for."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                for update in self.client.watch(run, after_event=after):
                    after = max([after, *(each.seq for each in update.events)])
                    yield update
            except Unavailable:
                if time.monotonic() > deadline:
                    raise
            else:
                return

    def until(self, run: str, wanted: Callable[[Event], bool], after: int = 0) -> Event:
        """The first event above `after` that is wanted; the run must not end without it."""
        for update in self.updates(run, after):
            for event in update.events:
                if wanted(event):
                    return event
        told = "\n".join(f"{each.kind}: {each.message}" for each in self.client.events(run))
        raise AssertionError(f"the run ended without it:\n{told}")


def kind(wanted: str) -> Callable[[Event], bool]:
    return lambda event: event.kind == wanted


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    with tempfile.TemporaryDirectory(prefix="evs-") as directory:
        home, receiver = Path(directory), Receiver()
        watched = {"EVERTRAIN_PRICE_CPU_HOUR": "0.05", "EVERTRAIN_METRICS_RANKS": "2"}
        env = {**os.environ, "EVERTRAIN_HOME": str(home), "EVERTRAIN_WEBHOOKS": receiver.url, **watched}
        started = Stack(None, home, env, receiver)  # type: ignore[arg-type]  # no server yet to be a client of
        try:
            up = started.evertrain("up", "--port", "0", "--http-port", "0", "--cpus", "4")
            assert up.returncode == 0, up.stderr
            token = (started.state.server_dir / "admin.token").read_text().strip()
            with Client(started.state.server, token) as client:
                yield Stack(client, home, env, receiver)
        finally:
            down = started.evertrain("down")
            receiver.close()
            assert down.returncode == 0, down.stderr


def digits(name: str, **sections: Any) -> dict[str, Any]:
    """A small real training: one epoch is 10 steps."""
    run_file: dict[str, Any] = {
        "name": name,
        "recipe": "digits_cnn",
        "model": {"width": 8},
        "train": {"steps": 30, "global_batch": 128, "optimizer": "adamw", "lr": 3e-3},
        "parallelism": {"zero": 2},
        "resources": {"workers": 2, "cpu": 1},
        "checkpoint": {"every_steps": 10, "every": None},
    }
    return {**run_file, **sections}


def long_digits(name: str, **sections: Any) -> dict[str, Any]:
    """One that goes on until somebody ends it."""
    endless = {"steps": 1_000_000, "global_batch": 128, "optimizer": "adamw", "lr": 1e-4}
    return digits(name, train=endless, **sections)
