"""Gangs that have nothing to do: kept a while by shape, because starting host actors is most of a launch."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from orchestrator.cluster.ray_cluster import Gang, RayCluster, Shape

TTL_S = 60.0
Key = tuple[str, int]  # run, attempt
COMING_S = 1.0  # how long to wait for a gang that is being cleared up: less than starting another one takes


class _Any(enum.Enum):
    ANY = enum.auto()


_ANY = _Any.ANY


@dataclass(frozen=True)
class _Idle:
    gang: Gang
    since_s: float  # monotonic
    ready: Key | None = None  # the attempt whose ranks wait in it


class Pool:
    """Counted as free by the inventory: whoever needs the resources reclaims them first."""

    def __init__(self, cluster: RayCluster, ttl_s: float = TTL_S) -> None:
        self._cluster, self._ttl_s = cluster, ttl_s
        self._idle: list[_Idle] = []
        self._coming: list[tuple[Shape, Key | None]] = []
        self._moved = asyncio.Event()

    @contextlib.contextmanager
    def clearing_up(self, shape: Shape, ready: Key | None = None) -> Iterator[None]:
        """A gang of that shape is about to be put back, or not: whoever wants one may wait for it."""
        self._coming.append((shape, ready))
        try:
            yield
        finally:
            self._coming.remove((shape, ready))
            self._moved.set()
            self._moved = asyncio.Event()

    def put(self, gang: Gang, ready: Key | None = None) -> None:
        """`ready`: the attempt whose ranks wait in it. It idles all the same, and goes to whoever needs it."""
        self._idle.append(_Idle(gang, time.monotonic(), ready))

    async def take(self, shape: Shape) -> Gang | None:
        """The one that was put back last, if one has exactly this shape, rather one that is ready for nobody; waits a moment
        for one that is coming.
        """
        await self._wait(lambda: self.holds(shape) or not any(coming == shape for coming, _ in self._coming))
        return self._pop(shape, None) or self._pop(shape)

    async def take_held(self, shape: Shape, key: Key) -> Gang | None:
        """The one in which the attempt's ranks wait; waits a moment for one that is coming."""
        await self._wait(lambda: (shape, key) not in self._coming)
        return self._pop(shape, key)

    async def take_idle(self, shape: Shape) -> Gang | None:
        """One of exactly this shape that is ready for nobody; waits a moment for one that is coming."""
        await self._wait(lambda: self._find(shape, None) is not None or (shape, None) not in self._coming)
        return self._pop(shape, None)

    def take_ready(self, shape: Shape, key: Key) -> Gang | None:
        """The one of that shape in which the attempt's ranks wait."""
        return self._pop(shape, key)

    def waits_for(self, key: Key) -> bool:
        """Whether the attempt's ranks wait in a gang, or are about to."""
        return self._find(None, key) is not None or any(ready == key for _, ready in self._coming)

    def holds(self, shape: Shape) -> bool:
        """Whether a gang of exactly this shape idles."""
        return any(each.gang.shape == shape for each in self._idle)

    @property
    def nodes(self) -> frozenset[str]:
        """On which something idles."""
        return frozenset(node for each in self._idle for node in each.gang.shape.nodes)

    @property
    def host_names(self) -> tuple[str, ...]:
        """Of those in which ranks wait."""
        ready = [each.gang for each in self._idle if each.ready is not None]
        return tuple(gang.host_name(index) for gang in ready for index in range(len(gang.hosts)))

    def _find(self, shape: Shape | None, ready: Key | _Any | None = _ANY) -> _Idle | None:
        """The newest of that shape, of any where None, that is ready for that attempt, or for nobody."""
        for idle in reversed(self._idle):
            if shape in (None, idle.gang.shape) and ready in (_ANY, idle.ready):
                return idle
        return None

    def _pop(self, shape: Shape, ready: Key | _Any | None = _ANY) -> Gang | None:
        idle = self._find(shape, ready)
        if idle is None:
            return None
        self._idle.remove(idle)
        return idle.gang

    async def _wait(self, over: Callable[[], bool]) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(COMING_S):
                while not over():
                    await self._moved.wait()

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
