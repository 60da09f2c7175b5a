"""Gangs that get ready for attempts which have no slot yet, so that a slot that becomes free trains again at once.

An attempt that is told of ahead holds nothing: its gang idles in the pool, or takes what is free, and whoever needs the place
has it. Its ranks wait before their first step. When the attempt is placed, its attendant finds the gang in the pool;
whatever goes wrong before only costs the time that it would have saved.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Coroutine, Sequence

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
STEPPED_WITHIN_S = (
    2.0  # of an attempt that has been placed: until then nobody gets ready on the cores that its start needs
)
LOOK_S = 0.02


class Standby:
    """For one event loop. Each attempt's gang is made ready once at most: one that the pool gave up is not made again.

    `starting`: whether a placed attempt has not stepped yet.
    """

    def __init__(self, pool: Pool, placer: Placer, starting: Callable[[], bool]) -> None:
        self._pool, self._placer, self._starting = pool, placer, starting
        self._making: dict[Key, asyncio.Task[None]] = {}
        self._leaving: set[asyncio.Task[None]] = set()

    @property
    def keys(self) -> tuple[Key, ...]:
        """Attempts whose files on the nodes must stay."""
        return tuple(self._making)

    def want(self, ahead: Sequence[AttemptOrder], placed: Collection[Key]) -> None:
        """Level-triggered: `ahead` are all that should get ready; what did, and is neither there nor `placed`, goes."""
        wanted = {(order.run_id, order.attempt): order for order in ahead if suits(order)}
        for key in [each for each in self._making if each not in wanted]:
            self._later(self._give_up(key, self._making.pop(key), TAKEN_WITHIN_S if key in placed else 0.0))
        for key, order in wanted.items():
            if key not in self._making:
                self._making[key] = asyncio.create_task(self._try(key, order), name=f"standby {key[0]}/{key[1]}")

    async def close(self) -> None:
        """What is ready goes with the pool."""
        tasks = [*self._making.values(), *self._leaving]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _try(self, key: Key, order: AttemptOrder) -> None:
        try:
            await self._make(key, order)
        except Superseded as error:  # the agent's own loops hear of it as well, and end it
            log.warning("%s/%d: %s", *key, error)
        except Exception:
            log.exception("the ranks of %s/%d do not get ready ahead", *key)

    async def _make(self, key: Key, order: AttemptOrder) -> None:
        await self._others_step()
        shape = Shape.of(order)
        gang = await self._pool.take_idle(shape)
        with self._pool.clearing_up(shape, key):
            gang = gang or await self._placer.spare(order)
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

    async def _give_up(self, key: Key, making: asyncio.Task[None], after_s: float) -> None:
        """Unless its attendant has taken it by then."""
        await asyncio.wait({making})
        await asyncio.sleep(after_s)
        gang = self._pool.take_ready(key)
        if gang is not None:
            await self._put_back(gang)

    async def _put_back(self, gang: Gang) -> None:
        if await self._placer.unhold(gang):
            self._pool.put(gang)

    def _later(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)


def suits(order: AttemptOrder) -> bool:
    """Whether its ranks can wait before their first step: not those of a script, which does what it likes; nor may they hold
    a GPU's memory, or wait for data that are still to be prepared.
    """
    spec = order.spec
    return not (spec.get("script") or uses_ray_train(spec) or prepares_data(spec) or accelerator_of(spec) != "cpu")
