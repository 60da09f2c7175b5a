"""What may happen to a run, and what it turns into.

Each function takes a run as it is and answers a `Transition`: the run as it shall be, with the events that explain it. It
answers `Ignored`, with the reason, where nothing may change: a late word from an attempt that is over, a repeat. Nothing
here knows a clock; `now` is wall time in seconds and only ever used for people and for differences that are clamped at zero.

    QUEUED ──place──► STARTING ──first step──► RUNNING ◄──first step── RECOVERING
       ▲                 │                        │    ──rank failed──►    │
       └── preempted, rescheduled, stale ─────────┴────────────────────────┘
    any of them ──► SUCCEEDED | FAILED | CANCELLED
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, assert_never

from orchestrator.core import failure as failures
from orchestrator.core import inspections
from orchestrator.core import observations as seen
from orchestrator.core.ledger import Ledger, TimeClass, add
from orchestrator.core.monitors import Monitor
from orchestrator.core.orders import AdmittedSeals, AttemptOrder
from orchestrator.core.records import Checkpoint, EventDraft, ModelVersion, Submission
from orchestrator.core.runs import (
    Attempt,
    Budgets,
    Cancelled,
    Failed,
    Failure,
    FailureKind,
    Incarnation,
    Inspection,
    NodeShare,
    Queued,
    Reason,
    ReasonCode,
    Recovering,
    Run,
    Running,
    RunState,
    Spent,
    Starting,
    StopOrder,
    Succeeded,
)
from orchestrator.core.words import counted

STALE_PLACEMENT_PAUSE_S = 1.0


@dataclass(frozen=True)
class Transition:
    """`run.version` is still that of the run it was made from: the store compares and sets by it."""

    run: Run
    events: tuple[EventDraft, ...]
    checkpoints: tuple[Checkpoint, ...] = ()
    model: ModelVersion | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)  # of that model version, by name
    monitor: Monitor | None = None  # what shall watch that model


@dataclass(frozen=True)
class Ignored:
    why: str


# ---- from outside ---------------------------------------------------------------------------------------------------


def begin(submission: Submission) -> Transition:
    """The run that a submission makes."""
    reason = Reason(ReasonCode.SUBMITTED, f"submitted by {submission.submitted_by}; not looked at yet")
    run = Run(
        id=submission.run_id,
        project=submission.project,
        name=submission.name,
        spec=submission.spec,
        submitted_by=submission.submitted_by,
        submitted_at=submission.submitted_at,
        state=Queued(reason),
        queue=submission.queue,
        priority=submission.priority,
        state_since_at=submission.submitted_at,
        kind=submission.kind,
        lineage=submission.lineage,
    )
    events = [EventDraft(submission.submitted_at, "submitted", reason.message)]
    if submission.planned:
        events.append(EventDraft(submission.submitted_at, "planned", submission.planned))
    if not submission.refused:
        return Transition(run, tuple(events))
    why = Reason(ReasonCode.NOT_RETRIABLE, submission.refused)
    refused = _finish(run, Failed(why, Failure(FailureKind.CONFIG, why.message)), submission.submitted_at)
    return Transition(refused.run, (*events, *refused.events))


def place(run: Run, cluster: str, shares: tuple[NodeShare, ...], now: float) -> Transition | Ignored:
    """Give a queued run its next attempt on `cluster`."""
    if not isinstance(run.state, Queued):
        return Ignored(f"it is {run.state.kind}, not QUEUED")
    if run.paused:
        return Ignored(f"it is paused: {run.paused}")
    number = len(run.attempts) + 1
    hosts = ", ".join(f"{share.ranks} on {share.host}" for share in shares)
    reason = Reason(ReasonCode.PLACED, f"attempt {number} placed on cluster {cluster}: {hosts}")
    attempt = Attempt(number=number, cluster=cluster, shares=shares, started_at=now)
    placed = replace(_account_waiting(run, now), attempts=(*run.attempts, attempt))
    return _enter(placed, Starting(reason), now, "placed")


def wait(run: Run, reason: Reason, now: float) -> Transition | Ignored:
    """Record why a queued run waits; the same reason code twice is not news."""
    if not isinstance(run.state, Queued):
        return Ignored(f"it is {run.state.kind}, not QUEUED")
    if run.state.reason.code == reason.code:
        return Ignored("it waits for the same reason as before")
    return Transition(
        replace(run, state=replace(run.state, reason=reason)), (EventDraft(now, "waiting", reason.message),)
    )


def reject(run: Run, reason: Reason, now: float) -> Transition | Ignored:
    """End a queued run that can never start."""
    if not isinstance(run.state, Queued):
        return Ignored(f"it is {run.state.kind}, not QUEUED")
    return _finish(run, Failed(reason, Failure(FailureKind.CONFIG, reason.message)), now)


def abandon(run: Run, reason: Reason, now: float) -> Transition | Ignored:
    """End a run that no cluster can be given: this server cannot read its run file, or what it needs is gone."""
    if run.terminal:
        return Ignored(f"it has already ended: {run.state.kind}")
    if run.attempt is not None:
        run = _with_attempt(run, replace(run.attempt, ended=reason, ended_at=now))
    return _finish(run, Failed(reason, Failure(FailureKind.CONFIG, reason.message)), now)


def cancel(run: Run, *, by: str, message: str, now: float) -> Transition | Ignored:
    """A queued run ends at once; a placed one is ordered to stop and ends when its ranks have. Idempotent."""
    if run.terminal:
        return Ignored(f"it has already ended: {run.state.kind}")
    reason = Reason(ReasonCode.CANCELLED_BY_USER, f"cancelled by {by}" + (f": {message}" if message else ""))
    if run.attempt is None:
        return _finish(run, Cancelled(reason), now)
    if run.stop is not None and run.stop.kind == "cancel":
        return Ignored("it is already being cancelled")
    return _order_stop(run, StopOrder("cancel", by, reason.message), now)


def preempt(run: Run, *, by: str, message: str, now: float) -> Transition | Ignored:
    """Order the current attempt to make room: seal a checkpoint, end, and queue again."""
    if run.attempt is None:
        return Ignored("it holds nothing")
    if run.stop is not None:
        return Ignored(f"it is already being stopped: {run.stop.message}")
    return _order_stop(run, StopOrder("preempt", by, message), now)


def pause(run: Run, *, by: str, message: str, now: float) -> Transition | Ignored:
    """Hold a run: a placed one seals a checkpoint and gives its workers back, and nothing of it is placed until it is
    resumed. Idempotent.
    """
    if run.terminal:
        return Ignored(f"it has already ended: {run.state.kind}")
    if run.kind == "sweep":
        return Ignored("it is a sweep, which holds no workers: pause its trials, or stop it")
    if run.paused:
        return Ignored(f"it is already paused: {run.paused}")
    if run.stop is not None and run.stop.kind != "preempt":
        return Ignored(f"it is already being stopped: {run.stop.message}")
    words = f"paused by {by}" + (f": {message}" if message else "")
    paused = replace(run, paused=words)
    if isinstance(run.state, Queued):
        reason = Reason(ReasonCode.PAUSED, words)
        return _enter(_account_waiting(paused, now), replace(run.state, reason=reason), now, "paused")
    if run.stop is not None:
        return Transition(paused, (EventDraft(now, "paused", words),))
    return _order_stop(replace(paused, stop_for_pause=True), StopOrder("preempt", by, words), now)


def resume(run: Run, *, by: str, now: float) -> Transition | Ignored:
    """Let a paused run be placed again. Idempotent."""
    if not run.paused:
        return Ignored("it is not paused")
    resumed, reason = replace(run, paused=""), Reason(ReasonCode.RESUMED, f"resumed by {by}")
    if isinstance(run.state, Queued):
        held_ns = _elapsed_ns(run.state_since_at, now) if run.attempts else 0
        resumed = replace(_account_waiting(resumed, now), paused_ns=run.paused_ns + held_ns)
        return _enter(resumed, replace(run.state, reason=reason), now, "resumed")
    return Transition(resumed, (EventDraft(now, "resumed", reason.message),))


def finish(run: Run, *, by: str, message: str, now: float) -> Transition | Ignored:
    """Order a sweep to end with the best that it has found so far. One that has not begun is cancelled. Idempotent."""
    if run.kind != "sweep":
        return Ignored(f"it is a {run.kind}, not a sweep")
    if run.attempt is None:
        return cancel(run, by=by, message=message or "stopped before it began", now=now)
    if run.stop is not None:
        return Ignored(f"it is already being stopped: {run.stop.message}")
    return _order_stop(run, StopOrder("finish", by, f"stopped by {by}" + (f": {message}" if message else "")), now)


def inspect(run: Run, inspection: Inspection) -> Transition | Ignored:
    """Have ranks of the current attempt looked at. Idempotent by the inspection's id."""
    if any(each.id == inspection.id for each in run.inspections):
        return Ignored("it has been asked before")
    asked = replace(run, inspections=(*run.inspections, inspection))
    return Transition(asked, (inspections.asked(inspection),))


