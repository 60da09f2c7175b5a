"""Values for tests, with everything filled in that the test at hand does not care about."""

from __future__ import annotations

from typing import Any

from orchestrator.core import lifecycle
from orchestrator.core.ledger import Ledger
from orchestrator.core.lifecycle import Transition
from orchestrator.core.observations import AttemptEnded, Happening, Observation
from orchestrator.core.records import Submission
from orchestrator.core.runs import (
    Budgets,
    Failure,
    FailureKind,
    NodeShare,
    Reason,
    ReasonCode,
    Result,
    Run,
    Spent,
)
from orchestrator.core.scheduling.fit import Node

BUDGETS = Budgets(application=2, infrastructure=3, preemption=1)
SHARES = (NodeShare("node-a", "alpha", "10.0.0.1", 2),)
SPEC: dict[str, Any] = {"name": "digits", "recipe": "digits_cnn", "resources": {"workers": 2, "cpu": 1}}


def submission(**changes: Any) -> Submission:
    values: dict[str, Any] = {
        "run_id": "run-aaaaaaaaaa",
        "project": "default",
        "name": "digits",
        "spec": SPEC,
        "submitted_by": "ada",
        "submitted_at": 1000.0,
        "queue": "default",
        "priority": 50,
    }
    return Submission(**{**values, **changes})


def queued_run(**changes: Any) -> Run:
    return lifecycle.begin(submission(**changes)).run


def placed_run(now: float = 1010.0) -> Run:
    return changed(lifecycle.place(queued_run(), "local", SHARES, now))


def changed(answer: lifecycle.Transition | lifecycle.Ignored) -> Run:
    """The run of a transition that must not have been ignored."""
    assert isinstance(answer, Transition), answer
    return answer.run


def hear(run: Run, what: Happening, *, seq: int = 0, attempt: int | None = None, now: float = 1020.0) -> Run:
    """The run after an observation of its current attempt that must change it."""
    return changed(observe(run, what, seq=seq, attempt=attempt, now=now))


def observe(
    run: Run, what: Happening, *, seq: int = 0, attempt: int | None = None, now: float = 1020.0
) -> lifecycle.Transition | lifecycle.Ignored:
    number = attempt if attempt is not None else (run.attempt.number if run.attempt else 1)
    return lifecycle.observe(run, Observation(run.id, number, seq, now, what), budgets=BUDGETS, now=now)


def attempt_ended(outcome: Any, **changes: Any) -> AttemptEnded:
    values: dict[str, Any] = {
        "outcome": outcome,
        "reason": Reason(ReasonCode.COMPLETED, f"ended: {outcome}"),
        "spent": Spent(),
        "furthest_step": 10,
        "ledger": Ledger(),
    }
    if outcome == "succeeded":
        values["result"] = Result(step=10, metrics={"test_accuracy": 0.98}, checkpoint="/seals/step-10")
    return AttemptEnded(**{**values, **changes})


def failure(**changes: Any) -> Failure:
    values: dict[str, Any] = {
        "kind": FailureKind.APPLICATION,
        "message": "Rank 1 on alpha failed: ValueError: nothing to learn",
        "rank": 1,
        "host": "alpha",
        "step": 7,
        "traceback": 'File "model.py", line 3\nValueError: nothing to learn',
    }
    return Failure(**{**values, **changes})


def node(name: str = "a", cpu: float = 4, gpu: float = 0, memory: int = 2**34, **changes: Any) -> Node:
    values: dict[str, Any] = {
        "id": f"node-{name}",
        "host": name,
        "ip": f"10.0.0.{ord(name[-1])}",
        "cpu": cpu,
        "gpu": gpu,
        "memory": memory,
        "free_cpu": cpu,
        "free_gpu": gpu,
        "free_memory": memory,
    }
    return Node(**{**values, **changes})
