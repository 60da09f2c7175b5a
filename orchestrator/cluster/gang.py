"""The coordinator of a gang: it lives beside rank 0 and leads one attempt from its placement to its end.

It restarts the ranks in place within the budget that the server granted, keeps the deadlines, obeys stop orders, and
writes everything into an outbox, so that nothing depends on the agent or the server being there.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, assert_never

from orchestrator.cluster.gang_host import GangHost
from orchestrator.cluster.gang_messages import HostSnapshot
from orchestrator.cluster.gang_watch import Broken, Finished, GangIncarnation, GangState, Limits, Lost, Stopped
from orchestrator.cluster.outbox import Outbox
from orchestrator.core import failure as failures
from orchestrator.core import observations as seen
from orchestrator.core.ledger import Ledger, add
from orchestrator.core.orders import AttemptOrder
from orchestrator.core.runs import Failure, FailureKind, Reason, ReasonCode, Result, StopOrder
from trainers import contract

log = logging.getLogger(__name__)

START_TIMEOUT_S = 120.0
HANG_TIMEOUT_S = 600.0
STOP_GRACE_S = 30.0

Outcome = Literal["succeeded", "failed", "cancelled", "preempted", "deadline", "lost"]

STOP_ENDS: Mapping[str, tuple[Outcome, ReasonCode]] = {
    "cancel": ("cancelled", ReasonCode.CANCELLED_BY_USER),
    "preempt": ("preempted", ReasonCode.PREEMPTED),
    "deadline": ("deadline", ReasonCode.DEADLINE),
}
"""How an attempt ends that was ordered to stop, by the order's kind."""


@dataclass(frozen=True)
class Report:
    """What a coordinator tells the agent in one answer."""

    observations: tuple[seen.Observation, ...]
    progress: seen.Progress | None
    ended: bool


