"""The coordinator of a gang: it lives beside rank 0 and leads one attempt from its placement to its end.

It restarts the ranks in place within the budget that the server granted, keeps the deadlines, obeys stop orders, and
writes everything into an outbox, so that nothing depends on the agent or the server being there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from typing import assert_never

from orchestrator.cluster.fencing import FENCE_S
from orchestrator.cluster.gang_host import GangHost
from orchestrator.cluster.gang_messages import HostGone, HostSnapshot, StartFailed
from orchestrator.cluster.gang_story import GangStory
from orchestrator.cluster.gang_watch import (
    Broken,
    Finished,
    GangIncarnation,
    GangState,
    IncarnationEnd,
    Limits,
    Lost,
    Stopped,
)
from orchestrator.core import failure as failures
from orchestrator.core.ledger import add
from orchestrator.core.observations import Placed
from orchestrator.core.orders import AttemptOrder
from orchestrator.core.runs import Failure, FailureKind, Inspection, Reason, ReasonCode, StopOrder

log = logging.getLogger(__name__)

START_TIMEOUT_S = 120.0
HANG_TIMEOUT_S = 600.0
STOP_GRACE_S = 30.0


class Coordinator:
    def __init__(self, order: AttemptOrder, hosts: Sequence[GangHost], story: GangStory, placed: Placed) -> None:
        self._order, self._hosts, self._story, self._placed = order, hosts, story, placed
        self._state = GangState()
        self._limits = limits_of(order)
        self._running: GangIncarnation | None = None
        self._stop: StopOrder | None = order.stop
        self._stop_asked = asyncio.Event()
        self._inspected: set[str] = set()  # ids
        self._inspecting: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Live the attempt. Never raises: an error of our own ends the attempt as lost, so that the run goes on."""
        deadline = asyncio.create_task(self._keep_deadline())
        self._story.placed(self._placed)
        try:
            await self._live()
        except Exception as error:
            log.exception("the coordinator of %s/%d failed", self._order.run_id, self._order.attempt)
            failure = Failure(FailureKind.HOST_LOST, f"the gang's coordinator failed: {type(error).__name__}: {error}")
            reason = Reason(ReasonCode.RESCHEDULED, failure.message)
            self._story.end("lost", reason, failure=failure, fence_s=FENCE_S)  # who knows what lives where
        finally:
            for task in (deadline, *self._inspecting):
                task.cancel()

    def inspect(self, inspections: Sequence[Inspection]) -> None:
        """Have ranks looked at: each inspection once, however often it is ordered. The answers are observations."""
        for each in inspections:
            if each.id not in self._inspected:
                self._inspected.add(each.id)
                task = asyncio.create_task(self._inspect(each))
                self._inspecting.add(task)
                task.add_done_callback(self._inspecting.discard)

    async def _inspect(self, inspection: Inspection) -> None:
        """Of a host that is gone nobody hears: that ends the attempt, and whoever asked is told of that."""
        await asyncio.gather(*(_inspect_on(host, inspection) for host in self._hosts))

    def stop(self, order: StopOrder) -> None:
        """Idempotent; the first order counts."""
        if self._stop is None:
            self._stop = order
        self._stop_asked.set()
        if self._running is not None:
            self._running.stop(self._stop)

    async def _live(self) -> None:
        while True:
            if self._stop is not None:
                return self._story.stopped(self._stop)
            end = await self._incarnation()
            self._story.ledger = add(snapshot.ledger for snapshot in self._state.snapshots)
            match end:
                case Finished(result=result):
                    return self._story.succeeded(result)
                case Stopped(stop=stop):
                    return self._story.stopped(stop)
                case Lost(failure=failure, noticed_ns=noticed_ns, fence_s=fence_s):
                    reason = Reason(ReasonCode.RESCHEDULED, failure.message)
                    self._story.failed(failure, reason, self._story.spent, noticed_ns, restarting=False)
                    return self._story.end("lost", reason, failure=failure, fence_s=fence_s)
                case Broken():
                    if not await self._restarts(end):
                        return None
                case _:
                    assert_never(end)

    async def _incarnation(self) -> IncarnationEnd:
        story = self._story
        story.begin_incarnation()
        self._running = GangIncarnation(
            story.number,
            self._hosts,
            self._state,
            self._limits,
            world_size=sum(share.ranks for share in self._order.shares),
            started=story.started,
            said=story.said,
            ticked=self._ticked,
            inspected=story.inspected,
        )
        if self._stop is not None:
            self._running.stop(self._stop)
        try:
            return await self._running.live(story.admitted, story.furthest_step, story.sealed_step)
        finally:
            self._running = None

    def _ticked(self, snapshots: tuple[HostSnapshot, ...]) -> None:
        self._story.ledger = add(snapshot.ledger for snapshot in snapshots)
        self._story.look([view for snapshot in snapshots for view in snapshot.ranks])

    async def _restarts(self, broken: Broken) -> bool:
        """Book the failure; False when that was the end of the attempt."""
        story, failure = self._story, broken.failure
        verdict = failures.decide(
            failure,
            spent=story.spent,
            budgets=self._order.budgets,
            previous=story.previous_failure,
            sealed_since_previous=story.sealed_since_failure,
        )
        if isinstance(verdict, failures.GiveUp):
            story.failed(failure, verdict.reason, story.spent, broken.noticed_ns, restarting=False)
            story.end("failed", verdict.reason, failure=failure)
            return False
        story.failed(failure, verdict.reason, verdict.spent, broken.noticed_ns, restarting=True)
        if verdict.delay_s:
            await _wait(self._stop_asked, verdict.delay_s)
        return True

    async def _keep_deadline(self) -> None:
        if self._order.remaining_s is None:
            return
        await asyncio.sleep(self._order.remaining_s)
        self.stop(deadline_of(self._order))


def deadline_of(order: AttemptOrder) -> StopOrder:
    """What an attempt is told once its `remaining_s` have passed."""
    return StopOrder("deadline", "evertrain", order.deadline_message)


def limits_of(order: AttemptOrder) -> Limits:
    spec = order.spec
    return Limits(
        start_s=float(spec.get("start_timeout") or START_TIMEOUT_S),
        hang_s=float(spec.get("hang_timeout") or HANG_TIMEOUT_S),
        stop_grace_s=STOP_GRACE_S,
        hang_before_steps=not spec.get("script"),
        must_tell_result=not spec.get("script"),
    )


async def _inspect_on(host: GangHost, inspection: Inspection) -> None:
    with contextlib.suppress(HostGone, StartFailed):
        await host.inspect(inspection)


async def _wait(event: asyncio.Event, timeout_s: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), timeout_s)
    except TimeoutError:
        return
