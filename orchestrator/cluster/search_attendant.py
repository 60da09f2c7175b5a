"""The agent's part in the life of a sweep: keep its driver alive, pass on what it says.

A sweep's attempt holds no gang. Its truth is in the server's records of its trials: so a driver that ends unasked, or an
agent that comes back, costs nothing but the time to start another driver.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

import ray

from orchestrator.cluster.attendant import Surroundings
from orchestrator.cluster.attending import Attending
from orchestrator.cluster.search_line import Address, DriverOrder
from orchestrator.cluster.search_log import DriverLog
from orchestrator.core.ledger import Ledger
from orchestrator.core.observations import (
    AttemptEnded,
    FirstStep,
    Happening,
    IncarnationFailed,
    Observation,
    Placed,
    Progress,
)
from orchestrator.core.orders import AttemptOrder
from orchestrator.core.runs import Failure, FailureKind, Reason, ReasonCode, Result, Spent

log = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 15.0
STEADY_AFTER_S = 60.0
GIVE_UP_AFTER = 8  # ends of the driver in a row, none of which lived for long


class SearchAttendant(Attending):
    """Of a sweep's driver."""

    def __init__(self, order: AttemptOrder, around: Surroundings, server: str, ca_cert: Path | None) -> None:
        super().__init__(order)
        self._line, self._server, self._ca_cert = around.line, server, ca_cert
        self._starts = 0  # of the driver, by this agent
        self._changed = asyncio.Event()
        self._said = DriverLog(order, around)
        self._task = asyncio.create_task(self._run(), name=f"sweep {order.run_id}/{order.attempt}")

    def update(self, order: AttemptOrder) -> None:
        self.order = order
        self._changed.set()
        self._changed = asyncio.Event()

    def acknowledge(self, seq: int) -> None:
        """Nothing that a sweep tells has a number."""
        if self._unacknowledged:
            self._unacknowledged.pop(0)

    async def dismiss(self) -> None:
        """The driver goes, and its lines are sent. Trials are orders of their own."""
        await self._end()
        await self._said.settle()

    async def leave(self) -> None:
        """The driver goes: the next agent starts another."""
        await self._end()
        self._said.close()

    async def _end(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        try:
            await self._keep()
        except asyncio.CancelledError:
            raise
        except Exception as error:
            log.exception("attending sweep %s/%d failed", *self.key)
            self._fail(f"the agent could not attend it: {error}")

    async def _keep(self) -> None:
        """Start drivers until one has said how the sweep ended, or somebody wants it to end."""
        if not self.order.placed:
            self._tell(Placed(self.order.shares, 0.0))
        pause_s, quick = FIRST_PAUSE_S, 0
        while not self._over_without_a_driver():
            began_s = time.monotonic()
            ended = await self._one_driver()
            if ended is not None:
                self._conclude(ended)
                return
            if self._over_without_a_driver():
                break
            steady = time.monotonic() - began_s > STEADY_AFTER_S
            pause_s, quick = (FIRST_PAUSE_S, 0) if steady else (min(LONGEST_PAUSE_S, pause_s * 2), quick + 1)
            words = self._said.last_words()
            if quick >= GIVE_UP_AFTER:
                self._fail(f"the sweep's driver ended {quick} times in a row, the last time so: {words}")
                return
            self._tell(_restarted(self._starts, words))
            await asyncio.sleep(pause_s)
        stop = self.order.stop
        assert stop is not None, "only an order ends a sweep without its driver"
        outcome, code = _STOPS[stop.kind]
        self._tell(_end(outcome, Reason(code, stop.message)))

    def _over_without_a_driver(self) -> bool:
        """To finish takes a driver, which knows the best; to be cancelled or moved takes none."""
        return self.order.stop is not None and self.order.stop.kind != "finish"

    async def _one_driver(self) -> dict[str, Any] | None:
        """The driver's last word; None where it ended without one, or an order made it end."""
        self._starts += 1
        driver = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "orchestrator.cluster.search_driver",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=2**24,
        )
        assert driver.stdin is not None
        driver.stdin.write(self._order_of_driver().encode() + b"\n")
        hearing = asyncio.create_task(self._hear(driver))
        noting = asyncio.create_task(self._note(driver))
        stopping = asyncio.create_task(self._pass_stop_on(driver))
        try:
            return await hearing
        finally:
            for task in (hearing, stopping):
                task.cancel()
            with contextlib.suppress(ProcessLookupError):
                driver.kill()
            await driver.wait()
            await asyncio.gather(noting, return_exceptions=True)

    def _order_of_driver(self) -> str:
        order = self.order
        address = Address(
            server=self._server,
            token=order.driver_token,
            ca_cert=str(self._ca_cert) if self._ca_cert is not None else None,
            project=order.project,
            sweep=order.run_id,
            attempt=order.attempt,
        )
        gcs_address = ray.get_runtime_context().gcs_address
        node_ip = str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]
        return DriverOrder(address, order.spec, gcs_address, node_ip).to_json()

    async def _hear(self, driver: asyncio.subprocess.Process) -> dict[str, Any] | None:
        assert driver.stdout is not None
        first = True
        async for text in driver.stdout:
            told = json.loads(text)
            if "ended" in told:
                ended: dict[str, Any] = told["ended"]
                return ended
            if first:
                self._tell(FirstStep(self._starts, 0))
                first = False
            self._line.progress(self._progress(told["progress"]))
        return None

    async def _note(self, driver: asyncio.subprocess.Process) -> None:
        assert driver.stderr is not None
        async for raw in driver.stderr:
            self._said.add(raw.decode(errors="replace").rstrip(), self._starts)

    async def _pass_stop_on(self, driver: asyncio.subprocess.Process) -> None:
        while self.order.stop is None:
            await self._changed.wait()
        if self._over_without_a_driver():
            with contextlib.suppress(ProcessLookupError):
                driver.kill()
            return
        assert driver.stdin is not None
        with contextlib.suppress(ConnectionError):
            driver.stdin.write(json.dumps({"stop": self.order.stop.message}).encode() + b"\n")
            await driver.stdin.drain()

    def _progress(self, told: dict[str, Any]) -> Progress:
        return Progress(
            run_id=self.order.run_id,
            attempt=self.order.attempt,
            incarnation=self._starts,
            phase="searching",
            at=time.time(),
            step=told["ended"],
            total_steps=told["wanted"],
            metrics={} if told["best"] is None else {"best": told["best"]},
        )

    def _conclude(self, ended: dict[str, Any]) -> None:
        if ended["failed"]:
            self._fail(ended["message"])
            return
        result = Result(ended["trials"], ended["metrics"], ended["checkpoint"])
        reason = Reason(ReasonCode.COMPLETED, ended["message"])
        self._tell(_end("succeeded", reason, result=result, facts={"sweep": ended["found"]}))

    def _fail(self, message: str) -> None:
        reason = Reason(ReasonCode.NOT_RETRIABLE, message)
        self._tell(_end("failed", reason, failure=Failure(FailureKind.APPLICATION, message)))

    def _tell(self, what: Happening) -> None:
        """Without a number: each is harmless when it is said again."""
        observation = Observation(*self.key, 0, time.time(), what)
        self._unacknowledged.append(observation)
        self._line.observe(observation)


_STOPS: dict[str, tuple[Any, ReasonCode]] = {
    "cancel": ("cancelled", ReasonCode.CANCELLED_BY_USER),
    "preempt": ("preempted", ReasonCode.PREEMPTED),
    "deadline": ("deadline", ReasonCode.DEADLINE),
}


def _restarted(start: int, words: str) -> IncarnationFailed:
    failure = Failure(FailureKind.KILLED, f"the sweep's driver ended; its trials go on. Its last words: {words}")
    reason = Reason(ReasonCode.RESTARTING_IN_PLACE, "another driver is started")
    return IncarnationFailed(start, failure, True, reason, Spent(), 0)


def _end(outcome: Any, reason: Reason, **more: Any) -> AttemptEnded:
    return AttemptEnded(outcome, reason, Spent(), 0, Ledger(), **more)
