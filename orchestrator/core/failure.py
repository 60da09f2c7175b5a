"""Why an incarnation ended, and whether to start another one.

Two pure questions. `first_cause`: of all the exits of a gang, which one is the cause and which only followed? `decide`: does
the run get another start, out of which budget, and after how long? The gang's coordinator asks them for restarts in place,
the server for new attempts: one rule for both.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from orchestrator.core.runs import Budgets, Failure, FailureKind, Reason, ReasonCode, Spent
from trainers import contract
from trainers.contract import ExitCode

FIRST_BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 30.0

_CRASHES = {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL}
_BY_CODE = {
    ExitCode.APPLICATION: FailureKind.APPLICATION,
    ExitCode.BAD_CONFIG: FailureKind.CONFIG,
    ExitCode.LOST_PEER: FailureKind.COMMUNICATION,
    ExitCode.OUT_OF_MEMORY: FailureKind.OUT_OF_MEMORY,
    ExitCode.STORAGE: FailureKind.STORAGE,
    ExitCode.BAD_LOSS: FailureKind.BAD_LOSS,
    ExitCode.FENCED: FailureKind.FENCED,
    ExitCode.STOPPED: FailureKind.KILLED,  # on an order the host ended it; without one, somebody outside did
}
BudgetName = Literal["application", "infrastructure"]
_BUDGET: dict[FailureKind, BudgetName | None] = {
    FailureKind.APPLICATION: "application",
    FailureKind.EXITED_EARLY: "application",
    FailureKind.OUT_OF_MEMORY: "application",
    FailureKind.STORAGE: "infrastructure",
    FailureKind.NEVER_STARTED: "infrastructure",
    FailureKind.HUNG: "infrastructure",
    FailureKind.KILLED: "infrastructure",
    FailureKind.HOST_LOST: "infrastructure",
    FailureKind.COMMUNICATION: "infrastructure",
    FailureKind.CONFIG: None,
    FailureKind.FENCED: None,
    FailureKind.BAD_LOSS: None,  # the same samples come again in the same order
}
_ADDRESS = re.compile(r"0x[0-9a-fA-F]+")


@dataclass(frozen=True)
class RankExit:
    """One rank's end as its host saw it. Exactly one of `code`, `signal` and `vanished` is set."""

    rank: int
    host: str
    code: int | None = None
    signal: int | None = None
    vanished: str | None = None  # it ended without a word, and nobody saw how; what is known of it
    step: int = 0  # last optimizer step that the rank told of
    report: contract.Failed | None = None  # the rank's own account, where it could still give one
    oom_evidence: str | None = None  # e.g. "cgroup oom_kill", "2.1 GiB used of 2.0 GiB allowed"
    ended_by_us: bool = False  # its host ended it, after another rank's failure or on an order
    with_zygote: bool = False  # the process that it was forked from ended first


@dataclass(frozen=True)
class Restart:
    """Start again, after `delay_s`, with `spent` booked."""

    spent: Spent
    reason: Reason
    delay_s: float


@dataclass(frozen=True)
class GiveUp:
    reason: Reason


def first_cause(exits: Sequence[RankExit]) -> Failure:
    """The failure that the others followed. `exits` in order of arrival, at least one not `ended_by_us`.

    Peers of a dead rank fail within a tenth of a second with communication errors, so those count only where nothing else
    explains the end. Raises ValueError when no rank ended by itself.
    """
    own = [each for each in exits if not each.ended_by_us]
    if not own:
        raise ValueError("every rank was ended by its host: there is no failure to explain")
    primary = [each for each in own if not _secondary(each)]
    return _describe((primary or own)[0])


def decide(
    failure: Failure,
    *,
    spent: Spent,
    budgets: Budgets,
    previous: Failure | None,
    sealed_since_previous: bool,
) -> Restart | GiveUp:
    """Whether the run gets another start. `previous` is the failure before this one, None for the first.

    A failure that repeats itself (same traceback, same step, no checkpoint in between) would repeat for ever: it ends the
    run whatever is left of the budget.
    """
    budget = _BUDGET[failure.kind]
    if budget is None:
        return GiveUp(Reason(ReasonCode.NOT_RETRIABLE, f"restarting cannot help: {failure.message}"))
    if previous is not None and not sealed_since_previous and _same(failure, previous):
        return GiveUp(
            Reason(
                ReasonCode.REPEATED_FAILURE,
                f"the same failure twice at step {failure.step} with no new checkpoint between: {failure.message}",
            )
        )
    used, allowed = getattr(spent, budget), getattr(budgets, budget)
    if used >= allowed:
        return GiveUp(
            Reason(
                ReasonCode.BUDGET_SPENT,
                f"all {allowed} {budget} restarts are used; the last failure: {failure.message}",
            )
        )
    progressed = previous is None or sealed_since_previous or failure.step > previous.step
    delay_s = 0.0 if progressed else min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** min(used, 10))
    wait = f" after {delay_s:g} s" if delay_s else ""
    message = f"{failure.message} Restart {used + 1} of {allowed} ({budget}){wait}."
    booked = (
        replace(spent, application=used + 1) if budget == "application" else replace(spent, infrastructure=used + 1)
    )
    return Restart(booked, Reason(ReasonCode.RESTARTING_IN_PLACE, message), delay_s)