def give_up_inspections(run: Run, ids: Collection[str], now: float) -> Transition | Ignored:
    """Forget inspections whose time is over, and say so of the ranks that have not answered."""
    over = [each for each in run.inspections if each.id in ids]
    if not over:
        return Ignored("they are forgotten already")
    why = "its time is over, and neither the rank nor the agent of its cluster has said anything"
    left = replace(run, inspections=inspections.without(run.inspections, ids))
    return Transition(left, inspections.unanswered(over, why, now))


def order(
    run: Run, *, checkpoint_root: str, budgets: Budgets, secrets: dict[str, str], remaining_s: float | None
) -> AttemptOrder | None:
    """What the cluster of the current attempt should know; None where there is no attempt."""
    attempt = run.attempt
    if attempt is None:
        return None
    admitted = tuple(AdmittedSeals(each.number) for each in run.attempts[:-1])
    code = str(run.spec.get("code") or "")
    return AttemptOrder(
        run_id=run.id,
        project=run.project,
        run_name=run.name,
        attempt=attempt.number,
        shares=attempt.shares,
        spec=run.spec,
        checkpoint_root=checkpoint_root,
        placed=attempt.placed,
        budgets=budgets,
        spent=run.spent,
        previous_failure=run.previous_failure,
        sealed_since_failure=run.sealed_since_failure,
        furthest_step=run.furthest_step,
        admitted=admitted,
        bundle=code.removeprefix("bundle:") if code.startswith("bundle:") else None,
        secrets=secrets,
        remaining_s=remaining_s,
        stop=run.stop,
        inspections=tuple(each for each in run.inspections if each.ranks),
    )


