"""Give an attempt its gang: all of its hosts, or none. From the pool where one has the shape, else from Ray."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import ray.exceptions
from ray.actor import ActorHandle
from ray.util.placement_group import PlacementGroup

from orchestrator.cluster.actors import HostState, call, insist
from orchestrator.cluster.gang_messages import Bind, HostGone, StartFailed
from orchestrator.cluster.network import LOOPBACK
from orchestrator.cluster.pool import Pool
from orchestrator.cluster.ray_cluster import Gang, RayCluster, Shape
from orchestrator.core.observations import Placed
from orchestrator.core.orders import AttemptOrder
from orchestrator.core.runs import Reason, ReasonCode
from trainers.contract import FENCE_NAME

log = logging.getLogger(__name__)

FIRST_LOOK_S = 0.25
LOOK_EVERY_S = 0.5
SPARE_WITHIN_S = 2.0  # Ray's answer where room is free, on a busy machine
SAY_AFTER_S = 1.0
STALE_AFTER_S = 10.0
HOSTS_READY_S = 60.0
BIND_S = 300.0  # the code may be large

FetchBundle = Callable[[str], Awaitable[bytes]]


class Unplaced(Exception):
    """The gang was not placed; nothing of it is held. `final`: nor ever will it be, as it was ordered."""

    def __init__(self, reason: Reason, final: bool) -> None:
        super().__init__(reason.message)
        self.reason, self.final = reason, final


class _CameBack(Exception):
    """While Ray was asked for resources, a gang of the same shape that holds such was put into the pool."""


class Placer:
    def __init__(
        self, cluster: RayCluster, pool: Pool, epoch: int, fetch: FetchBundle, *, stale_after_s: float = STALE_AFTER_S
    ) -> None:
        self._cluster, self._pool, self._epoch, self._fetch = cluster, pool, epoch, fetch
        self._stale_after_s = stale_after_s

    async def place(
        self, order: AttemptOrder, stopped: Callable[[], bool], waits: Callable[[Reason], None]
    ) -> Gang | None:
        """A gang whose coordinator has begun to lead the attempt. None when `stopped` came first. Raises Unplaced."""
        began_s = time.monotonic()
        shape = Shape.of(order)
        bundle = await self._bundle(order)  # first: a gang that was taken must not be lost with it
        if (gang := await self._held(order, shape, bundle, began_s)) is not None:
            return gang
        gone = shape.nodes - await self._cluster.living_node_ids()
        if gone:
            raise Unplaced(_stale(f"the cluster has no node {', '.join(sorted(gone))} any more"), False)
        while True:
            gang = await self._pooled(shape)
            pooled = gang is not None
            try:
                gang = gang or await self._fresh(
                    order, shape, lambda group: self._reserved(shape, group, stopped, waits)
                )
                break
            except _CameBack:
                continue
        if gang is None:
            return None
        await self._lead(gang, order, bundle, Placed(order.shares, time.monotonic() - began_s, pooled))
        return gang

    async def _held(self, order: AttemptOrder, shape: Shape, bundle: bytes | None, began_s: float) -> Gang | None:
        """The gang in which the attempt's ranks wait, if there is one. It was claimed when they were forked: only being led
        is left. Raises Unplaced where no other gang could help."""
        gang = await self._pool.take_held(shape, (order.run_id, order.attempt))
        if gang is None or not await self._all_wait(gang):
            return None
        try:
            await self._lead(gang, order, bundle, Placed(order.shares, time.monotonic() - began_s, True))
        except Unplaced as error:
            if error.final:
                raise
            log.warning("the ranks of %s/%d that were ready are given up: %s", order.run_id, order.attempt, error)
            return None
        return gang

    async def _lead(self, gang: Gang, order: AttemptOrder, bundle: bytes | None, placed: Placed) -> None:
        """Where it fails, the gang is removed. Raises Unplaced."""
        try:
            await self._bind(gang, order, bundle, placed)
        except BaseException:
            await self._cluster.remove(gang.group, gang.hosts)
            raise

    # ---- ahead of a slot ------------------------------------------------------------------------------------------

    async def spare(self, order: AttemptOrder) -> Gang | None:
        """A gang of the order's shape where its place is free now."""
        try:
            return await self._fresh(
                order, Shape.of(order), lambda group: self._cluster.wait_reserved(group, SPARE_WITHIN_S)
            )
        except Unplaced:
            return None

    async def hold(self, gang: Gang, order: AttemptOrder) -> None:
        """Have the ranks of an attempt that has no slot yet get ready in an idle gang. Raises Unplaced: some may wait."""
        try:
            bundle = await self._bundle(order)
            await self._ready(gang)
            binds = [Bind(order, index, 0.0, bundle) for index in range(len(gang.hosts))]
            address = LOOPBACK if len(binds) == 1 else gang.shares[0].ip
            port = await self._hold_on(gang, binds[0], address, None)
            others = (self._hold_on(gang, each, address, port) for each in binds[1:])
            # All of them are waited for: none may still be forking when the gang goes back.
            for answer in await asyncio.gather(*others, return_exceptions=True):
                if isinstance(answer, BaseException):
                    raise answer
        except (StartFailed, HostGone, TimeoutError, ray.exceptions.RayActorError) as error:
            raise Unplaced(_stale(str(error)), False) from error

    async def _hold_on(self, gang: Gang, bind: Bind, address: str, port: int | None) -> int:
        return await call(gang.hosts[bind.index].hold.remote(self._epoch, bind, address, port), BIND_S)

    async def unhold(self, gang: Gang) -> bool:
        """End what waits in it. False where a host of it is in trouble: it is removed then."""
        try:
            await asyncio.gather(*(call(host.release.remote(self._epoch), HOSTS_READY_S) for host in gang.hosts))
        except Exception as error:  # whatever it is: nobody else knows of the gang, which holds its place for ever
            log.warning("%s is given up: %s", gang.id, error)
            await self.give_up(gang)
            return False
        return True

    async def give_up(self, gang: Gang) -> None:
        await self._cluster.remove(gang.group, gang.hosts)

    async def _bundle(self, order: AttemptOrder) -> bytes | None:
        if order.bundle is None:
            return None
        try:
            return await self._fetch(order.bundle)
        except Exception as error:
            raise Unplaced(Reason(ReasonCode.PLACEMENT_STALE, f"no code to run: {error}"), False) from error

    async def _pooled(self, shape: Shape) -> Gang | None:
        while (gang := await self._pool.take(shape)) is not None:
            try:
                await self._ready(gang)
                return gang
            except (TimeoutError, ray.exceptions.RayActorError):
                await self._cluster.remove(gang.group, gang.hosts)
        return None

    async def _all_wait(self, gang: Gang) -> bool:
        """Whether every rank of it lives and waits. Those that have met one that is dead would only break once they go on:
        they end, and the gang idles again, or is removed where a host of it is dead.
        """
        if len(gang.hosts) == 1:
            return True  # its host sees for itself
        try:
            waiting = {each.waiting for each in await self._ready(gang)}
        except (TimeoutError, ray.exceptions.RayActorError):
            await self.give_up(gang)
            return False
        if len(waiting) == 1 and None not in waiting:
            return True
        if await self.unhold(gang):
            self._pool.put(gang)
        return False

    async def _fresh(
        self, order: AttemptOrder, shape: Shape, reserved: Callable[[PlacementGroup], Awaitable[bool]]
    ) -> Gang | None:
        gang_id, group = await self._cluster.reserve(shape)
        try:
            if not await reserved(group):
                await self._cluster.remove(group, ())
                return None
            gang = self._cluster.start_hosts(gang_id, shape, group, order.shares[: len(shape.bundles)])
        except BaseException:
            await self._cluster.remove(group, ())
            raise
        try:
            await self._ready(gang)
        except BaseException as error:
            await self._cluster.remove(group, gang.hosts)
            if not isinstance(error, TimeoutError | ray.exceptions.RayError):
                raise  # a newer agent has the cluster, or ours ends: the hosts must go all the same
            raise Unplaced(_stale(f"the hosts did not come up within {HOSTS_READY_S:g} s: {error}"), False) from error
        return gang

    async def _reserved(
        self,
        shape: Shape,
        group: PlacementGroup,
        stopped: Callable[[], bool],
        waits: Callable[[Reason], None],
    ) -> bool:
        """Wait for the placement group; False when the attempt was stopped before. Raises Unplaced and _CameBack."""
        began_s = time.monotonic()
        look_s = FIRST_LOOK_S
        said = ""
        while not await self._cluster.wait_reserved(group, look_s):
            look_s = LOOK_EVERY_S
            if stopped():
                return False
            if self._pool.holds(shape):
                raise _CameBack
            if await self._pool.reclaim(shape.nodes):
                continue
            waited_s = time.monotonic() - began_s
            lacks = await self._lacks(shape)
            if waited_s > self._stale_after_s:
                raise Unplaced(_stale(f"{lacks}; waited {self._stale_after_s:g} s"), False)
            if lacks != said and waited_s > SAY_AFTER_S:
                said = lacks
                waits(Reason(ReasonCode.WAITING_FOR_CAPACITY, lacks))
        return True

    async def _lacks(self, shape: Shape) -> str:
        nodes = {node.id: node for node in await self._cluster.nodes()}
        wanted: dict[str, list[float]] = {}
        for node_id, _, cpu, gpu, memory in shape.bundles:
            have = wanted.setdefault(node_id, [0.0, 0.0, 0.0])
            for place, amount in enumerate((cpu, gpu, memory)):
                have[place] += amount
        parts = []
        for node_id, (want_cpu, want_gpu, want_memory) in wanted.items():
            node = nodes.get(node_id)
            if node is None:
                parts.append(f"node {node_id} is gone")
            elif want_cpu > node.free_cpu or want_gpu > node.free_gpu or want_memory > node.free_memory:
                others = f"{node.cpu - node.free_cpu:g} CPU and {node.gpu - node.free_gpu:g} GPU"
                parts.append(f"{node.host}: {want_cpu:g} CPU and {want_gpu:g} GPU wanted, others on Ray hold {others}")
        return "; ".join(parts) or "Ray has not reserved the nodes yet: other gangs hold them"

    async def _ready(self, gang: Gang) -> Sequence[HostState]:
        async with asyncio.timeout(HOSTS_READY_S):
            return await asyncio.gather(*(call(host.claim.remote(self._epoch), HOSTS_READY_S) for host in gang.hosts))

    async def _bind(self, gang: Gang, order: AttemptOrder, bundle: bytes | None, placed: Placed) -> None:
        binds = [Bind(order, index, placed.seconds, bundle) for index in range(len(gang.hosts))]
        try:
            await self._insist_on_earlier_seals(gang, order)
            await self._insist_on_shared_path(gang, order)
            others = list(zip(gang.hosts[1:], gang.shares[1:], strict=True))
            await asyncio.gather(
                *(self._insist_on_bind(host, bind) for (host, _), bind in zip(others, binds[1:], strict=True))
            )
            first, epoch = gang.hosts[0], self._epoch
            await insist(lambda: first.coordinate.remote(epoch, binds[0], others, placed), within_s=BIND_S)
        except StartFailed as error:
            raise Unplaced(Reason(ReasonCode.NOT_RETRIABLE, str(error)), error.final) from error
        except (HostGone, ray.exceptions.RayActorError, TimeoutError) as error:
            raise Unplaced(_stale(f"a host died while it was given to the attempt: {error}"), False) from error

    async def _insist_on_bind(self, host: ActorHandle[Any], bind: Bind) -> None:
        await insist(lambda: host.bind.remote(self._epoch, bind), within_s=BIND_S)

    async def _insist_on_earlier_seals(self, gang: Gang, order: AttemptOrder) -> None:
        """What earlier attempts sealed must be visible here: starting from nothing would throw their work away."""
        path = _on_disk(order.checkpoint_root)
        if not order.sealed_before or path is None:
            return
        if not await call(gang.hosts[0].sees_probe.remote(self._epoch, f"{path}/{FENCE_NAME}")):
            message = (
                f"storage {path} of earlier attempts cannot be seen from {order.shares[0].host}: their checkpoints "
                "are on the disk of another host. Name a bucket or a shared file system under `storage`, and submit again."
            )
            raise Unplaced(Reason(ReasonCode.NOT_RETRIABLE, message), True)

    async def _insist_on_shared_path(self, gang: Gang, order: AttemptOrder) -> None:
        """Several hosts must see the same checkpoints: the first one writes a file, the others look for it."""
        path = _on_disk(order.checkpoint_root)
        if len(gang.hosts) == 1 or path is None:
            return
        probe = f"{path}/.probe-{uuid.uuid4().hex}"
        try:
            await call(gang.hosts[0].write_probe.remote(self._epoch, probe))
            seen: Sequence[bool] = await asyncio.gather(
                *(call(host.sees_probe.remote(self._epoch, probe)) for host in gang.hosts[1:])
            )
        except OSError as error:
            raise Unplaced(
                Reason(ReasonCode.NOT_RETRIABLE, f"storage {path} cannot be written: {error}"), True
            ) from error
        finally:
            await call(gang.hosts[0].remove_probe.remote(self._epoch, probe))
        blind = [share.host for share, sees in zip(order.shares[1:], seen, strict=True) if not sees]
        if blind:
            message = (
                f"storage {path} is local to each host: {', '.join(blind)} cannot see what {order.shares[0].host} "
                "writes there. Name a bucket or a shared file system under `storage`, or ask for workers on one node."
            )
            raise Unplaced(Reason(ReasonCode.NOT_RETRIABLE, message), True)


def _on_disk(root: str) -> str | None:
    """The path that a checkpoint root names; None for one in a bucket."""
    path = root.removeprefix("file://").rstrip("/")
    return None if "://" in path else path


def _stale(message: str) -> Reason:
    return Reason(ReasonCode.PLACEMENT_STALE, message)
