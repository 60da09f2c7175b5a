"""What an attempt's ranks say, told as observations and progress: the same words whatever started the ranks."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from orchestrator.cluster.gang_messages import RankView
from orchestrator.cluster.outbox import Outbox
from orchestrator.core import observations as seen
from orchestrator.core.ledger import Ledger
from orchestrator.core.orders import AttemptOrder
from orchestrator.core.runs import Failure, Reason, ReasonCode, Result, Spent, StopOrder
from trainers import contract

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


class GangStory:
    """`number` is the present incarnation, 0 before the first one. `ledger` is kept up to date by the owner.

    `sealed_step` is the newest that was sealed; 0: earlier attempts sealed some, None: nothing was.
    """

    def __init__(self, order: AttemptOrder, outbox: Outbox) -> None:
        self._order, self._outbox = order, outbox
        self.number = max((each.incarnation for each in order.admitted if each.attempt == order.attempt), default=0)
        self.admitted = tuple(contract.Admitted(each.attempt, each.incarnation) for each in order.admitted)
        self.furthest_step = order.furthest_step
        self.sealed_step = 0 if order.sealed_before else None
        self.spent = order.spent
        self.previous_failure = order.previous_failure
        self.sealed_since_failure = order.sealed_since_failure
        self.ledger = Ledger()
        self._failed_ns: int | None = None
        self._stepped = False
        self._metrics: Mapping[str, float] = {}
        self._progress: seen.Progress | None = None
        self._ended = False

    # ---- in order of an attempt's life ----------------------------------------------------------------------------

    def placed(self, placed: seen.Placed) -> None:
        self._outbox.put(placed)

    def begin_incarnation(self) -> None:
        self.number += 1
        self._stepped = False
        self.admitted = (*self.admitted, contract.Admitted(self._order.attempt, self.number))

    def started(self, pids: tuple[int, ...]) -> None:
        """`pids` by rank."""
        self._outbox.put(seen.IncarnationStarted(self.number, len(pids), pids))

    def said(self, rank: int, message: contract.Message) -> None:
        """A rank's word. Steps after the first one may be left out."""
        match message:
            case contract.Step(step=step):
                self._reach(step)
                if not self._stepped:
                    self._stepped = True
                    self._outbox.put(seen.FirstStep(self.number, step, self._recovery_s()))
            case contract.Restored(step=step, checkpoint=checkpoint, skipped=skipped):
                words = tuple(f"{each.checkpoint}: {each.why}" for each in skipped)
                self._outbox.put(seen.RanksRestored(self.number, step, checkpoint, words))
            case contract.Sealed(step=step):
                self.sealed_since_failure = True
                self.sealed_step = max(self.sealed_step or 0, step)
                self._reach(step)
                self._outbox.put(_sealed(self.number, message))
            case contract.EpochEnded(epoch=epoch, step=step, metrics=metrics) if rank == 0:
                self._metrics = dict(metrics)
                self._reach(step)
                self._outbox.put(seen.EpochEnded(self.number, epoch, step, metrics))
            case contract.Failed(step=step):
                self._reach(step)
            case _:
                pass

    def inspected(self, what: seen.Inspected) -> None:
        """What was seen of a rank that somebody wanted to look at."""
        self._outbox.put(what)

    def look(self, ranks: Sequence[RankView]) -> None:
        """All ranks as they are now: becomes the next progress."""
        steps = [view.step for view in ranks if view.step is not None]
        newest = max(steps, key=lambda step: step.step, default=contract.Step(step=0, epoch=0, at_ns=0))
        self._reach(newest.step)
        leading = min(ranks, key=lambda view: (not view.alive, view.rank))
        self._progress = seen.Progress(
            run_id=self._order.run_id,
            attempt=self._order.attempt,
            incarnation=self.number,
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
            ledger=self.ledger,
            silent_s=max((view.silent_s for view in ranks if view.alive), default=0.0),
            ranks=tuple(_of_rank(view) for view in ranks if view.rank < self._order.told_ranks and view.alive),
        )
        self._outbox.wake()

    def failed(self, failure: Failure, reason: Reason, spent: Spent, noticed_ns: int, *, restarting: bool) -> None:
        """`spent` counts the restart that follows, where one does. `noticed_ns`: monotonic."""
        self._reach(failure.step)
        self.spent, self._failed_ns = spent, noticed_ns
        self.previous_failure, self.sealed_since_failure = failure, False
        self._outbox.put(
            seen.IncarnationFailed(self.number, failure, restarting, reason, self.spent, self.furthest_step)
        )

    def succeeded(self, done: contract.Done | None) -> None:
        step = done.step if done else self.furthest_step
        self._reach(step)
        result = Result(step, done.metrics, done.checkpoint, done.stopped_early) if done else Result(step, {}, None)
        why = f", stopped early: {result.stopped_early}" if result.stopped_early else ""
        note = f"; {done.note}" if done and done.note else ""
        reason = Reason(ReasonCode.COMPLETED, f"finished at step {step}{why}{note}")
        self.end("succeeded", reason, result=result, facts=done.facts if done else {})

    def stopped(self, stop: StopOrder) -> None:
        outcome, code = STOP_ENDS[stop.kind]
        self.end(outcome, Reason(code, stop.message))

    def end(
        self,
        outcome: Outcome,
        reason: Reason,
        *,
        failure: Failure | None = None,
        result: Result | None = None,
        fence_s: float = 0.0,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        """The last word."""
        self._ended = True
        ended = seen.AttemptEnded(
            outcome, reason, self.spent, self.furthest_step, self.ledger, failure, result, fence_s, facts or {}
        )
        self._outbox.put(ended)

    # ---- for the agent --------------------------------------------------------------------------------------------

    async def report(self, after: int, acknowledged: int, timeout_s: float) -> Report:
        """Observations above `after`; waits for the first. Those up to `acknowledged` are the server's now."""
        self._outbox.acknowledge(acknowledged)
        observations = await self._outbox.wait_after(after, 0.0 if self._ended else timeout_s)
        progress, self._progress = self._progress, None
        return Report(tuple(observations), progress, self._ended)

    def _reach(self, step: int) -> None:
        self.furthest_step = max(self.furthest_step, step)

    def _recovery_s(self) -> float | None:
        failed_ns, self._failed_ns = self._failed_ns, None
        return None if failed_ns is None else (time.monotonic_ns() - failed_ns) / 1e9


def _of_rank(view: RankView) -> seen.RankProgress:
    step, step_s = (view.step.step, view.step.step_s) if view.step is not None else (0, 0.0)
    return seen.RankProgress(view.rank, step, step_s, view.silent_s)


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