def ledger(run: Run, *, workers: int, now: float, live: Ledger | None = None) -> Ledger:
    """Every worker-nanosecond from submission to the end, or to `now`.

    `live` is the current attempt's account as last heard of. What neither the queue nor a coordinator accounts for (an
    attempt on its way to its hosts, an end on its way back) is starting time.
    """
    end = run.ended_at if run.ended_at is not None else now
    queued_ns = _account_waiting(run, now).queued_ns
    booked = add([each.ledger for each in run.attempts] + ([live] if live is not None and run.attempt else []))
    booked = booked.plus(TimeClass.QUEUED, queued_ns * workers)
    whole_ns = _elapsed_ns(run.submitted_at, end) * workers
    return booked.plus(TimeClass.STARTING, max(0, whole_ns - booked.total_ns))


# ---- from a cluster -------------------------------------------------------------------------------------------------


def observe(run: Run, observation: seen.Observation, *, budgets: Budgets, now: float) -> Transition | Ignored:
    """Apply what a cluster says of an attempt. Only the current attempt is heard, and each of its numbers once."""
    attempt = run.attempt
    if attempt is None or observation.attempt != attempt.number:
        current = f"attempt {attempt.number} is the current one" if attempt else "no attempt is running"
        return Ignored(f"it speaks for attempt {observation.attempt}, but {current}")
    if observation.seq and observation.seq <= attempt.last_seq:
        return Ignored(f"observation {observation.seq} was applied before")
    if observation.seq:
        run = _with_attempt(run, replace(attempt, last_seq=observation.seq))
    return _apply(run, observation.what, observation.at, budgets, now)


