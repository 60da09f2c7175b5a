"""What the store keeps beside runs: model versions, checkpoints, tokens, clusters, log lines."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from orchestrator.core.runs import Lineage
from orchestrator.core.scheduling.fit import Node


class Role(enum.StrEnum):
    """What a token may do. viewer < user < admin; `agent` may attach a cluster and nothing else."""

    VIEWER = "viewer"
    USER = "user"
    ADMIN = "admin"
    AGENT = "agent"


@dataclass(frozen=True)
class Token:
    """A bearer token as it is kept: the secret itself is never stored, only its SHA-256."""

    id: str
    name: str
    project: str  # "*": every project (the first admin token)
    role: Role
    secret_sha256: str
    created_at: float
    expires_at: float | None = None
    revoked_at: float | None = None


@dataclass(frozen=True)
class Checkpoint:
    """A sealed checkpoint that the server was told of."""

    run_id: str
    attempt: int
    incarnation: int
    step: int
    url: str
    size_bytes: int
    metrics: Mapping[str, float]
    best: bool
    sealed_at: float

    @property
    def key(self) -> tuple[int, int, int]:
        """Unique within the run; the newest checkpoint has the highest."""
        return self.step, self.attempt, self.incarnation


@dataclass(frozen=True)
class ModelVersion:
    project: str
    name: str
    version: int  # 0 in a draft: the store counts, from 1 in each (project, name)
    run_id: str
    checkpoint: str
    metrics: Mapping[str, float]
    created_at: float
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class AliasMove:
    """An alias came to stand on another version; where its newest move put it, it stands."""

    project: str
    name: str
    number: int  # 1, 2, ... in each (project, name), over all of its aliases
    alias: str
    version: int
    before: int  # where it stood until then; 0: nowhere
    at: float
    by: str
    reason: str
    report: Mapping[str, Any] = field(default_factory=dict)  # the judgement that it rests on; JSON, {} for none


@dataclass(frozen=True)
class Ancestor:
    """A version, and what it came from."""

    version: ModelVersion
    run: str  # its name
    submitted_by: str
    submitted_at: float
    data: str  # source of its run
    weights: str  # what it began with, as `init_from` names it; "": random numbers
    champion: int  # the version that it was compared with; 0: none


def registered_with(version: ModelVersion, number: int, alias: str) -> AliasMove:
    """The move of an alias that a version was given when it was registered."""
    by, reason = f"run {version.run_id}", f"version {number} was registered as {alias}"
    return AliasMove(version.project, version.name, 0, alias, number, 0, version.created_at, by, reason)


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster that has attached at least once."""

    name: str
    project: str  # "*": runs of every project may be placed there
    epoch: int  # of its newest agent; hosts and server refuse older ones
    draining: bool = False
    nodes: tuple[Node, ...] = ()
    last_seen_at: float = 0.0
    ray_version: str = ""
    away: tuple[Node, ...] = ()  # that were there before; their hosts are not now


@dataclass(frozen=True)
class LogLine:
    run_id: str
    attempt: int
    incarnation: int
    rank: int  # -1: the coordinator itself speaks
    at: float
    text: str
    source: str  # host actor that read it
    seq: int  # counts from 1 within (attempt, source)


@dataclass(frozen=True)
class LogQuery:
    rank: int | None = None
    attempt: int | None = None
    since_at: float | None = None
    tail: int | None = None


@dataclass(frozen=True)
class RunFilter:
    """Which runs a listing shows; empty fields do not filter."""

    project: str
    states: tuple[str, ...] = ()
    name_prefix: str = ""
    queue: str = ""
    kind: str = ""  # run, sweep or trial
    sweep: str = ""  # only trials of the sweep with this id
    without_trials: bool = False  # a sweep stands for all of its trials


@dataclass(frozen=True)
class Submission:
    """A run that passed every check, on its way into the store. Same `idempotency_key` in a project: the same run."""

    run_id: str
    project: str
    name: str
    spec: Mapping[str, object]
    submitted_by: str
    submitted_at: float
    queue: str
    priority: int
    idempotency_key: str | None = None
    spec_sha256: str = ""  # a key used again with another document is a conflict
    planned: str = ""  # what the planner chose and what it warns of; empty where there is nothing to say
    kind: Literal["run", "sweep", "trial"] = "run"
    lineage: Lineage | None = None
    refused: str = ""  # why it can never work: a trial that is kept all the same, so that nobody tries its point again


@dataclass(frozen=True)
class EventDraft:
    """An event without its number: the store counts."""

    at: float
    kind: str
    message: str
    data: Mapping[str, object] = field(default_factory=dict)
