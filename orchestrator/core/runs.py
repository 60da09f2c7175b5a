"""What the orchestrator knows of a run: typed, immutable values.

A *run* is one submitted piece of work. An *attempt* is one placement of it on a cluster; its number only grows and is the
fence: whatever speaks for a lower number than the run's current one changes nothing. An *incarnation* is one start of the
ranks inside an attempt. Each state of a run is a class of its own that carries exactly that state's facts.

Times named `_at` are wall clock seconds since the epoch, for people; durations come from monotonic clocks.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from orchestrator.core.ledger import Ledger


class ReasonCode(enum.StrEnum):
    """Why a run is where it is. Machine-readable, stable, listed in the API documentation."""

    SUBMITTED = "submitted"
    WAITING_FOR_CLUSTER = "waiting_for_cluster"
    WAITING_FOR_CAPACITY = "waiting_for_capacity"
    WAITING_FOR_NODE = "waiting_for_node"  # none that is there could hold it, were it empty
    WAITING_BEHIND = "waiting_behind"
    WAITING_SLOT = "waiting_slot"
    BACKING_OFF = "backing_off"
    PREPARING_DATA = "preparing_data"
    PLACED = "placed"
    PLACEMENT_STALE = "placement_stale"
    STARTING_RANKS = "starting_ranks"
    TRAINING = "training"
    RESTARTING_IN_PLACE = "restarting_in_place"
    RESCHEDULED = "rescheduled"
    PREEMPTED = "preempted"
    COMPLETED = "completed"
    NEVER_FITS = "never_fits"
    NOT_RETRIABLE = "not_retriable"
    BUDGET_SPENT = "budget_spent"
    REPEATED_FAILURE = "repeated_failure"
    DEADLINE = "deadline"
    CANCELLED_BY_USER = "cancelled_by_user"
    STOPPING = "stopping"
    PAUSED = "paused"
    RESUMED = "resumed"


@dataclass(frozen=True)
class Reason:
    code: ReasonCode
    message: str  # a sentence for people


class FailureKind(enum.StrEnum):
    APPLICATION = "application"  # the user's code raised, or exited non-zero
    CONFIG = "config"  # can never work: not retried
    EXITED_EARLY = "exited_early"  # a rank exited 0 while others still worked
    OUT_OF_MEMORY = "out_of_memory"
    STORAGE = "storage"
    BAD_LOSS = "bad_loss"
    NEVER_STARTED = "never_started"  # no sign of life before the start deadline
    HUNG = "hung"  # alive without progress
    KILLED = "killed"  # ended by a signal from outside
    HOST_LOST = "host_lost"
    COMMUNICATION = "communication"  # ranks lost each other and none of them is the cause
    FENCED = "fenced"


@dataclass(frozen=True)
class Failure:
    """The first cause of an ended incarnation or attempt."""

    kind: FailureKind
    message: str
    rank: int | None = None
    host: str | None = None
    step: int = 0
    traceback: str = ""


@dataclass(frozen=True)
class Spent:
    """Restarts used so far, by budget."""

    application: int = 0
    infrastructure: int = 0
    preemption: int = 0


@dataclass(frozen=True)
class Budgets:
    """Restarts allowed, by budget."""

    application: int = 5
    infrastructure: int = 20
    preemption: int = 100


@dataclass(frozen=True)
class NodeShare:
    """The ranks of a gang that live on one node; ranks are numbered in the order of the shares."""

    node_id: str
    host: str
    ip: str
    ranks: int


@dataclass(frozen=True)
class Incarnation:
    number: int
    world_size: int
    started_at: float
    resumed_from: str | None = None
    resumed_step: int = 0
    skipped: tuple[str, ...] = ()  # newer checkpoints that were not taken, and why
    recovery_s: float | None = None  # from the failure before, of whatever attempt, to the first optimizer step
    failure: Failure | None = None


@dataclass(frozen=True)
class Attempt:
    number: int
    cluster: str
    shares: tuple[NodeShare, ...]
    started_at: float
    placed: bool = False  # the agent has confirmed the placement group
    incarnations: tuple[Incarnation, ...] = ()
    last_seq: int = 0  # highest observation applied: earlier ones are repeats
    ledger: Ledger = field(default_factory=Ledger)
    ended: Reason | None = None
    ended_at: float | None = None


@dataclass(frozen=True)
class StopOrder:
    """Somebody wants the run's current attempt to end."""

    kind: Literal["cancel", "preempt", "deadline", "finish"]  # finish: of a sweep, with what it has found so far
    by: str
    message: str


