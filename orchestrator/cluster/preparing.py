"""The agent's part in preparing an attempt's data: on every node of its order, before any of them gives it a worker."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable

from ray.exceptions import ActorUnavailableError, RayActorError, RayError

from orchestrator.cluster.actors import ANSWER_S, UNREACHABLE_RETRY_S, call
from orchestrator.cluster.placing import Unplaced
from orchestrator.cluster.pool import Pool
from orchestrator.cluster.preparation import Key, PreparationReport
from orchestrator.cluster.ray_cluster import RayCluster
from orchestrator.core.ledger import Ledger
from orchestrator.core.observations import Progress
from orchestrator.core.orders import AttemptOrder
from orchestrator.core.runs import Failure, NodeShare, Reason, ReasonCode
from trainers.contract import Preparing

POLL_S = 5.0


class NotPrepared(Exception):
    """What keeps the data from being ready; nothing of the attempt was placed."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class Preparer:
    def __init__(self, cluster: RayCluster, pool: Pool, epoch: int) -> None:
        self._cluster, self._pool, self._epoch = cluster, pool, epoch

    async def prepare(
        self, order: AttemptOrder, waits: Callable[[Reason], None], progress: Callable[[Progress], None]
    ) -> None:
        """Returns once the data are ready on every node. `waits` hears each part of the work once, `progress` all words.

        Raises NotPrepared, Unplaced when a node is gone, and Superseded. Cancelling leaves the work to the next agent.
        """
        try:
            async with asyncio.TaskGroup() as group:
                for share in {each.node_id: each for each in order.shares}.values():
                    group.create_task(self._on(share, order, waits, progress))
        except* Exception as errors:
            raise _first(errors) from None
        await self.forget((order.run_id, order.attempt), [share.node_id for share in order.shares])

    async def forget(self, key: Key, node_ids: Iterable[str]) -> None:
        """End what still runs of it on the nodes that answer. Raises Superseded."""
        for node_id in dict.fromkeys(node_ids):
            with contextlib.suppress(RayError, OSError):  # a TimeoutError is an OSError; the next sweep comes
                keeper = await self._cluster.keeper(node_id)
                await call(keeper.forget_preparation.remote(self._epoch, *key), ANSWER_S)

    async def _on(
        self,
        share: NodeShare,
        order: AttemptOrder,
        waits: Callable[[Reason], None],
        progress: Callable[[Progress], None],
    ) -> None:
        heard, said = 0, ""
        while True:
            report = await self._report(share, order, heard)
            if isinstance(report.ended, Failure):
                raise NotPrepared(report.ended)
            if report.ended is not None:
                where = f"the data are ready on {share.host}, in {report.ended.directory}: report.html there shows them"
                waits(Reason(ReasonCode.PREPARING_DATA, where))
                return
            heard = report.version
            if report.doing is None:
                continue
            if report.doing.words != said:
                said = report.doing.words
                waits(Reason(ReasonCode.PREPARING_DATA, f"preparing data on {share.host}: {said}"))
            progress(_progress(order, report.doing))
            if report.doing.on_ray:  # its tasks need CPUs that idle gangs may hold
                await self._pool.reclaim(await self._cluster.living_node_ids())

    async def _report(self, share: NodeShare, order: AttemptOrder, heard: int) -> PreparationReport:
        """Asked again while the keeper is away: where Ray has started another one, that one begins anew."""
        while share.node_id in await self._cluster.living_node_ids():
            try:
                keeper = await self._cluster.keeper(share.node_id)
                report: PreparationReport = await call(
                    keeper.prepare.remote(self._epoch, order, heard, POLL_S), POLL_S + ANSWER_S
                )
                return report
            except (ActorUnavailableError, TimeoutError):
                pass
            except RayActorError:
                self._cluster.forget_keeper(share.node_id)
                heard = 0
            await asyncio.sleep(UNREACHABLE_RETRY_S)
        message = f"the cluster has no node {share.node_id} any more"
        raise Unplaced(Reason(ReasonCode.PLACEMENT_STALE, message), False)


def _progress(order: AttemptOrder, doing: Preparing) -> Progress:
    pieces = f", {doing.done} of {doing.of} pieces" if doing.of else ""
    phase = f"preparing data: {doing.words}{pieces}"
    return Progress(order.run_id, order.attempt, 0, phase, time.time(), ledger=Ledger())


def _first(errors: BaseExceptionGroup[Exception]) -> Exception:
    """What to act on of several: that the agent is superseded or a node is gone before what is wrong with the data."""
    flat = [each for each in errors.exceptions if isinstance(each, Exception)]
    return next((each for each in flat if not isinstance(each, NotPrepared)), flat[0])