def with_last_account(observation: seen.Observation, heard: seen.Progress | None) -> seen.Observation:
    """The end of a lost attempt with the newest account of its time that anybody has.

    Who tells that end may never have heard the attempt's coordinator: an agent that was started again after the attempt's
    node had gone. Accounts only grow, so the larger one is the newer.
    """
    what = observation.what
    if not isinstance(what, seen.AttemptEnded) or what.outcome != "lost":
        return observation
    if heard is None or heard.attempt != observation.attempt or heard.ledger.total_ns <= what.ledger.total_ns:
        return observation
    return replace(observation, what=replace(what, ledger=heard.ledger))


def _apply(run: Run, what: seen.Happening, at: float, budgets: Budgets, now: float) -> Transition | Ignored:
    match what:
        case seen.Waiting():
            return _waiting(run, what, now)
        case seen.Unplaceable():
            return _unplaceable(run, what, now)
        case seen.Placed():
            return _placed(run, what, now)
        case seen.IncarnationStarted():
            return _incarnation_started(run, what, at)
        case seen.RanksRestored():
            return _restored(run, what, at)
        case seen.FirstStep():
            return _first_step(run, what, at, now)
        case seen.IncarnationFailed():
            return _incarnation_failed(run, what, at, now)
        case seen.CheckpointSealed():
            return _sealed(run, what, at)
        case seen.EpochEnded():
            numbers = ", ".join(f"{name} {value:.4g}" for name, value in sorted(what.metrics.items()))
            told = {"epoch": what.epoch, "step": what.step, "metrics": dict(what.metrics)}
            event = EventDraft(at, "epoch", f"epoch {what.epoch} ended at step {what.step}: {numbers}", told)
            return Transition(replace(run, furthest_step=max(run.furthest_step, what.step)), (event,))
        case seen.Inspected():
            answered = inspections.answered(run.inspections, what, at)
            if answered is None:
                return Ignored("nobody waits for that answer any more")
            return Transition(replace(run, inspections=answered[0]), (answered[1],))
        case seen.AttemptEnded():
            return _attempt_ended(run, what, budgets, now)
        case _:
            assert_never(what)


def _waiting(run: Run, what: seen.Waiting, now: float) -> Transition | Ignored:
    attempt = _current(run)
    if attempt.placed or not isinstance(run.state, Starting) or run.state.reason == what.reason:
        return Ignored("nothing new")
    if run.stop is not None:
        return Ignored("it is being stopped")
    waits = replace(run, state=Starting(what.reason))
    kind = "preparing" if what.reason.code == ReasonCode.PREPARING_DATA else "waiting"
    if _needs_no_worker(waits) != _needs_no_worker(run):
        return _enter(_account_waiting(run, now), waits.state, now, kind)
    return Transition(waits, (EventDraft(now, kind, what.reason.message),))


def _unplaceable(run: Run, what: seen.Unplaceable, now: float) -> Transition | Ignored:
    attempt = _current(run)
    if attempt.placed:
        return Ignored("it has been placed before")
    run = _with_attempt(run, replace(attempt, ended=what.reason, ended_at=now))
    if run.stop is not None and run.stop.kind == "cancel":
        return _finish(run, Cancelled(Reason(ReasonCode.CANCELLED_BY_USER, run.stop.message)), now)
    if what.final:
        return _finish(run, Failed(what.reason, Failure(FailureKind.CONFIG, what.reason.message)), now)
    reason = Reason(ReasonCode.PLACEMENT_STALE, what.reason.message)
    return _requeue(run, reason, now, not_before_at=now + STALE_PLACEMENT_PAUSE_S)


def _placed(run: Run, what: seen.Placed, now: float) -> Transition | Ignored:
    attempt = _current(run)
    if attempt.placed:
        return Ignored("it has been placed before")
    run = _account_waiting(run, now, less_ns=round(what.seconds * 1e9))
    run = _with_attempt(run, replace(attempt, placed=True, shares=what.shares))
    pooled = " from the pool" if what.pooled else ""
    words = f"hosts ready{pooled} after {what.seconds:.2f} s; starting ranks"
    reason = Reason(ReasonCode.STARTING_RANKS, "its driver is started" if run.kind == "sweep" else words)
    if run.stop is not None:
        return Transition(run, (EventDraft(now, "hosts_ready", reason.message),))
    return _enter(run, Starting(reason), now, "hosts_ready")


