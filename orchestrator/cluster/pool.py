"""Gangs that have nothing to do: kept a while by shape, because starting host actors is most of a launch."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from orchestrator.cluster.ray_cluster import Gang, RayCluster, Shape

TTL_S = 60.0
COMING_S = 1.0  # how long to wait for a gang that is being cleared up: less than starting another one takes


@dataclass(frozen=True)
class _Idle:
    gang: Gang
    since_s: float  # monotonic


class Pool:
    """Counted as free by the inventory: whoever needs the resources reclaims them first."""

    def __init__(self, cluster: RayCluster, ttl_s: float = TTL_S) -> None:
        self._cluster, self._ttl_s = cluster, ttl_s
        self._idle: list[_Idle] = []
        self._coming: list[Shape] = []
        self._moved = asyncio.Event()

    @contextlib.contextmanager
    def clearing_up(self, shape: Shape) -> Iterator[None]:
        """A gang of that shape is about to be put back, or not: whoever wants one may wait for it."""
        self._coming.append(shape)
        try:
            yield
        finally:
            self._coming.remove(shape)
            self._moved.set()
            self._moved = asyncio.Event()

    def put(self, gang: Gang) -> None:
        self._idle.append(_Idle(gang, time.monotonic()))

    async def take(self, shape: Shape) -> Gang | None:
        """The gang that was put back last, if one has exactly this shape; waits a moment for one that is coming."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(COMING_S):
                while (gang := self._take(shape)) is None and shape in self._coming:
                    await self._moved.wait()
                return gang
        return self._take(shape)

    def holds(self, shape: Shape) -> bool:
        """Whether a gang of exactly this shape idles."""
        return any(each.gang.shape == shape for each in self._idle)

    @property
    def nodes(self) -> frozenset[str]:
        """On which something idles."""
        return frozenset(node for each in self._idle for node in each.gang.shape.nodes)

    def _take(self, shape: Shape) -> Gang | None:
        for idle in reversed(self._idle):
            if idle.gang.shape == shape:
                self._idle.remove(idle)
                return idle.gang
        return None

    async def reclaim(self, nodes: Collection[str]) -> bool:
        """Give back what idles on these nodes; whether there was anything."""
        return await self._remove([each for each in self._idle if each.gang.shape.nodes & set(nodes)])

    async def expire(self) -> None:
        oldest_s = time.monotonic() - self._ttl_s
        await self._remove([each for each in self._idle if each.since_s < oldest_s])

    async def drain(self) -> None:
        await self._remove(list(self._idle))

    async def _remove(self, victims: list[_Idle]) -> bool:
        for each in victims:
            self._idle.remove(each)
        for each in victims:
            await self._cluster.remove(each.gang.group, each.gang.hosts)
        return bool(victims)
