"""What the server wants of a cluster: the desired state, sent whole and again whenever it changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.core.runs import Budgets, Failure, Inspection, NodeShare, Spent, StopOrder


@dataclass(frozen=True)
class AdmittedSeals:
    """An attempt whose checkpoints the store admits; `incarnation` 0: all of them.

    An attempt is admitted whole: it may have restarted in place and sealed while nobody could hear of it.
    """

    attempt: int
    incarnation: int = 0


@dataclass(frozen=True)
class AttemptOrder:
    """One attempt that should live on the cluster. Everything its coordinator needs to act while the server is away."""

    run_id: str
    project: str
    run_name: str
    attempt: int
    shares: tuple[NodeShare, ...]
    spec: Mapping[str, Any]
    checkpoint_root: str  # fsspec URL or path; the run's own directory
    placed: bool = False  # the server has seen it placed: if it is not there now, it is lost, never to be started again
    budgets: Budgets = field(default_factory=Budgets)
    spent: Spent = field(default_factory=Spent)
    previous_failure: Failure | None = None
    sealed_since_failure: bool = True
    furthest_step: int = 0
    admitted: tuple[AdmittedSeals, ...] = ()
    bundle: str | None = None  # sha256 of the code bundle
    secrets: Mapping[str, str] = field(default_factory=dict)
    remaining_s: float | None = None  # what was left of max_duration or max_cost, the less, when the order was made
    sealed_before: bool = (
        False  # earlier attempts have sealed something: whoever cannot see it must not start from nothing
    )
    stop: StopOrder | None = None
    driver_token: str = ""  # of a sweep: what its driver speaks to the server with
    told_ranks: int = 0  # its lowest so many ranks are told of one by one in each word of progress
    deadline_message: str = "max_duration has passed"  # why the attempt ends after `remaining_s`
    inspections: tuple[Inspection, ...] = ()  # each is answered once, however often it is ordered
    ahead: bool = False  # it has no slot yet and holds nothing: its gang may get ready where room is left over

    def __repr__(self) -> str:  # secrets never reach a log through this object
        return f"AttemptOrder(run_id={self.run_id!r}, attempt={self.attempt}, stop={self.stop!r})"
