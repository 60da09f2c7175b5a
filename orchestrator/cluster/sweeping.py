"""What no attempt owns any more is taken away from every node, once its lines are with the server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
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
        self._strays: dict[tuple[str, str, int], asyncio.Task[bool]] = {}  # by node, run, attempt: lines being sent

    async def sweep(self) -> None:
        """Every node that answers and does not rest. Only once the orders are known: they say which attempts live.

        Raises Superseded.
        """
        nodes = await self._cluster.living_node_ids() - self._cluster.resting
        for gone in {node_id for node_id, *_ in self._strays} - nodes:
            self._forget_strays(gone, ())
        for node_id in sorted(nodes):
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
        self._forget_strays(node_id, unsent)

    def _sent(self, node_id: str, key: Key) -> bool:
        """Whether the server has the lines of an attempt that ended with nobody there to send them; sees to it."""
        place = (node_id, *key)
        task = self._strays.get(place)
        if task is None or (task.done() and not _delivered(task)):
            task = self._strays[place] = asyncio.create_task(self._leftovers.ship_all(key, [node_id]))
        return task.done()

    def _forget_strays(self, node_id: str, unsent: Collection[Key]) -> None:
        """The files of all but `unsent` are gone."""
        for place, task in list(self._strays.items()):
            if place[0] == node_id and place[1:] not in unsent and task.done():
                del self._strays[place]


def _delivered(task: asyncio.Task[bool]) -> bool:
    """Whether what was to be sent is with the server. If not, it will be tried again."""
    error = task.exception()
    if error is not None:
        log.warning("lines of an attempt that is over are not sent yet: %r", error)
    return error is None and task.result()