def host_lost(host: str, why: str, step: int) -> Failure:
    return Failure(FailureKind.HOST_LOST, f"Host {host} is lost: {why}.", host=host, step=step)


def never_started(rank: int, host: str, seconds: float) -> Failure:
    message = f"Rank {rank} on {host} gave no sign of life within {seconds:g} s (start_timeout)."
    return Failure(FailureKind.NEVER_STARTED, message, rank=rank, host=host)


def hung(rank: int, host: str, seconds: float, step: int, stack: str) -> Failure:
    message = f"Rank {rank} on {host} made no progress for {seconds:g} s after step {step} (hang_timeout)."
    return Failure(FailureKind.HUNG, message, rank=rank, host=host, step=step, traceback=stack)


def preparation_ended(end: RankExit) -> Failure:
    """Of data that are prepared before there is a rank: `end` is the preparing process's, rank 0 by name only."""
    kind, message = _kind_and_message(end, f"The preparation of data on {end.host}")
    return Failure(kind, message, host=end.host, traceback=end.report.traceback if end.report else "")


def preparation_not_started(host: str, why: str, final: bool) -> Failure:
    kind = FailureKind.CONFIG if final else FailureKind.NEVER_STARTED
    return Failure(kind, f"The preparation of data on {host} could not be started: {why}", host=host)


def _secondary(end: RankExit) -> bool:
    return end.code == ExitCode.LOST_PEER or (end.report is not None and end.report.secondary)


def _describe(end: RankExit) -> Failure:
    kind, message = _kind_and_message(end, f"Rank {end.rank} on {end.host}")
    return Failure(
        kind=kind,
        message=message,
        rank=end.rank,
        host=end.host,
        step=max(end.step, end.report.step if end.report else 0),
        traceback=end.report.traceback if end.report else "",
    )


def _kind_and_message(end: RankExit, who: str) -> tuple[FailureKind, str]:
    if end.oom_evidence:
        return (
            FailureKind.OUT_OF_MEMORY,
            f"{who} ran out of memory: {end.oom_evidence}. Ask for more `resources.memory`.",
        )
    if end.code == ExitCode.STOPPED or (end.report is not None and end.report.code == ExitCode.STOPPED):
        return FailureKind.KILLED, f"{who} was told to end by SIGTERM from outside, and did."
    if end.report is not None:
        kind = FailureKind.COMMUNICATION if end.report.secondary else _by_code(end.report.code)
        return kind, f"{who} failed: {end.report.message}"
    if end.vanished is not None:
        return FailureKind.KILLED, f"{who} ended without a word of its own: {end.vanished}"
    if end.with_zygote:
        return FailureKind.KILLED, f"{who} ended with its zygote, the process it was forked from, which was killed."
    if end.signal is not None:
        name = _signal_name(end.signal)
        if end.signal in _CRASHES:
            return FailureKind.APPLICATION, f"{who} crashed with {name}; its log holds the stack."
        return FailureKind.KILLED, f"{who} was ended by {name} from outside."
    if end.code == ExitCode.OK:
        return FailureKind.EXITED_EARLY, f"{who} exited with 0 while other ranks were still working."
    kind = _by_code(end.code or 0)
    return kind, f"{who} exited with code {end.code}; its log may say why."


def _by_code(code: int) -> FailureKind:
    try:
        return _BY_CODE.get(ExitCode(code), FailureKind.APPLICATION)
    except ValueError:
        return FailureKind.APPLICATION


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _same(failure: Failure, previous: Failure) -> bool:
    if failure.kind != previous.kind or failure.step != previous.step:
        return False
    if failure.traceback or previous.traceback:
        return _ADDRESS.sub("0x", failure.traceback) == _ADDRESS.sub("0x", previous.traceback)
    return failure.kind in (FailureKind.OUT_OF_MEMORY, FailureKind.EXITED_EARLY)
