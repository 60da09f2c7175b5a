"""Looking at the ranks of a run that lives: what may be asked, and what becomes of the question.

A question belongs to the attempt at which it was asked. Each of its ranks is told of once, in the run's history: with what
was seen, or with why nothing was.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from orchestrator.core.observations import Inspected
from orchestrator.core.records import EventDraft
from orchestrator.core.runs import Inspection, Run
from orchestrator.core.words import counted

MOST_RANKS = 64  # of one question: each answer is an event of the run
MOST_STEPS = 100  # a trace is kept in the rank's memory until it is written
DEFAULT_STEPS = 5
MOST_AT_ONCE = 8
MOST_WITHIN_S = 3600.0
WITHIN_S = {"stacks": 60.0, "profile": 300.0}  # where the asker does not say
GRACE_S = 30.0  # for the way there and back, on top of what a rank may take


@dataclass(frozen=True)
class Question:
    """As it was put. No `ranks`: all. `steps` and `within_s` 0: the default."""

    id: str
    kind: Literal["stacks", "profile"]
    ranks: tuple[int, ...] = ()
    steps: int = 0
    within_s: float = 0.0


def admit(run: Run, question: Question, *, by: str, now: float) -> Inspection | str:
    """The question as it is kept with the run, or why it cannot be answered."""
    why = _unable(run, question.kind)
    if why is not None:
        return why
    assert run.attempt is not None, "_unable() has checked that there is one"
    size = run.attempt.incarnations[-1].world_size
    ranks = tuple(sorted(set(question.ranks))) or tuple(range(size))
    strangers = [rank for rank in ranks if not 0 <= rank < size]
    if strangers:
        return f"there is no rank {strangers[0]}: {run.name} has {_ranks_of(size)}"
    if len(ranks) > MOST_RANKS:
        return f"{len(ranks)} ranks are asked for, at most {MOST_RANKS} at once: name those to look at with --rank"
    pending = [each for each in run.inspections if each.ranks]
    if len(pending) >= MOST_AT_ONCE:
        return f"{len(pending)} questions to this run are open: wait for their answers"
    return Inspection(
        id=question.id,
        kind=question.kind,
        ranks=ranks,
        by=by,
        asked_at=now,
        within_s=question.within_s or WITHIN_S[question.kind],
        steps=(question.steps or DEFAULT_STEPS) if question.kind == "profile" else 0,
    )


def _unable(run: Run, kind: str) -> str | None:
    """Why nobody can look at any rank of the run."""
    if run.kind == "sweep":
        return (
            f"{run.name} is a sweep, which has no ranks: look at one of its trials (`evertrain list --sweep {run.id}`)"
        )
    if run.terminal:
        return f"{run.name} has ended ({run.state.kind}): only a run that lives can be looked at"
    if run.attempt is None or not run.attempt.incarnations:
        return f"no rank of {run.name} has been started yet: it is {run.state.kind}: {run.state.reason.message}"
    if run.stop is not None:
        return f"{run.name} is being stopped: {run.stop.message}"
    if kind == "profile" and run.spec.get("launcher") == "ray_train":
        return (
            f"{run.name} runs under Ray Train (launcher: ray_train), by which its ranks cannot be reached for a profile"
        )
    return None


def _ranks_of(size: int) -> str:
    return "rank 0 only" if size == 1 else f"ranks 0 to {size - 1}"


def asked(inspection: Inspection) -> EventDraft:
    """The event that a question makes."""
    who = f"rank {inspection.ranks[0]}" if len(inspection.ranks) == 1 else counted(len(inspection.ranks), "rank")
    what = f"a profile of the next {counted(inspection.steps, 'step')}" if inspection.steps else "the stacks"
    told = {"inspection": inspection.id, "kind": inspection.kind, "ranks": list(inspection.ranks)}
    return EventDraft(inspection.asked_at, "inspecting", f"{inspection.by} asks for {what} of {who}", told)


def answered(
    inspections: Sequence[Inspection], what: Inspected, at: float
) -> tuple[tuple[Inspection, ...], EventDraft] | None:
    """What is still open once a rank has answered, and the event. None where nobody waits for that answer."""
    open_ = next((each for each in inspections if each.id == what.inspection and what.rank in each.ranks), None)
    if open_ is None:
        return None
    left = replace(open_, ranks=tuple(rank for rank in open_.ranks if rank != what.rank))
    told = {
        "inspection": what.inspection,
        "kind": open_.kind,
        "ranks": [what.rank],
        "ok": what.ok,
        "text": what.text,
        "trace": what.trace,
    }
    event = EventDraft(at, "inspected", what.message, told)
    return tuple(left if each is open_ else each for each in inspections), event


def unanswered(inspections: Sequence[Inspection], why: str, now: float) -> tuple[EventDraft, ...]:
    """The events of questions that are given up."""
    return tuple(
        EventDraft(
            now,
            "inspected",
            f"no answer of rank {', '.join(str(rank) for rank in each.ranks)}: {why}",
            {
                "inspection": each.id,
                "kind": each.kind,
                "ranks": list(each.ranks),
                "ok": False,
                "text": "",
                "trace": None,
            },
        )
        for each in inspections
        if each.ranks
    )


def without(inspections: Sequence[Inspection], ids: Collection[str]) -> tuple[Inspection, ...]:
    return tuple(each for each in inspections if each.id not in ids)
