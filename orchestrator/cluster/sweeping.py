"""What no attempt owns any more is taken away from every node, once its lines are with the server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ray.exceptions import RayError

from orchestrator.cluster.actors import call, short
from orchestrator.cluster.leftovers import Key, Leftovers
from orchestrator.cluster.ray_cluster import RayCluster

log = logging.getLogger(__name__)

CALL_S = 30.0  # for a keeper to answer


@dataclass(frozen=True)
class Living:
    """Whose files and CPUs must stay."""

    attempts: Sequence[Key]
    host_names: Sequence[str]


class Sweeper:
    """`living` is asked for what must stay; None while that is not known."""

    def __init__(
        self, cluster: RayCluster, leftovers: Leftovers, epoch: int, living: Callable[[], Living | None]
    ) -> None:
        self._cluster, self._leftovers, self._epoch, self._living = cluster, leftovers, epoch, living
        self._strays: dict[tuple[str, str, int], asyncio.Task[None]] = {}  # by node, run, attempt: lines being sent

    async def sweep(self) -> None:
        """Every node that answers. Only after the orders are known: they say which attempts live. Raises Superseded."""
        for node_id in sorted(await self._cluster.living_node_ids()):
            try:
                await self._sweep(node_id)
            except (RayError, OSError) as error:  # the next sweep comes; a TimeoutError is an OSError
                log.warning("node %s is not swept: %s", node_id, short(error))

    async def _sweep(self, node_id: str) -> None:
        """What lives is asked for again before each call: the nodes before this one may have taken minutes to answer."""
        keeper = await self._cluster.keeper(node_id)
        if (living := self._living()) is None:
            return
        strays: Sequence[Key] = await call(keeper.strays.remote(self._epoch, living.attempts), CALL_S)
        unsent = [key for key in strays if not self._sent(node_id, key)]
        if (living := self._living()) is None:
            return
        await call(keeper.sweep.remote(self._epoch, [*living.attempts, *unsent], living.host_names), CALL_S)

    def _sent(self, node_id: str, key: Key) -> bool:
        """Whether the server has the lines of an attempt that ended with nobody there to send them; sees to it."""
        place = (node_id, *key)
        if place not in self._strays:
            self._strays[place] = asyncio.create_task(self._leftovers.ship_all(key, [node_id]))
        return self._strays[place].done()
