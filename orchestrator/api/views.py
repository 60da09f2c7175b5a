"""What the Python client answers where a core type says too much or too little. Field names are those of the wire."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.core.observations import Progress
from orchestrator.core.records import Cluster, ModelVersion, Role
from orchestrator.core.runs import TERMINAL_NAMES, Event
from orchestrator.protocol.convert import RunView

__all__ = [
    "ClusterView",
    "Comparison",
    "NewToken",
    "RunUpdate",
    "RunView",
    "Seen",
    "SubmitView",
    "TokenView",
]


@dataclass(frozen=True)
class RunUpdate:
    """`run` is None in the early part of a long history: more events follow at once."""

    run: RunView | None = None
    events: tuple[Event, ...] = ()
    progress: Progress | None = None

    @property
    def ended(self) -> bool:
        return self.run is not None and self.run.state in TERMINAL_NAMES


@dataclass(frozen=True)
class Seen:
    """What an inspection found out about a rank, or why nothing about some."""

    ranks: tuple[int, ...]
    ok: bool
    message: str
    text: str = ""  # the stacks, or the operators that took most time
    trace: str | None = None  # of a profile: URL of the Chrome trace


@dataclass(frozen=True)
class SubmitView:
    run: RunView
    created: bool  # False: the idempotency key had been used, and this is the run of then


@dataclass(frozen=True)
class TokenView:
    id: str
    name: str
    project: str
    role: Role
    created_at: float
    expires_at: float | None = None
    revoked_at: float | None = None


@dataclass(frozen=True)
class NewToken:
    secret: str = field(repr=False)  # shown this once
    token: TokenView


@dataclass(frozen=True)
class ClusterView(Cluster):
    """As it is kept, with what only the server's memory knows."""

    connected: bool = False
    running: int = 0  # attempts that hold resources there


@dataclass(frozen=True)
class Comparison:
    """Two versions, and the judgement of the challenger's proof (`orchestrator.drift.proving.Judgement`) as JSON."""

    champion: ModelVersion
    challenger: ModelVersion
    judgement: Mapping[str, Any]
