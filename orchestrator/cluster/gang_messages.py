"""What the agent, a gang's coordinator and its hosts say to one another. They travel through Ray, inside one cluster."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.core.failure import RankExit
from orchestrator.core.ledger import Ledger
from orchestrator.core.observations import Inspected
from orchestrator.core.orders import AttemptOrder
from orchestrator.errors import Refused
from trainers import contract


@dataclass(frozen=True)
class Bind:
    """An attempt takes a host. `index` is the host's place among the order's shares."""

    order: AttemptOrder
    index: int
    started_before_s: float = 0.0  # how long the gang was being placed: its workers' accounts begin then
    bundle: bytes | None = None  # of the order's code, where it has any

    @property
    def first_rank(self) -> int:
        return sum(share.ranks for share in self.order.shares[: self.index])

    @property
    def ranks(self) -> range:
        return range(self.first_rank, self.first_rank + self.order.shares[self.index].ranks)

    @property
    def world_size(self) -> int:
        return sum(share.ranks for share in self.order.shares)


@dataclass(frozen=True)
class StartRanks:
    """One incarnation's start, the same for every host of the gang."""

    incarnation: int
    master_addr: str
    master_port: int
    admitted: tuple[contract.Admitted, ...]
    furthest_step: int
    sealed_step: int | None = None  # newest that is known to be sealed; 0: some step of an earlier attempt


@dataclass(frozen=True)
class Said:
    """A rank told something that the coordinator must hear. Steps after the first one are only in the snapshot."""

    incarnation: int
    rank: int
    message: contract.Message


@dataclass(frozen=True)
class Ended:
    incarnation: int
    exit: RankExit


HostEvent = Said | Ended | Inspected


@dataclass(frozen=True)
class RankView:
    """One rank as its host sees it now."""

    rank: int
    alive: bool
    greeted: bool  # it has connected and said hello
    phase: contract.Phase
    silent_s: float  # since its last sign of progress, or its fork
    stepping: bool  # it has told of a step: from here on silence means something
    step: contract.Step | None


@dataclass(frozen=True)
class HostSnapshot:
    incarnation: int
    ranks: tuple[RankView, ...]
    ledger: Ledger


class StartFailed(Exception):
    """The ranks of an incarnation could not be started on this host. `final`: nor will they be another time."""

    def __init__(self, message: str, final: bool = False) -> None:
        super().__init__(message, final)
        self.final = final

    def __str__(self) -> str:
        return str(self.args[0])


class Superseded(Refused):
    """A newer agent owns the cluster, so the call changed nothing. To start this agent again would only evict that one.

    Keepers, hosts and the server all refuse an older agent by this.
    """


class HostGone(Exception):
    """A host of the gang answers no more: its process or its node is lost. Its ranks may live for `fence_s` yet."""

    def __init__(self, host: str, why: str, fence_s: float) -> None:
        super().__init__(host, why, fence_s)
        self.host, self.why, self.fence_s = host, why, fence_s

    def __str__(self) -> str:
        return f"host {self.host} is lost: {self.why}"
