"""Gangs that get ready for attempts which have no slot yet, so that a slot that becomes free trains again at once.

An attempt that is told of ahead holds nothing: its gang idles in the pool, or takes what is free, and whoever needs the place
has it. Its ranks wait before their first step. When the attempt is placed, its attendant finds the gang in the pool;
whatever goes wrong before only costs the time that it would have saved.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.cluster.gang_messages import Superseded
from orchestrator.cluster.placing import Placer, Unplaced
from orchestrator.cluster.pool import Key, Pool
from orchestrator.cluster.rank_env import accelerator_of
from orchestrator.cluster.ray_cluster import Gang, Shape
from orchestrator.cluster.ray_train import uses_ray_train
from orchestrator.core.orders import AttemptOrder
from orchestrator.spec import prepares_data

log = logging.getLogger(__name__)

TAKEN_WITHIN_S = 10.0  # by the attendant of an attempt that has been placed
STEPPED_WITHIN_S = 2.0  # of an attempt that has been placed: nobody else gets ready on its cores until then
LOOK_S = 0.02


@dataclass(frozen=True)
class _Ready:
    """A gang that gets ready, or is."""

    shape: Shape
    making: asyncio.Task[None]


class Standby:
    """For one event loop. Each attempt's gang is made ready once at most in one place: one that the pool gave up is not made
    again, unless the attempt is to get ready elsewhere.

    `starting`: whether a placed attempt has not stepped yet.
    """

    def __init__(self, pool: Pool, placer: Placer, starting: Callable[[], bool]) -> None:
        self._pool, self._placer, self._starting = pool, placer, starting
        self._ready: dict[Key, _Ready] = {}
        self._leaving: set[asyncio.Task[None]] = set()

    @property
    def keys(self) -> tuple[Key, ...]:
        """Attempts whose files on the nodes must stay."""
        return tuple(self._ready)

    def want(self, ahead: Sequence[AttemptOrder], placed: Mapping[Key, AttemptOrder]) -> None:
        """Level-triggered: `ahead` are all that should get ready, and where; what did, and is neither there nor `placed`,
        goes. An attempt that is to get ready elsewhere does so once its first gang has gone.
        """
        wanted = {(order.run_id, order.attempt): order for order in ahead if suits(order)}
        leaving: dict[Key, asyncio.Task[None]] = {}
        for key, ready in list(self._ready.items()):
            if key not in wanted or Shape.of(wanted[key]) != ready.shape:
                del self._ready[key]
                taken = key in placed and Shape.of(placed[key]) == ready.shape
                leaving[key] = self._later(self._give_up(key, ready, TAKEN_WITHIN_S if taken else 0.0))
        for key, order in wanted.items():
            if key not in self._ready:
                work = self._try(key, order, leaving.get(key))
                making = asyncio.create_task(work, name=f"standby {key[0]}/{key[1]}")
                self._ready[key] = _Ready(Shape.of(order), making)

    async def close(self) -> None:
        """What is ready goes with the pool."""
        tasks = [*(each.making for each in self._ready.values()), *self._leaving]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _try(self, key: Key, order: AttemptOrder, first: asyncio.Task[None] | None) -> None:
        if first is not None:
            await asyncio.wait({first})
        try:
            await self._make(key, order)
        except Superseded as error:  # the agent's own loops hear of it as well, and end it
            log.warning("%s/%d: %s", *key, error)
        except Exception:
            log.exception("the ranks of %s/%d do not get ready ahead", *key)

    async def _make(self, key: Key, order: AttemptOrder) -> None:
        await self._others_step()
        if key not in self._ready or self._ready[key].making is not asyncio.current_task():
            return  # placed meanwhile, wanted no more, or elsewhere
        shape = Shape.of(order)
        gang = await self._pool.take_idle(shape)
        with self._pool.clearing_up(shape, key):
            gang = gang or await self._placer.spare(order)
            gang = gang or await self._pool.take_idle(shape)  # its place may have been that of one that has come back
            if gang is None:
                return
            try:
                await self._placer.hold(gang, order)
            except Unplaced as error:
                log.warning("the ranks of %s/%d do not get ready ahead: %s", *key, error)
                await self._put_back(gang)
            except BaseException:  # a newer agent has the cluster, or ours ends
                await self._placer.give_up(gang)
                raise
            else:
                self._pool.put(gang, key)

    async def _others_step(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STEPPED_WITHIN_S):
                while self._starting():
                    await asyncio.sleep(LOOK_S)

    async def _give_up(self, key: Key, ready: _Ready, after_s: float) -> None:
        """Unless its attendant has taken it by then."""
        await asyncio.wait({ready.making})
        await asyncio.sleep(after_s)
        gang = self._pool.take_ready(ready.shape, key)
        if gang is not None:
            await self._put_back(gang)

    async def _put_back(self, gang: Gang) -> None:
        if await self._placer.unhold(gang):
            self._pool.put(gang)

    def _later(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)
        return task


def suits(order: AttemptOrder) -> bool:
    """Whether its ranks can wait before their first step: not those of a script, which does what it likes; nor may they hold
    a GPU's memory, or wait for data that are still to be prepared.
    """
    spec = order.spec
    return not (spec.get("script") or uses_ray_train(spec) or prepares_data(spec) or accelerator_of(spec) != "cpu")
