"""The agent's part in the life of one attempt: place its gang, pass on what the coordinator says, clear up after it.

It holds no truth. An agent that dies and comes back makes new attendants, which adopt the gangs that live.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from ray.actor import ActorHandle
from ray.exceptions import RayActorError

from orchestrator.cluster.actors import fence_of, insist, short
from orchestrator.cluster.attending import Attending
from orchestrator.cluster.fencing import FENCE_S
from orchestrator.cluster.gang import deadline_of
from orchestrator.cluster.gang_messages import Superseded
from orchestrator.cluster.gang_story import STOP_ENDS, Report
from orchestrator.cluster.keeper import Leftover
from orchestrator.cluster.leftovers import Leftovers
from orchestrator.cluster.log_shipping import BATCH_LINES, LogShipper
from orchestrator.cluster.placing import Placer, Unplaced
from orchestrator.cluster.pool import Pool
from orchestrator.cluster.preparing import NotPrepared, Preparer
from orchestrator.cluster.ray_cluster import Gang, RayCluster
from orchestrator.cluster.ray_train import uses_ray_train
from orchestrator.core.failure import host_lost
from orchestrator.core.ledger import Ledger
from orchestrator.core.observations import (
    AttemptEnded,
    FirstStep,
    Happening,
    Observation,
    Progress,
    Unplaceable,
    Waiting,
)
from orchestrator.core.orders import AttemptOrder
from orchestrator.core.records import LogLine
from orchestrator.core.runs import Failure, FailureKind, Inspection, Reason, ReasonCode, StopOrder
from orchestrator.spec import prepares_data

log = logging.getLogger(__name__)

REPORT_POLL_S = 20.0
LOG_POLL_S = 5.0
LOG_SETTLE_S = 30.0
LOST_SETTLE_S = 2.0


class Line(Protocol):
    """The way to the server."""

    def observe(self, observation: Observation) -> None: ...

    def progress(self, progress: Progress) -> None: ...

    async def bundle(self, sha256: str) -> bytes: ...


@dataclass(frozen=True)
class Surroundings:
    """What all attendants of an agent share."""

    epoch: int
    cluster: RayCluster
    pool: Pool
    preparer: Preparer
    placer: Placer
    line: Line
    shipper: LogShipper
    leftovers: Leftovers


class Attendant(Attending):
    """Of a gang; `gang` is a living one to adopt."""

    def __init__(self, order: AttemptOrder, around: Surroundings, gang: Gang | None) -> None:
        super().__init__(order)
        self._around = around
        self._gang = gang
        self._last_seq = 0
        self._acknowledged = 0
        self._stepped = gang is not None  # or so it is taken
        self._over = False  # the coordinator has said so itself
        self._lost_host = False  # ... and that a host of the gang is gone
        self._begun = gang is not None  # there may be lines of it on its nodes
        self._preparing = False  # a node may be preparing its data
        self._ordered_s = time.monotonic()  # when `order` came
        self._ended = asyncio.Event()  # ... and the server has every word of it
        self._changed = asyncio.Event()
        self._ledger = Ledger()  # as last heard of
        self._tasks: list[asyncio.Task[None]] = []
        self._task = asyncio.create_task(self._run(), name=f"attendant {order.run_id}/{order.attempt}")

    @property
    def host_names(self) -> tuple[str, ...]:
        return tuple(self._gang.host_name(index) for index in range(len(self._gang.hosts))) if self._gang else ()

    @property
    def starting(self) -> bool:
        return not (self._stepped or self._over or self._task.done())

    @property
    def lends(self) -> bool:
        """Ray Train's placement group holds them."""
        return self._gang is not None and uses_ray_train(self.order.spec)

    def update(self, order: AttemptOrder) -> None:
        self.order, self._ordered_s = order, time.monotonic()
        self._wake()

    def acknowledge(self, seq: int) -> None:
        if seq == 0:
            bare = next((each for each in self._unacknowledged if each.seq == 0), None)
            if bare is not None:
                self._unacknowledged.remove(bare)
        else:
            self._acknowledged = max(self._acknowledged, seq)
            self._unacknowledged = [each for each in self._unacknowledged if each.seq == 0 or each.seq > seq]
        self._wake()

    async def dismiss(self) -> None:
        """The server wants nothing of the attempt any more: whatever of it lives, ends; its lines are sent all the same.

        One that is over by its own word is cleared up as ever, so that its gang is pooled. Where the server does not
        take the lines, the gang is not held for that: they are on its nodes' disks. Returns once the server has them.
        """
        if self._over:
            self.acknowledge(self._last_seq)  # it could not want nothing without having heard the end
            await asyncio.wait({self._task}, timeout=LOG_SETTLE_S)
        await self._cancel()
        gang, self._gang = self._gang, None
        if gang is not None:
            await self._discard(gang)
        if self._begun:
            await self._around.leftovers.ship_all(self.key, self._node_ids)
        if self._preparing:
            await self._around.preparer.forget(self.key, self._node_ids)
        self._around.shipper.forget(*self.key)

    @property
    def _node_ids(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(share.node_id for share in self.order.shares))

    async def leave(self) -> None:
        await self._cancel()

    # ---- the life of an attempt -----------------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            if self._gang is None:
                self._gang = await self._find_or_place()
            if self._gang is not None:
                await self._attend(self._gang)
        except Superseded as error:
            log.error("%s/%d: %s", *self.key, error)
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("attending %s/%d failed: its gang is given up", *self.key)
            await self._lose("the agent could not attend it (see its log)", fence_s=FENCE_S)

    async def _find_or_place(self) -> Gang | None:
        """None when the attempt is over: what had to be told is told."""
        waited_for = not self.order.placed and self._around.pool.waits_for(self.key)  # then nothing of it ever began
        left = [] if waited_for else await self._around.leftovers.of(self.key, self._node_ids)
        self._begun = self.order.placed or bool(left)
        if self._begun:
            await self._tell_lost("its coordinator is gone", left)
            return None
        try:
            gang = await self._place() if await self._prepare() else None
        except Unplaced as error:
            self._tell(Unplaceable(error.reason, error.final))
            return None
        except NotPrepared as error:
            self._tell(self._not_prepared(error.failure))
            return None
        self._begun = gang is not None
        if gang is None:
            self._tell(self._never_started(self.order.stop or deadline_of(self.order)))
            return None
        return gang

    async def _place(self) -> Gang | None:
        """None when it was stopped before. Raises Unplaced."""
        return await self._around.placer.place(
            self._order_now(), lambda: self.order.stop is not None, lambda reason: self._tell(Waiting(reason))
        )

    async def _prepare(self) -> bool:
        """Have its data ready, for which it holds nothing yet. False when it was stopped, or its time is over, before.

        Raises NotPrepared, Unplaced and Superseded.
        """
        if not prepares_data(self.order.spec):
            return True
        self._preparing = True
        preparer, line = self._around.preparer, self._around.line
        work = asyncio.create_task(
            preparer.prepare(self.order, lambda reason: self._tell(Waiting(reason)), line.progress)
        )
        stopping = asyncio.create_task(self._stop_ordered())
        try:
            await asyncio.wait({work, stopping}, timeout=self.order.remaining_s, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                return False
            work.result()
            return True
        finally:
            stopping.cancel()
            work.cancel()
            await asyncio.gather(work, stopping, return_exceptions=True)

    async def _stop_ordered(self) -> None:
        while self.order.stop is None:
            await self._changed.wait()

    def _order_now(self) -> AttemptOrder:
        """The order with what is left of its time by now."""
        if self.order.remaining_s is None:
            return self.order
        passed_s = time.monotonic() - self._ordered_s
        return replace(self.order, remaining_s=max(0.0, self.order.remaining_s - passed_s))

    async def _attend(self, gang: Gang) -> None:
        tasks = [asyncio.create_task(self._ship(gang, index)) for index in range(len(gang.hosts))]
        stopping = asyncio.create_task(self._pass_stop_on(gang))
        inspecting = asyncio.create_task(self._pass_inspections_on(gang))
        self._tasks = [*tasks, stopping, inspecting]
        try:
            await self._relay(gang)
        except RayActorError as error:
            await self._lose(f"the host of its coordinator is gone: {short(error)}")
            return
        self._ended.set()
        stopping.cancel()
        inspecting.cancel()
        if self._lost_host:
            # It may never answer; what it holds of the other nodes is needed for the next attempt.
            await asyncio.wait(tasks, timeout=LOST_SETTLE_S)
            for task in tasks:
                task.cancel()
            self._gang = None
            await self._discard(gang)
            return
        with self._around.pool.clearing_up(gang.shape):
            await asyncio.gather(*tasks)
            await self._give_back(gang)

    async def _relay(self, gang: Gang) -> None:
        """Returns once the attempt has ended and the server has every observation of it."""
        while True:
            report = await self._report(gang)
            for observation in report.observations:
                self._last_seq = observation.seq
                self._stepped = self._stepped or isinstance(observation.what, FirstStep)
                if isinstance(observation.what, AttemptEnded):
                    self._over, self._lost_host = True, observation.what.outcome == "lost"
                self._send(observation)
            if report.progress is not None:
                self._ledger = report.progress.ledger
                self._around.line.progress(report.progress)
            if report.ended and not report.observations:
                while self._acknowledged < self._last_seq:
                    await self._changed.wait()
                return

    async def _report(self, gang: Gang) -> Report:
        coordinator, epoch = gang.hosts[0], self._around.epoch
        report: Report = await insist(
            lambda: coordinator.report.remote(epoch, self._last_seq, self._acknowledged, REPORT_POLL_S),
            within_s=REPORT_POLL_S,
        )
        return report

    async def _pass_stop_on(self, gang: Gang) -> None:
        await self._stop_ordered()
        with contextlib.suppress(RayActorError):  # `_relay` notices by itself
            await insist(lambda: gang.hosts[0].order_stop.remote(self._around.epoch, self.order.stop))

    async def _pass_inspections_on(self, gang: Gang) -> None:
        """Also those that an agent before has passed on: the coordinator knows them."""
        passed: set[str] = set()
        while True:
            fresh = [each for each in self.order.inspections if each.id not in passed]
            if not fresh:
                await self._changed.wait()
                continue
            passed.update(each.id for each in fresh)
            with contextlib.suppress(RayActorError):  # `_relay` notices by itself
                await self._order_inspections(gang, fresh)

    async def _order_inspections(self, gang: Gang, inspections: Sequence[Inspection]) -> None:
        await insist(lambda: gang.hosts[0].order_inspections.remote(self._around.epoch, inspections))

    async def _ship(self, gang: Gang, index: int) -> None:
        """Ship the log lines of one host until the attempt has ended and the server has them all."""
        source = (*self.key, gang.host_name(index))
        shipper, host, epoch = self._around.shipper, gang.hosts[index], self._around.epoch
        while True:
            ended, sent = self._ended.is_set(), shipper.sent(source)
            asked = (epoch, sent, shipper.acknowledged(source), BATCH_LINES, 0.0 if ended else LOG_POLL_S)
            poll = self._lines(host, asked)
            try:
                lines: list[LogLine] | None = await poll if ended else await self._until_ended(poll)
            except RayActorError:
                await self._around.leftovers.ship_all(self.key, [gang.shares[index].node_id])
                return
            if lines:
                await shipper.ship(source, sent, lines)
            elif ended and await shipper.settle(source, sent, LOG_SETTLE_S):
                return

    async def _lines(self, host: ActorHandle[Any], asked: tuple[int, int, int, int, float]) -> list[LogLine]:
        lines: list[LogLine] = await insist(lambda: host.log_lines.remote(*asked), within_s=LOG_POLL_S)
        return lines

    async def _until_ended(self, poll: Awaitable[list[LogLine]]) -> list[LogLine] | None:
        """The answer of a long poll; None when the attempt ended before it came, for then nobody should wait for more."""
        answer = asyncio.ensure_future(poll)
        ended = asyncio.create_task(self._ended.wait())
        try:
            await asyncio.wait({answer, ended}, return_when=asyncio.FIRST_COMPLETED)
            return answer.result() if answer.done() else None
        finally:
            answer.cancel()
            ended.cancel()

    # ---- endings --------------------------------------------------------------------------------------------------

    async def _give_back(self, gang: Gang) -> None:
        """The gang is ready for another attempt, unless a host of it is in trouble."""
        self._gang = None
        self._around.shipper.forget(*self.key)
        try:
            await asyncio.gather(*(self._release(host) for host in gang.hosts))
        except Exception as error:
            log.warning("%s is not pooled: %s", gang.id, short(error))
            await self._discard(gang)
        else:
            self._begun = False  # its files are gone as well
            self._around.pool.put(gang)

    async def _release(self, host: ActorHandle[Any]) -> None:
        await insist(lambda: host.release.remote(self._around.epoch))

    async def _discard(self, gang: Gang) -> None:
        """End the gang's hosts, and their ranks by that, and free what they held."""
        await self._around.cluster.remove(gang.group, gang.hosts)

    async def _lose(self, why: str, fence_s: float = 0.0) -> None:
        """`fence_s`: for how long ranks may live on for all we know, whatever is known of the nodes."""
        for task in self._tasks:
            task.cancel()
        gang, self._gang = self._gang, None
        if gang is not None:
            await self._discard(gang)
        await self._tell_lost(why, await self._around.leftovers.of(self.key, self._node_ids), fence_s)

    async def _tell_lost(self, why: str, left: Sequence[Leftover], fence_s: float = 0.0) -> None:
        """Pass on what the dead left, then say that it is over, unless they could say so themselves."""
        observations = [each for leftover in left for each in leftover.observations]
        for observation in observations:
            self._send(observation)
        self._tasks = [asyncio.create_task(self._around.leftovers.ship(self.key, leftover.lines)) for leftover in left]
        if any(isinstance(each.what, AttemptEnded) for each in observations):
            return
        order = self.order
        if uses_ray_train(order.spec):
            fence_s = max(fence_s, FENCE_S)  # its workers hold no lease: Ray ends them once it has missed their driver
        fence_s = max([fence_s, *[await fence_of(share.node_id) for share in order.shares]])
        failure = host_lost(order.shares[0].host, why, order.furthest_step)
        reason = Reason(ReasonCode.RESCHEDULED, failure.message)
        self._tell(
            AttemptEnded(
                "lost", reason, order.spent, order.furthest_step, self._ledger, failure=failure, fence_s=fence_s
            )
        )

    def _not_prepared(self, failure: Failure) -> Happening:
        """What can never work ends the run; anything else is a failure like a rank's, within the run's budgets."""
        if failure.kind == FailureKind.CONFIG:
            return Unplaceable(Reason(ReasonCode.NOT_RETRIABLE, failure.message), True)
        order = self.order
        reason = Reason(ReasonCode.RESCHEDULED, failure.message)
        return AttemptEnded("lost", reason, order.spent, order.furthest_step, Ledger(), failure=failure)

    def _never_started(self, stop: StopOrder) -> AttemptEnded:
        outcome, code = STOP_ENDS[stop.kind]
        order = self.order
        return AttemptEnded(outcome, Reason(code, stop.message), order.spent, order.furthest_step, Ledger())

    # ---- small steps ----------------------------------------------------------------------------------------------

    def _tell(self, what: Happening) -> None:
        """In the agent's own name: without a number, so it must be harmless when it is said again."""
        if isinstance(what, Waiting):
            self._unacknowledged = [each for each in self._unacknowledged if not isinstance(each.what, Waiting)]
        self._send(Observation(*self.key, 0, time.time(), what))

    def _send(self, observation: Observation) -> None:
        self._unacknowledged.append(observation)
        self._around.line.observe(observation)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _cancel(self) -> None:
        tasks = [self._task, *self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
