"""The server as `orchestrator.main` builds it, on free ports in this process; its clock can be moved.

Neither the scheduling loop nor housekeeping runs: tests place and end runs by hand.
"""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import grpc

from orchestrator import Client, spec
from orchestrator.api.auth import ensure_first_tokens, make_token
from orchestrator.core import lifecycle
from orchestrator.core.ledger import Ledger
from orchestrator.core.observations import AttemptEnded, Happening, Observation
from orchestrator.core.records import Role
from orchestrator.core.runs import Reason, ReasonCode, Result, Run, Spent
from orchestrator.main import Server, build
from orchestrator.ports import Store
from orchestrator.settings import Settings
from orchestrator.store import open_store
from tests.builders import BUDGETS, SHARES, submission

SPEC = '{"name": "digits", "recipe": "digits_cnn", "train": {"epochs": 1}}'


class MovableClock:
    """The machine's clock, moved by hand where a test needs it."""

    def __init__(self) -> None:
        self.ahead_s = 0.0  # time that passed
        self.wall_ahead_s = 0.0  # somebody set the clock

    def now(self) -> float:
        return time.time() + self.ahead_s + self.wall_ahead_s

    def monotonic_ns(self) -> int:
        return time.monotonic_ns() + int(self.ahead_s * 1e9)


class Stack:
    """Start it with `with`. `admin` and `agent` are the first tokens."""

    def __init__(self, data_dir: Path, **settings: Any) -> None:
        self.settings = Settings(data_dir=data_dir, grpc_port=0, http_port=0, **settings)
        self.clock = MovableClock()
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="server", daemon=True)

    def __enter__(self) -> Stack:
        self.store: Store = open_store(self.settings.database_url, self.settings.secrets_key)
        paths = ensure_first_tokens(self.store, self.clock, self.settings.data_dir)
        self.admin, self.agent = (path.read_text().strip() for path in paths)
        self._thread.start()
        server: Server = self.on_loop(self._start())
        self.server, self.parts, self.records = server.grpc, server.parts, server.parts.fleet.records
        self.channel = grpc.insecure_channel(self.address)
        return self

    def __exit__(self, *error: object) -> None:
        self.channel.close()
        self.on_loop(self.server.stop(0.2))
        self.on_loop(self._cancel_rest())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()
        self.parts.executor.shutdown()
        self.store.close()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.port}"

    def on_loop(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def token(self, project: str, role: Role, expires_s: float | None = None) -> str:
        secret, token = make_token(
            f"{role}-of-{project}".replace("*", "all"), project, role, self.clock.now(), expires_s
        )
        self.store.add_token(token)
        return secret

    def client(self, secret: str = "") -> Client:
        return Client(self.address, secret or self.admin, timeout_s=20)

    def submit(self, project: str = "default", **changes: Any) -> Run:
        """A queued run, put into the store behind the API's back."""
        values: dict[str, Any] = {
            "run_id": f"run-{uuid.uuid4().hex[:10]}",
            "project": project,
            "spec": spec.dump(spec.parse(SPEC)),
        }
        answer = self.store.submit([submission(submitted_at=self.clock.now(), **{**values, **changes})])[0]
        self.records.announce([answer.run])
        return answer.run

    def place(self, run: Run, cluster: str = "local") -> Run:
        return self.records.change("*", run.id, lambda now: lifecycle.place(now, cluster, SHARES, self.clock.now()))

    def observe(self, run: Run, what: Happening, seq: int = 0) -> Run:
        """What the agent of its current attempt would have said."""

        def think(now: Run) -> lifecycle.Transition | lifecycle.Ignored:
            said = Observation(now.id, now.attempts[-1].number, seq, self.clock.now(), what)
            return lifecycle.observe(now, said, budgets=BUDGETS, now=self.clock.now())

        return self.records.change("*", run.id, think)

    def end(self, run: Run, checkpoint: str = "/seal") -> Run:
        """Let a placed run succeed."""
        reason = Reason(ReasonCode.COMPLETED, "all epochs done")
        result = Result(step=10, metrics={"test_accuracy": 0.98}, checkpoint=checkpoint)
        return self.observe(run, AttemptEnded("succeeded", reason, Spent(), 10, Ledger(), result=result))

    async def _start(self) -> Server:
        server = build(self.settings, self.store, self.clock)
        await server.grpc.start()
        return server

    async def _cancel_rest(self) -> None:
        rest = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