class Coordinator:
    def __init__(self, order: AttemptOrder, hosts: Sequence[GangHost], outbox: Outbox, placed: seen.Placed) -> None:
        self._order, self._hosts, self._outbox, self._placed = order, hosts, outbox, placed
        self._state = GangState()
        self._limits = limits_of(order)
        self._running: GangIncarnation | None = None
        self._stop: StopOrder | None = order.stop
        self._number = max((each.incarnation for each in order.admitted if each.attempt == order.attempt), default=0)
        self._admitted = [contract.Admitted(each.attempt, each.incarnation) for each in order.admitted]
        self._spent = order.spent
        self._previous = order.previous_failure
        self._sealed = order.sealed_since_failure
        self._furthest_step = order.furthest_step
        self._failed_ns: int | None = None
        self._stepped = False
        self._metrics: dict[str, float] = {}
        self._progress: seen.Progress | None = None
        self._ended = False
        self._stop_asked = asyncio.Event()

    async def run(self) -> None:
        """Live the attempt. Never raises: an error of our own ends the attempt as lost, so that the run goes on."""
        deadline = asyncio.create_task(self._keep_deadline())
        self._outbox.put(self._placed)
        try:
            ended = await self._live()
        except Exception as error:
            log.exception("the coordinator of %s/%d failed", self._order.run_id, self._order.attempt)
            failure = Failure(FailureKind.HOST_LOST, f"the gang's coordinator failed: {type(error).__name__}: {error}")
            reason = Reason(ReasonCode.RESCHEDULED, failure.message)
            ended = self._attempt_ended("lost", reason, failure=failure)
        finally:
            deadline.cancel()
        self._ended = True
        self._outbox.put(ended)

    def stop(self, order: StopOrder) -> None:
        """Idempotent; the first order counts."""
        if self._stop is None:
            self._stop = order
        self._stop_asked.set()
        if self._running is not None:
            self._running.stop(self._stop)

    async def report(self, after: int, acknowledged: int, timeout_s: float) -> Report:
        """Observations above `after`; waits for the first. Those up to `acknowledged` are the server's now."""
        self._outbox.acknowledge(acknowledged)
        observations = await self._outbox.wait_after(after, 0.0 if self._ended else timeout_s)
        progress, self._progress = self._progress, None
        return Report(tuple(observations), progress, self._ended)

    @property
    def last_seq(self) -> int:
        return self._outbox.last

    # ---- the life of an attempt -----------------------------------------------------------------------------------

    async def _live(self) -> seen.AttemptEnded:
        while True:
            if self._stop is not None:
                return self._stopped(self._stop)
            end = await self._incarnation()
            match end:
                case Finished(result=result):
                    return self._succeeded(result)
                case Stopped(stop=stop):
                    return self._stopped(stop)
                case Lost(failure=failure, fence_s=fence_s):
                    reason = Reason(ReasonCode.RESCHEDULED, failure.message)
                    self._tell_failed(failure, reason, restarting=False)
                    return self._attempt_ended("lost", reason, failure=failure, fence_s=fence_s)
                case Broken(failure=failure, noticed_ns=noticed_ns):
                    gave_up = await self._decide(failure, noticed_ns)
                    if gave_up is not None:
                        return gave_up
                case _:
                    assert_never(end)

    async def _incarnation(self) -> Finished | Broken | Stopped | Lost:
        self._number += 1
        self._stepped = False
        self._admitted.append(contract.Admitted(self._order.attempt, self._number))
        world_size = sum(share.ranks for share in self._order.shares)
        self._running = GangIncarnation(
            self._number,
            self._hosts,
            self._state,
            self._limits,
            world_size=world_size,
            started=lambda pids: self._outbox.put(seen.IncarnationStarted(self._number, world_size, pids)),
            said=self._said,
            ticked=self._ticked,
        )
        if self._stop is not None:
            self._running.stop(self._stop)
        try:
            return await self._running.live(tuple(self._admitted), self._furthest_step)
        finally:
            self._running = None

    async def _decide(self, failure: Failure, noticed_ns: int) -> seen.AttemptEnded | None:
        """Book the failure; None when the next incarnation shall start now."""
        failure = replace(failure, step=max(failure.step, 0))
        self._furthest_step = max(self._furthest_step, failure.step)
        verdict = failures.decide(
            failure,
            spent=self._spent,
            budgets=self._order.budgets,
            previous=self._previous,
            sealed_since_previous=self._sealed,
        )
        self._previous, self._sealed, self._failed_ns = failure, False, noticed_ns
        if isinstance(verdict, failures.GiveUp):
            self._tell_failed(failure, verdict.reason, restarting=False)
            return self._attempt_ended("failed", verdict.reason, failure=failure)
        self._spent = verdict.spent
        self._tell_failed(failure, verdict.reason, restarting=True)
        if verdict.delay_s:
            await _wait(self._stop_asked, verdict.delay_s)
        return None

    async def _keep_deadline(self) -> None:
        if self._order.remaining_s is None:
            return
        await asyncio.sleep(self._order.remaining_s)
        self.stop(StopOrder("deadline", "evertrain", "max_duration has passed"))

    # ---- what is told ---------------------------------------------------------------------------------------------

    def _said(self, rank: int, message: contract.Message) -> None:
        number = self._number
        match message:
            case contract.Step(step=step):
                self._furthest_step = max(self._furthest_step, step)
                if not self._stepped:
                    self._stepped = True
                    self._outbox.put(seen.FirstStep(number, step, self._recovery_s()))
            case contract.Restored(step=step, checkpoint=checkpoint, skipped=skipped):
                words = tuple(f"{each.checkpoint}: {each.why}" for each in skipped)
                self._outbox.put(seen.RanksRestored(number, step, checkpoint, words))
            case contract.Sealed(step=step):
                self._sealed = True
                self._furthest_step = max(self._furthest_step, step)
                self._outbox.put(_sealed(number, message))
            case contract.EpochEnded(epoch=epoch, step=step, metrics=metrics) if rank == 0:
                self._metrics = dict(metrics)
                self._furthest_step = max(self._furthest_step, step)
                self._outbox.put(seen.EpochEnded(number, epoch, step, metrics))
            case contract.Failed(step=step):
                self._furthest_step = max(self._furthest_step, step)
            case _:
                pass

    def _ticked(self, snapshots: tuple[HostSnapshot, ...]) -> None:
        ranks = [view for snapshot in snapshots for view in snapshot.ranks]
        steps = [view.step for view in ranks if view.step is not None]
        newest = max(steps, key=lambda step: step.step, default=contract.Step(step=0, epoch=0, at_ns=0))
        self._furthest_step = max(self._furthest_step, newest.step)
        leading = min(ranks, key=lambda view: (not view.alive, view.rank))
        self._progress = seen.Progress(
            run_id=self._order.run_id,
            attempt=self._order.attempt,
            incarnation=self._number,
            phase=leading.phase,
            at=time.time(),
            step=newest.step,
            epoch=newest.epoch,
            total_steps=newest.total_steps,
            total_epochs=newest.total_epochs,
            loss=newest.loss,
            learning_rate=newest.learning_rate,
            samples=newest.samples,
            samples_per_s=newest.samples_per_s,
            step_s=newest.step_s,
            metrics=self._metrics,
            ledger=self._ledger(),
            silent_s=max((view.silent_s for view in ranks if view.alive), default=0.0),
        )
        self._outbox.wake()

    def _recovery_s(self) -> float | None:
        failed_ns, self._failed_ns = self._failed_ns, None
        return None if failed_ns is None else (time.monotonic_ns() - failed_ns) / 1e9

    def _ledger(self) -> Ledger:
        return add(snapshot.ledger for snapshot in self._state.snapshots)

    def _tell_failed(self, failure: Failure, reason: Reason, *, restarting: bool) -> None:
        self._outbox.put(
            seen.IncarnationFailed(self._number, failure, restarting, reason, self._spent, self._furthest_step)
        )

    def _succeeded(self, done: contract.Done | None) -> seen.AttemptEnded:
        step = done.step if done else self._furthest_step
        result = Result(step, done.metrics, done.checkpoint, done.stopped_early) if done else Result(step, {}, None)
        why = f", stopped early: {result.stopped_early}" if result.stopped_early else ""
        reason = Reason(ReasonCode.COMPLETED, f"finished at step {step}{why}")
        return self._attempt_ended("succeeded", reason, result=result)

    def _stopped(self, stop: StopOrder) -> seen.AttemptEnded:
        outcome, code = STOP_ENDS[stop.kind]
        return self._attempt_ended(outcome, Reason(code, stop.message))

    def _attempt_ended(self, outcome: Outcome, reason: Reason, **rest: Any) -> seen.AttemptEnded:
        return seen.AttemptEnded(
            outcome=outcome,
            reason=reason,
            spent=self._spent,
            furthest_step=self._furthest_step,
            ledger=self._ledger(),
            **rest,
        )


def limits_of(order: AttemptOrder) -> Limits:
    spec = order.spec
    return Limits(
        start_s=float(spec.get("start_timeout") or START_TIMEOUT_S),
        hang_s=float(spec.get("hang_timeout") or HANG_TIMEOUT_S),
        stop_grace_s=STOP_GRACE_S,
        hang_before_steps=not spec.get("script"),
    )


def _sealed(number: int, message: contract.Sealed) -> seen.CheckpointSealed:
    return seen.CheckpointSealed(
        incarnation=number,
        checkpoint=message.checkpoint,
        step=message.step,
        size_bytes=message.size_bytes,
        stall_s=message.stall_s,
        seconds=message.seconds,
        metrics=message.metrics,
        best=message.best,
    )


async def _wait(event: asyncio.Event, timeout_s: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), timeout_s)
    except TimeoutError:
        return
