"""Which of two agents is the newer one. Each has an epoch, above all that the cluster has heard of when it starts.

The wall clock alone would not do: after it was set back, every agent that starts would count as older than its predecessor.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable

from ray.exceptions import RayError

from orchestrator.cluster.actors import call
from orchestrator.cluster.ray_cluster import RayCluster
from orchestrator.errors import Refused

log = logging.getLogger(__name__)

ASK_TIMEOUT_S = 20.0


class OlderEpoch(Refused):
    """The server knows of a newer epoch, `known`, and has never welcomed this agent."""

    def __init__(self, message: str, known: int) -> None:
        super().__init__(message)
        self.known = known


async def highest_epoch(cluster: RayCluster) -> int:
    """Of all agents that the cluster's keepers and hosts have heard of; 0 where there was none."""
    keepers = [await cluster.keeper(node_id) for node_id in await cluster.living_node_ids()]
    hosts = [host for gang in await cluster.find_gangs() for host in gang.hosts]
    return max(await asyncio.gather(*(_ask(actor.epoch.remote()) for actor in (*keepers, *hosts))), default=0)


async def _ask(answer: Awaitable[int]) -> int:
    try:
        return await call(answer, ASK_TIMEOUT_S)
    except (RayError, TimeoutError) as error:
        log.warning("an actor does not tell its agent's epoch: %s", str(error).partition("\n")[0] or "no answer")
        return 0


def next_epoch(highest: int, now_ns: int) -> int:
    return max(highest + 1, now_ns)
