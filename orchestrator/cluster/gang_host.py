"""A gang's host as the coordinator sees it: the same calls, whether it is this process or an actor on another node."""

from __future__ import annotations

from typing import Protocol

from orchestrator.cluster.gang_messages import HostEvent, HostSnapshot, StartRanks
from orchestrator.cluster.host import Host
from orchestrator.core.runs import Inspection


class GangHost(Protocol):
    """Every call raises HostGone once the host is lost, and StartFailed where it says so in `Host`."""

    @property
    def host(self) -> str: ...

    @property
    def ip(self) -> str: ...

    async def start(self, start: StartRanks) -> tuple[int, ...]: ...

    async def open_store(self, incarnation: int, address: str) -> int: ...

    async def events(self, after: int, timeout_s: float) -> list[tuple[int, HostEvent]]: ...

    async def snapshot(self) -> HostSnapshot: ...

    async def signal_ranks(self, incarnation: int, number: int, *, stopping: bool) -> None: ...

    async def close_incarnation(self, incarnation: int) -> None: ...

    async def dump(self, rank: int) -> str: ...

    async def inspect(self, inspection: Inspection) -> None: ...


class LocalHost:
    """The host in whose process the coordinator lives."""

    def __init__(self, host: Host, name: str, ip: str) -> None:
        self._host, self.host, self.ip = host, name, ip

    async def start(self, start: StartRanks) -> tuple[int, ...]:
        return await self._host.start(start)

    async def open_store(self, incarnation: int, address: str) -> int:
        return await self._host.open_store(incarnation, address)

    async def events(self, after: int, timeout_s: float) -> list[tuple[int, HostEvent]]:
        return await self._host.events(after, timeout_s)

    async def snapshot(self) -> HostSnapshot:
        return self._host.snapshot()

    async def signal_ranks(self, incarnation: int, number: int, *, stopping: bool) -> None:
        self._host.signal_ranks(incarnation, number, stopping=stopping)

    async def close_incarnation(self, incarnation: int) -> None:
        await self._host.close_incarnation(incarnation)

    async def dump(self, rank: int) -> str:
        return await self._host.dump(rank)

    async def inspect(self, inspection: Inspection) -> None:
        self._host.inspect(inspection)