def _incarnation_started(run: Run, what: seen.IncarnationStarted, at: float) -> Transition:
    attempt = _current(run)
    incarnation = Incarnation(number=what.incarnation, world_size=what.world_size, started_at=at)
    run = _with_attempt(run, replace(attempt, placed=True, incarnations=(*attempt.incarnations, incarnation)))
    message = f"incarnation {what.incarnation} of attempt {attempt.number}: {counted(what.world_size, 'rank')} started"
    told: dict[str, Any] = {"incarnation": what.incarnation, "pids": list(what.pids)}
    return Transition(run, (EventDraft(at, "ranks_started", message, told),))


def _restored(run: Run, what: seen.RanksRestored, at: float) -> Transition:
    run = _with_incarnation(
        run,
        what.incarnation,
        lambda old: replace(old, resumed_from=what.checkpoint, resumed_step=what.step, skipped=what.skipped),
    )
    start = f"resumed at step {what.step} from {what.checkpoint}" if what.checkpoint else _beginning(run)
    skipped = "".join(f"; skipped {each}" for each in what.skipped)
    return Transition(run, (EventDraft(at, "restored", start + skipped, {"step": what.step}),))


def _beginning(run: Run) -> str:
    """What a run without a checkpoint begins with."""
    init: Mapping[str, Any] = run.spec.get("init_from") or {}
    source = next((init[key] for key in ("model", "checkpoint", "file") if init.get(key)), None)
    return f"starting with the weights of {source}" if source else "starting from nothing"


def _first_step(run: Run, what: seen.FirstStep, at: float, now: float) -> Transition:
    recovery_s = _since_lost(run, what.incarnation, at) if what.recovery_s is None else what.recovery_s
    run = _with_incarnation(run, what.incarnation, lambda old: replace(old, recovery_s=recovery_s))
    run = replace(run, furthest_step=max(run.furthest_step, what.step))
    if run.kind == "sweep":
        reason = Reason(ReasonCode.TRAINING, "its driver searches; its trials are runs of their own")
        return _enter(run, Running(reason, what.incarnation), now, "searching")
    recovered = f" {recovery_s:.2f} s after the failure" if recovery_s is not None else ""
    reason = Reason(ReasonCode.TRAINING, f"incarnation {what.incarnation} trains: step {what.step} done{recovered}")
    if run.stop is not None:
        return Transition(run, (EventDraft(at, "training", reason.message),))
    return _enter(run, Running(reason, what.incarnation), now, "training")


def _since_lost(run: Run, incarnation: int, at: float) -> float | None:
    """For the first incarnation of an attempt that followed a lost one: seconds since that one's end was known here. None
    for any other."""
    first = next((each.number for each in run.attempts[-1].incarnations), None)
    if len(run.attempts) < 2 or incarnation != first:
        return None
    before = run.attempts[-2]
    if before.ended is None or before.ended_at is None or before.ended.code != ReasonCode.RESCHEDULED:
        return None
    return max(0.0, at - before.ended_at)  # clocks of two machines


def _incarnation_failed(run: Run, what: seen.IncarnationFailed, at: float, now: float) -> Transition:
    run = _with_incarnation(run, what.incarnation, lambda old: replace(old, failure=what.failure))
    run = replace(
        run,
        spent=what.spent,
        previous_failure=what.failure,
        sealed_since_failure=False,
        furthest_step=max(run.furthest_step, what.furthest_step),
    )
    told: dict[str, Any] = {"failure": what.failure.kind.value, "rank": what.failure.rank, "step": what.failure.step}
    event = EventDraft(at, "rank_failed", what.failure.message, told)
    if not what.restarting or run.stop is not None:
        return Transition(run, (event,))
    entered = _enter(run, Recovering(what.reason, what.incarnation + 1, what.failure), now, "recovering")
    return replace(entered, events=(event, *entered.events))


