"""What hosts that are gone left on their nodes: read through the keepers, and sent on until the server has it."""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_right
from collections.abc import Iterable, Sequence

from ray.exceptions import ActorUnavailableError, RayError

from orchestrator.cluster.actors import ANSWER_S, UNREACHABLE_RETRY_S, call
from orchestrator.cluster.keeper import Leftover
from orchestrator.cluster.log_shipping import BATCH_LINES, LogShipper
from orchestrator.cluster.ray_cluster import RayCluster
from orchestrator.core.records import LogLine

log = logging.getLogger(__name__)

KEEPER_PATIENCE_S = 60.0

Key = tuple[str, int]  # run, attempt


class Leftovers:
    def __init__(self, cluster: RayCluster, shipper: LogShipper, epoch: int) -> None:
        self._cluster, self._shipper, self._epoch = cluster, shipper, epoch

    async def of(self, key: Key, node_ids: Iterable[str]) -> list[Leftover]:
        """What the attempt left on those of the nodes that live; mostly nothing."""
        found = [await self.on(key, node_id) for node_id in node_ids]
        return [each for each in found if each is not None and (each.observations or each.lines)]

    async def on(self, key: Key, node_id: str) -> Leftover | None:
        """None when the node is gone, or nobody there answers for a long time."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + KEEPER_PATIENCE_S
        why = "it is gone"
        while node_id in await self._cluster.living_node_ids() and loop.time() < deadline:
            try:
                keeper = await self._cluster.keeper(node_id)
                leftover: Leftover = await call(keeper.leftover.remote(self._epoch, *key), ANSWER_S)
                return leftover
            except (RayError, TimeoutError) as error:
                why = str(error).partition("\n")[0]
                if not isinstance(error, ActorUnavailableError | TimeoutError):
                    self._cluster.forget_keeper(node_id)
                await asyncio.sleep(UNREACHABLE_RETRY_S)
        log.warning("what %s/%d left on node %s cannot be read: %s", *key, node_id, why)
        return None

    async def ship(self, key: Key, lines: Sequence[LogLine]) -> None:
        """Returns once the server has all of `lines`, which are of one source."""
        if not lines:
            return
        source, shipper = (*key, lines[0].source), self._shipper
        while shipper.acknowledged(source) < lines[-1].seq:
            sent = shipper.sent(source)
            begin = bisect_right(lines, sent, key=lambda line: line.seq)  # there may be very many, and as many batches
            if batch := lines[begin : begin + BATCH_LINES]:
                await shipper.ship(source, sent, batch)
            else:
                await shipper.moved()

    async def ship_all(self, key: Key, node_ids: Iterable[str]) -> bool:
        """Everything that the attempt's dead hosts could not send any more; waits for the server as long as it takes.

        False when some of it could not be read: what the node holds is the only copy.
        """
        whole = True
        for node_id in node_ids:
            leftover = await self.on(key, node_id)
            if leftover is None:
                whole = False
            else:
                await self.ship(key, leftover.lines)
        return whole