@dataclass(frozen=True)
class Inspection:
    """Somebody wants to see what ranks of the current attempt do. It is kept until `within_s` is long over."""

    id: str  # the asker's: the same one is the same question
    kind: Literal["stacks", "profile"]
    ranks: tuple[int, ...]  # that have not answered yet
    by: str
    asked_at: float
    within_s: float  # how long a rank may take to answer
    steps: int = 0  # optimizer steps of a profile


@dataclass(frozen=True)
class Result:
    """What a finished run leaves."""

    step: int
    metrics: Mapping[str, float]
    checkpoint: str | None
    stopped_early: str | None = None


# ---- states ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Queued:
    reason: Reason
    not_before_at: float = 0.0  # backing off, or waiting until an old attempt has certainly ended
    kind: Literal["QUEUED"] = "QUEUED"


@dataclass(frozen=True)
class Starting:
    reason: Reason
    kind: Literal["STARTING"] = "STARTING"


@dataclass(frozen=True)
class Running:
    reason: Reason
    incarnation: int
    kind: Literal["RUNNING"] = "RUNNING"


@dataclass(frozen=True)
class Recovering:
    reason: Reason
    incarnation: int  # the one that is being started
    failure: Failure
    kind: Literal["RECOVERING"] = "RECOVERING"


@dataclass(frozen=True)
class Succeeded:
    reason: Reason
    result: Result
    kind: Literal["SUCCEEDED"] = "SUCCEEDED"


@dataclass(frozen=True)
class Failed:
    reason: Reason
    failure: Failure
    kind: Literal["FAILED"] = "FAILED"


@dataclass(frozen=True)
class Cancelled:
    reason: Reason
    kind: Literal["CANCELLED"] = "CANCELLED"


RunState = Queued | Starting | Running | Recovering | Succeeded | Failed | Cancelled
Terminal = Succeeded | Failed | Cancelled
STATE_NAMES = ("QUEUED", "STARTING", "RUNNING", "RECOVERING", "SUCCEEDED", "FAILED", "CANCELLED")
TERMINAL_NAMES = ("SUCCEEDED", "FAILED", "CANCELLED")


@dataclass(frozen=True)
class Lineage:
    """Where a sweep's trial comes from. `generation` counts the runs of one trial."""

    sweep: str  # id of the sweep's run
    trial: int  # counts from 0
    generation: int = 0
    point: Mapping[str, Any] = field(default_factory=dict)  # what was put into the run file: path, value
    start: str = ""  # the checkpoint that this generation goes on from; empty: it begins anew
    slots: int = 0  # trials of the sweep that may hold workers at once; 0: as many as fit
    memory: int = 0  # bytes that a worker needs by the planner, where only nodes that are away have them

    @property
    def sized(self) -> bool:
        """Whether its point asks for other resources than its sweep does."""
        return self.memory > 0 or any(path.split(".")[0] == "resources" for path in self.point)


@dataclass(frozen=True)
class Run:
    id: str
    project: str
    name: str
    spec: Mapping[str, Any]  # the validated run file, as orchestrator.spec dumps it
    submitted_by: str
    submitted_at: float
    state: RunState
    queue: str = "default"
    priority: int = 50
    attempts: tuple[Attempt, ...] = ()
    spent: Spent = field(default_factory=Spent)
    previous_failure: Failure | None = None
    sealed_since_failure: bool = True  # a checkpoint was sealed after `previous_failure`
    furthest_step: int = 0
    stop: StopOrder | None = None
    queued_ns: int = 0  # total time in QUEUED, or preparing data, of the spells that are over
    state_since_at: float = 0.0
    ended_at: float | None = None
    version: int = 0  # counts changes; compare-and-set key of the store
    kind: Literal["run", "sweep", "trial"] = "run"
    lineage: Lineage | None = None  # of a trial
    paused: str = ""  # why nothing of it is placed until somebody resumes it; empty: it is not paused
    inspections: tuple[Inspection, ...] = ()  # of the current attempt
    paused_ns: int = 0  # of the pauses that are over: how long it held nothing, after it had been placed once
    stop_for_pause: bool = False  # a pause ordered `stop`: that uses no budget, even if the run is resumed meanwhile

    @property
    def attempt(self) -> Attempt | None:
        """The current attempt: the last one, unless it has ended."""
        return self.attempts[-1] if self.attempts and self.attempts[-1].ended is None else None

    @property
    def terminal(self) -> bool:
        return isinstance(self.state, Terminal)


@dataclass(frozen=True)
class Event:
    """One line of a run's append-only history: what happened, and why. `seq` counts from 1 within the run."""

    run_id: str
    seq: int
    at: float
    kind: str  # e.g. "submitted", "state", "placed", "rank_failed", "checkpoint_sealed", "epoch", "stale_message"
    message: str
    data: Mapping[str, Any] = field(default_factory=dict)