def _sealed(run: Run, what: seen.CheckpointSealed, at: float) -> Transition:
    attempt = _current(run)
    run = replace(run, sealed_since_failure=True, furthest_step=max(run.furthest_step, what.step))
    checkpoint = Checkpoint(
        run_id=run.id,
        attempt=attempt.number,
        incarnation=what.incarnation,
        step=what.step,
        url=what.checkpoint,
        size_bytes=what.size_bytes,
        metrics=what.metrics,
        best=what.best,
        sealed_at=at,
    )
    best = ", the best so far" if what.best else ""
    message = f"checkpoint sealed at step {what.step}{best}: {what.size_bytes} bytes in {what.seconds:.2f} s"
    return Transition(run, (EventDraft(at, "checkpoint_sealed", message, {"step": what.step}),), (checkpoint,))


def _attempt_ended(run: Run, what: seen.AttemptEnded, budgets: Budgets, now: float) -> Transition:
    attempt = replace(_current(run), ended=what.reason, ended_at=now, ledger=what.ledger)
    run = _with_attempt(run, attempt)
    run = replace(run, spent=_most(run, what), furthest_step=max(run.furthest_step, what.furthest_step))
    if what.outcome == "succeeded" and what.result is not None:
        ended = _finish(run, Succeeded(what.reason, what.result), now)
        if run.kind == "trial" and what.facts:
            words = f"kept for the sweep's model version: {', '.join(what.facts)}"
            return replace(ended, events=(EventDraft(now, "facts", words, what.facts), *ended.events))
        model = _model(run, what, now)
        return replace(ended, model=model, facts=what.facts, monitor=_monitor(run, now) if model is not None else None)
    if run.stop is not None and run.stop.kind == "cancel":
        return _finish(run, Cancelled(Reason(ReasonCode.CANCELLED_BY_USER, run.stop.message)), now)
    lost = what.failure or failures.host_lost("of the attempt", what.reason.message, what.furthest_step)
    if what.outcome == "lost":
        return _reschedule(run, lost, what, budgets, now)
    if what.outcome == "preempted":
        return _preempted(run, what, budgets, now)
    reason = Reason(ReasonCode.DEADLINE, what.reason.message) if what.outcome == "deadline" else what.reason
    return _finish(run, Failed(reason, what.failure or Failure(FailureKind.APPLICATION, reason.message)), now)


def _reschedule(run: Run, lost: Failure, what: seen.AttemptEnded, budgets: Budgets, now: float) -> Transition:
    verdict = failures.decide(
        lost,
        spent=run.spent,
        budgets=budgets,
        previous=run.previous_failure,
        sealed_since_previous=run.sealed_since_failure,
    )
    run = replace(run, previous_failure=lost, sealed_since_failure=False)
    if isinstance(verdict, failures.GiveUp):
        return _finish(run, Failed(verdict.reason, lost), now)
    pause_s = max(what.fence_s, verdict.delay_s)
    wait_words = f" A new attempt waits {pause_s:g} s, until its old ranks have certainly ended." if pause_s else ""
    reason = Reason(ReasonCode.RESCHEDULED, lost.message + wait_words)
    return _requeue(replace(run, spent=verdict.spent), reason, now, not_before_at=now + pause_s)


def _preempted(run: Run, what: seen.AttemptEnded, budgets: Budgets, now: float) -> Transition:
    by = run.stop.message if run.stop else what.reason.message
    if run.paused or run.stop_for_pause:  # somebody asked for it: that uses no budget
        return _requeue(run, Reason(ReasonCode.PREEMPTED, by), now)
    used = run.spent.preemption
    if used >= budgets.preemption:
        reason = Reason(ReasonCode.BUDGET_SPENT, f"all {budgets.preemption} preemptions are used; the last: {by}")
        return _finish(run, Failed(reason, Failure(FailureKind.KILLED, reason.message)), now)
    run = replace(run, spent=replace(run.spent, preemption=used + 1))
    return _requeue(run, Reason(ReasonCode.PREEMPTED, by), now)


