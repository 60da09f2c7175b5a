"""What a cluster tells the server about an attempt.

What the attempt's coordinator observes is numbered from 1, is kept until the server has acknowledged it, and may arrive
twice or late: `lifecycle.observe` decides what it changes. The agent itself speaks only of what is idempotent by nature
(waiting, unplaceable, placed, lost): `seq` 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from orchestrator.core.ledger import Ledger
from orchestrator.core.runs import Failure, NodeShare, Reason, Result, Spent


@dataclass(frozen=True)
class Waiting:
    """Its data are being prepared, or the placement group is pending: `reason` says what is done, or who holds what is
    missing."""

    reason: Reason
    kind: Literal["waiting"] = "waiting"


@dataclass(frozen=True)
class Unplaceable:
    """The gang cannot be placed as ordered. `final`: nor ever; otherwise the server should think again."""

    reason: Reason
    final: bool
    kind: Literal["unplaceable"] = "unplaceable"


@dataclass(frozen=True)
class Placed:
    shares: tuple[NodeShare, ...]
    seconds: float  # from the order to the ready host actors
    pooled: bool = False  # a warm gang of the same shape was reused
    kind: Literal["placed"] = "placed"


@dataclass(frozen=True)
class IncarnationStarted:
    incarnation: int
    world_size: int
    pids: tuple[int, ...] = ()  # by rank, each on the host of its share
    kind: Literal["incarnation_started"] = "incarnation_started"


@dataclass(frozen=True)
class RanksRestored:
    incarnation: int
    step: int
    checkpoint: str | None
    skipped: tuple[str, ...] = ()
    kind: Literal["ranks_restored"] = "ranks_restored"


@dataclass(frozen=True)
class FirstStep:
    """The incarnation's first optimizer step is done."""

    incarnation: int
    step: int
    recovery_s: float | None = None  # since the failure before; None for the first incarnation
    kind: Literal["first_step"] = "first_step"


@dataclass(frozen=True)
class IncarnationFailed:
    """The ranks ended. `restarting`: the coordinator starts the next incarnation in place, within the granted budget."""

    incarnation: int
    failure: Failure
    restarting: bool
    reason: Reason
    spent: Spent
    furthest_step: int
    kind: Literal["incarnation_failed"] = "incarnation_failed"


@dataclass(frozen=True)
class CheckpointSealed:
    incarnation: int
    checkpoint: str
    step: int
    size_bytes: int
    stall_s: float
    seconds: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    best: bool = False
    kind: Literal["checkpoint_sealed"] = "checkpoint_sealed"


@dataclass(frozen=True)
class EpochEnded:
    incarnation: int
    epoch: int
    step: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    kind: Literal["epoch_ended"] = "epoch_ended"


@dataclass(frozen=True)
class AttemptEnded:
    """Nothing of the attempt runs any more.

    `lost`: hosts went away and cannot say how it ended, or what prepared its data did. `fence_s`: how long, from now, ranks
    that cannot be reached may still be alive; no new attempt may start before.
    """

    outcome: Literal["succeeded", "failed", "cancelled", "preempted", "deadline", "lost"]
    reason: Reason
    spent: Spent
    furthest_step: int
    ledger: Ledger
    failure: Failure | None = None
    result: Result | None = None
    fence_s: float = 0.0
    facts: Mapping[str, Any] = field(default_factory=dict)  # what is to be kept with the model version, by name
    kind: Literal["attempt_ended"] = "attempt_ended"


@dataclass(frozen=True)
class Inspected:
    """What was seen of one rank that somebody wanted to look at, or why nothing was."""

    inspection: str  # its id
    rank: int
    ok: bool
    message: str  # a sentence
    text: str = ""  # the stacks, or the operators that took most time
    trace: str | None = None  # of a profile: URL of the Chrome trace
    kind: Literal["inspected"] = "inspected"


Happening = (
    Waiting
    | Unplaceable
    | Placed
    | IncarnationStarted
    | RanksRestored
    | FirstStep
    | IncarnationFailed
    | CheckpointSealed
    | EpochEnded
    | Inspected
    | AttemptEnded
)


@dataclass(frozen=True)
class Observation:
    run_id: str
    attempt: int
    seq: int  # counts from 1 within the attempt; 0: the agent itself speaks
    at: float  # wall clock of the observer, for people
    what: Happening


@dataclass(frozen=True)
class RankProgress:
    """Where one rank stands."""

    rank: int
    step: int = 0
    step_s: float = 0.0
    silent_s: float = 0.0  # since its last sign of progress


@dataclass(frozen=True)
class Progress:
    """Where an attempt stands right now: the latest replaces the one before, none enters the event log."""

    run_id: str
    attempt: int
    incarnation: int
    phase: str
    at: float
    step: int = 0
    epoch: int = 0
    total_steps: int | None = None
    total_epochs: int | None = None
    loss: float | None = None
    learning_rate: float | None = None
    samples: int = 0
    samples_per_s: float = 0.0
    step_s: float = 0.0
    metrics: Mapping[str, float] = field(default_factory=dict)  # of the last epoch that ended
    ledger: Ledger = field(default_factory=Ledger)
    silent_s: float = 0.0  # since the last sign of progress of the slowest rank
    ranks: tuple[RankProgress, ...] = ()  # those that the order asks for; empty by default
