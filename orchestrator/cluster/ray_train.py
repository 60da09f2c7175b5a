"""`launcher: ray_train`: Ray Train starts the ranks, places them and restarts them; we listen and tell.

A driver process of its own (`ray_train_driver`) runs a TorchTrainer whose workers run the same `trainers/train.py`. Told more
coarsely than of our own gangs: all output is one source without rank numbers, a restart is noticed when Ray Train has begun
the next worker group, its cause is what a rank said of itself, and a stop kills without a last checkpoint.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from orchestrator.cluster.fencing import FENCE_S
from orchestrator.cluster.gang import deadline_of
from orchestrator.cluster.gang_messages import Bind, StartRanks
from orchestrator.cluster.gang_story import GangStory
from orchestrator.cluster.host import Host
from orchestrator.cluster.rank_account import RankAccount
from orchestrator.cluster.rank_env import accelerator_env, launch_of, resources_of
from orchestrator.cluster.rank_output import LineSplitter, RateLimit, Redactor, redact_message
from orchestrator.core.ledger import add
from orchestrator.core.observations import Placed
from orchestrator.core.runs import Failure, FailureKind, Reason, ReasonCode, StopOrder
from trainers import contract

log = logging.getLogger(__name__)

LAUNCHER = "ray_train"
DRIVER = (sys.executable, "-m", "orchestrator.cluster.ray_train_driver")
TICK_S = 0.5
_READ_BYTES = 256 * 1024
_TAIL_LINES = 20
_NO_PORT = 0


class RayTrainJob:
    """Leads an attempt as `gang.Coordinator` does, through Ray Train. `leader` is the name of the actor it lives in."""

    def __init__(
        self, bind: Bind, host: Host, story: GangStory, placed: Placed, *, leader: str, gcs_address: str
    ) -> None:
        self._bind, self._host, self._story, self._placed = bind, host, story, placed
        self._leader, self._gcs_address = leader, gcs_address
        self._redact = Redactor(tuple(bind.order.secrets.values()))
        self._stop: StopOrder | None = bind.order.stop
        self._process: asyncio.subprocess.Process | None = None
        now_ns = time.monotonic_ns() - int(bind.started_before_s * 1e9)
        self._accounts = {rank: RankAccount(rank, now_ns) for rank in range(bind.world_size)}
        self._joined: dict[int, int] = {}  # rank: process id, of the present incarnation
        self._done: contract.Done | None = None
        self._tail: list[str] = []

    async def run(self) -> None:
        """Live the attempt. Never raises: an error of our own ends the attempt as lost, so that the run goes on."""
        tasks = [asyncio.create_task(self._tick()), asyncio.create_task(self._keep_deadline())]
        self._story.placed(self._placed)
        try:
            await self._live()
        except Exception as error:
            log.exception("leading %s/%d through Ray Train failed", self._bind.order.run_id, self._bind.order.attempt)
            failure = Failure(FailureKind.HOST_LOST, f"its leader failed: {type(error).__name__}: {error}")
            self._story.end("lost", Reason(ReasonCode.RESCHEDULED, failure.message), failure=failure, fence_s=FENCE_S)
        finally:
            self.kill()
            for task in tasks:
                task.cancel()

    async def _live(self) -> None:
        code = await self._drive() if self._stop is None else 0
        self._look()
        if self._stop is not None:
            self._story.stopped(self._stop)
        elif code == 0:
            self._story.succeeded(self._done)
        else:
            self._give_up(code)

    def stop(self, order: StopOrder) -> None:
        """Ray ends the workers of a driver that is gone."""
        if self._stop is None:
            self._stop = order
        for account in self._accounts.values():
            account.stop(time.monotonic_ns())
        self.kill()

    def kill(self) -> None:
        """End the driver at once, and all that it has started."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    # ---- for the workers ------------------------------------------------------------------------------------------

    def join(self, rank: int, pid: int, staging_dir: str, socket: str, code_dir: str | None) -> str:
        """A worker has begun; answers its launch document. A rank that joins again belongs to a new worker group."""
        if not self._joined or rank in self._joined:
            if self._joined:
                self._tell_restart()
            self._joined = {}
            self._story.begin_incarnation()
        now_ns = time.monotonic_ns()
        self._joined[rank] = pid
        self._accounts[rank].begin(now_ns)
        self._accounts[rank].pid = pid
        if len(self._joined) == self._bind.world_size:
            self._story.started(tuple(pid for _, pid in sorted(self._joined.items())))
        start = StartRanks(self._story.number, "", _NO_PORT, self._story.admitted, self._story.furthest_step)
        return launch_of(self._bind, start, staging_dir=staging_dir, code_dir=code_dir, socket=socket).to_json()

    def said(self, rank: int, line: bytes) -> None:
        """A message of a rank. Raises ValueError for what is none."""
        message = redact_message(contract.decode(line), self._redact)
        now_ns = time.monotonic_ns()
        if isinstance(message, contract.PhaseChanged):
            message = replace(message, at_ns=now_ns)  # its host's clock is not ours
        if isinstance(message, contract.Done):
            self._done = message
        if self._accounts[rank].hear(message, now_ns):
            self._story.said(rank, message)

    @property
    def bundle(self) -> bytes | None:
        return self._bind.bundle

    # ---- the driver -----------------------------------------------------------------------------------------------

    async def _drive(self) -> int:
        self._process = await asyncio.create_subprocess_exec(
            *(*DRIVER, str(os.getpid())),
            env=self._driver_env(),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(ConnectionError):  # it has ended already: its exit code says so
            process.stdin.write(json.dumps(self._job()).encode() + b"\n")  # secrets: never an argument or a file
            await process.stdin.drain()
        await self._read(process.stdout)
        return await process.wait()

    async def _read(self, output: asyncio.StreamReader) -> None:
        """All that it prints: a driver whose output nobody takes would wait for ever."""
        splitter, limit = LineSplitter(self._redact), RateLimit(time.monotonic())
        while data := await output.read(_READ_BYTES):
            self._say(limit.admit(splitter.feed(data), time.monotonic()))
        self._say([*limit.admit(splitter.rest(), time.monotonic()), *limit.flush()])

    def _say(self, lines: Sequence[str]) -> None:
        self._tail = [*self._tail, *lines][-_TAIL_LINES:]
        for line in lines:
            self._host.say(self._story.number, line)

    def _driver_env(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        kept.update({name: value for name, value in os.environ.items() if name.startswith("RAY_AUTH_")})
        return {**kept, "RAY_ADDRESS": self._gcs_address, "PYTHONUNBUFFERED": "1"}

    def _job(self) -> Mapping[str, Any]:
        order = self._bind.order
        resources = resources_of(order.spec)
        budgets = order.budgets
        return {
            "leader": self._leader,
            "name": f"{order.run_id}-{order.attempt}",
            "storage": f"{order.checkpoint_root.rstrip('/')}/ray_train",
            "workers": self._bind.world_size,
            "resources": {
                "CPU": resources.get("cpu", 1),
                "GPU": resources.get("gpu") or 0,
                "memory": resources.get("memory") or 0,
            },
            "placement": "SPREAD" if resources.get("placement") == "spread" else "PACK",
            "max_failures": budgets.application + budgets.infrastructure,
            "bundle": order.bundle is not None,
            "accelerator_env": accelerator_env(order.spec),
            "env": {**(order.spec.get("env") or {}), **order.secrets},
        }

    async def _keep_deadline(self) -> None:
        if self._bind.order.remaining_s is not None:
            await asyncio.sleep(self._bind.order.remaining_s)
            self.stop(deadline_of(self._bind.order))

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._look()

    def _look(self) -> None:
        now_ns = time.monotonic_ns()
        self._story.ledger = add(account.clock.at(now_ns) for account in self._accounts.values())
        self._story.look([account.view(now_ns) for account in self._accounts.values()])

    # ---- failures -------------------------------------------------------------------------------------------------

    def _tell_restart(self) -> None:
        failure, spent = self._failure("Ray Train has started a new worker group"), self._story.spent
        booked = replace(spent, infrastructure=spent.infrastructure + 1)
        reason = Reason(ReasonCode.RESTARTING_IN_PLACE, failure.message)
        self._story.failed(failure, reason, booked, time.monotonic_ns(), restarting=True)

    def _give_up(self, code: int) -> None:
        failure = self._failure(f"Ray Train gave up (exit code {code})")
        reason = Reason(ReasonCode.BUDGET_SPENT, failure.message)
        if self._joined:
            self._story.failed(failure, reason, self._story.spent, time.monotonic_ns(), restarting=False)
        self._story.end("failed", reason, failure=failure)

    def _failure(self, what: str) -> Failure:
        told = [
            (rank, each.failed) for rank, each in self._accounts.items() if each.failed and not each.failed.secondary
        ]
        if not told:
            last = f": {self._tail[-1]}" if self._tail else ""
            return Failure(FailureKind.KILLED, f"{what}; no rank said why{last}", traceback="\n".join(self._tail))
        rank, failed = told[0]
        message = f"{what}: rank {rank} failed: {failed.message}"
        return Failure(FailureKind.APPLICATION, message, rank=rank, step=failed.step, traceback=failed.traceback)


def uses_ray_train(spec: Mapping[str, Any]) -> bool:
    return spec.get("launcher") == LAUNCHER
