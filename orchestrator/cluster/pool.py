"""Gangs that have nothing to do: kept a while by shape, because starting host actors is most of a launch."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass

from orchestrator.cluster.ray_cluster import Gang, RayCluster, Shape

TTL_S = 60.0


@dataclass(frozen=True)
class _Idle:
    gang: Gang
    since_s: float  # monotonic


class Pool:
    """Counted as free by the inventory: whoever needs the resources reclaims them first."""

    def __init__(self, cluster: RayCluster, ttl_s: float = TTL_S) -> None:
        self._cluster, self._ttl_s = cluster, ttl_s
        self._idle: list[_Idle] = []

    def put(self, gang: Gang) -> None:
        self._idle.append(_Idle(gang, time.monotonic()))

    def take(self, shape: Shape) -> Gang | None:
        """The gang that was put back last, if one has exactly this shape."""
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