def _model(run: Run, what: seen.AttemptEnded, now: float) -> ModelVersion | None:
    result = what.result
    if result is None or result.checkpoint is None or run.kind == "trial":
        return None  # of a sweep's trials only the best one's model is registered, with the sweep
    return ModelVersion(run.project, run.name, 0, run.id, result.checkpoint, result.metrics, now)


def _monitor(run: Run, now: float) -> Monitor | None:
    """A draft: which version is its reference is seen once this one has its number."""
    settings = run.spec.get("monitor")
    if not isinstance(settings, Mapping):
        return None
    return Monitor(run.project, run.name, settings, run.id, reference=0, created_at=now)


# ---- small steps ----------------------------------------------------------------------------------------------------


def _enter(run: Run, state: RunState, now: float, kind: str) -> Transition:
    event = EventDraft(now, kind, state.reason.message, {"state": state.kind, "reason": state.reason.code.value})
    return Transition(replace(run, state=state, state_since_at=now), (event,))


def _requeue(run: Run, reason: Reason, now: float, not_before_at: float = 0.0) -> Transition:
    run = _account_waiting(run, now)
    reason = Reason(ReasonCode.PAUSED, run.paused) if run.paused else reason
    return _leave(replace(run, stop=None, stop_for_pause=False), Queued(reason, not_before_at), now, "queued")


def _finish(run: Run, state: RunState, now: float) -> Transition:
    run = _account_waiting(run, now)
    return _leave(replace(run, stop=None, ended_at=now), state, now, "ended")


def _leave(run: Run, state: RunState, now: float, kind: str) -> Transition:
    """Enter a state in which no attempt lives: whoever wanted to look at its ranks is told that it is over."""
    why = f"its attempt is over: {state.reason.message}"
    unanswered = inspections.unanswered(run.inspections, why, now)
    entered = _enter(replace(run, inspections=()), state, now, kind)
    return replace(entered, events=(*unanswered, *entered.events))


def _needs_no_worker(run: Run) -> bool:
    """It waits in the queue, or its data are being prepared: whatever it has been promised, nothing of it is used."""
    return isinstance(run.state, Queued) or (
        isinstance(run.state, Starting) and run.state.reason.code == ReasonCode.PREPARING_DATA
    )


def _account_waiting(run: Run, now: float, less_ns: int = 0) -> Run:
    """With the time since it began to need no worker, but for the last `less_ns` of it, which others account for."""
    if not _needs_no_worker(run):
        return run
    return replace(run, queued_ns=run.queued_ns + max(0, _elapsed_ns(run.state_since_at, now) - less_ns))


def _order_stop(run: Run, stop: StopOrder, now: float) -> Transition:
    reason = Reason(ReasonCode.STOPPING, f"stopping: {stop.message}")
    run = _account_waiting(run, now)
    state = run.state
    match state:
        case Starting() | Running() | Recovering():
            state = replace(state, reason=reason)
        case _:
            pass
    return Transition(replace(run, state=state, stop=stop), (EventDraft(now, "stopping", reason.message),))


def _current(run: Run) -> Attempt:
    attempt = run.attempt
    assert attempt is not None, "observe() has checked that there is one"
    return attempt


def _with_attempt(run: Run, attempt: Attempt) -> Run:
    return replace(run, attempts=(*run.attempts[:-1], attempt))


def _with_incarnation(run: Run, number: int, change: Callable[[Incarnation], Incarnation]) -> Run:
    attempt = _current(run)
    changed = tuple(change(each) if each.number == number else each for each in attempt.incarnations)
    return _with_attempt(run, replace(attempt, incarnations=changed))


def _most(run: Run, what: seen.AttemptEnded) -> Spent:
    """Budgets never refill: of two accounts the higher counts."""
    return replace(
        run.spent,
        application=max(run.spent.application, what.spent.application),
        infrastructure=max(run.spent.infrastructure, what.spent.infrastructure),
    )


def _elapsed_ns(since: float, now: float) -> int:
    """Never negative: a wall clock may have been moved."""
    return max(0, round((now - since) * 1e9))
