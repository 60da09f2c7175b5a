"""The Ray side of keepers and hosts: thin actors that add fencing by the agent's epoch and carry calls across nodes.

Neither imports torch: an actor must start in a few tenths of a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import ray
from ray.actor import ActorHandle
from ray.exceptions import ActorUnavailableError, RayActorError, RayTaskError

from orchestrator.bundle import unpack
from orchestrator.cluster.fencing import FENCE_S, keep_contact
from orchestrator.cluster.gang import Coordinator
from orchestrator.cluster.gang_host import GangHost, LocalHost
from orchestrator.cluster.gang_messages import (
    Bind,
    HostEvent,
    HostGone,
    HostSnapshot,
    StartFailed,
    StartRanks,
    Superseded,
)
from orchestrator.cluster.gang_story import GangStory, Report
from orchestrator.cluster.host import Host, HostIdentity
from orchestrator.cluster.keeper import Keeper, Leftover
from orchestrator.cluster.local_dirs import NodeDirs
from orchestrator.cluster.node_epoch import NodeEpoch
from orchestrator.cluster.orphans import adopt_orphans
from orchestrator.cluster.outbox import Outbox
from orchestrator.cluster.preparation import PreparationReport, Preparations
from orchestrator.cluster.rank_env import Accelerator, accelerator_of
from orchestrator.cluster.ray_train import RayTrainRanks, uses_ray_train
from orchestrator.core.observations import Placed
from orchestrator.core.orders import AttemptOrder
from orchestrator.core.records import LogLine
from orchestrator.core.runs import Inspection, NodeShare, StopOrder

NAMESPACE = "evertrain"
KEEPER_PREFIX = "keeper-"
HOST_NICENESS = 10  # what watches the ranks works in the gaps that they leave, and starts none of them
_RETIRE_EVERY_S = 60.0
UNREACHABLE_RETRY_S = 0.5
ANSWER_S = FENCE_S
KEEPER_BACK_S = 30.0  # within which Ray has started a dead keeper again
_STILL_THERE_S = 5.0

T = TypeVar("T")


def keeper_name(node_id: str) -> str:
    return KEEPER_PREFIX + node_id


async def call(reference: Awaitable[T], timeout_s: float | None = None) -> T:
    """The answer of an actor. An exception that the method raised comes as itself and not in Ray's wrapping.

    Raises TimeoutError after `timeout_s`: a host that is cut off answers nothing, and Ray does not notice for minutes.
    """
    try:
        async with asyncio.timeout(timeout_s):
            return await reference
    except RayTaskError as error:
        if isinstance(error.cause, Exception):
            raise error.cause from None
        raise


async def insist(method: Callable[[], Awaitable[T]], *, within_s: float = 0.0) -> T:
    """The answer of an actor, asked again for as long as Ray cannot reach it: that is not to be dead.

    For methods that may run twice, and that answer `within_s` when all is well. Raises RayActorError once Ray knows that
    the actor is dead.
    """
    while True:
        try:
            return await call(method(), within_s + ANSWER_S)
        except (ActorUnavailableError, TimeoutError):
            await asyncio.sleep(UNREACHABLE_RETRY_S)


def take_priority(niceness: int) -> None:
    """Ray runs its workers at niceness 15, and what they start inherits it: ranks would yield to everything else.

    Raising it needs the right to do so (CAP_SYS_NICE); where that is missing, start Ray with RAY_worker_niceness=0.
    """
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, int(thread), niceness)


class KeeperActor:
    """Every call of an agent carries its epoch; an older agent than the newest one heard of is refused."""

    def __init__(self, local_root: str) -> None:
        logging.basicConfig(level=logging.INFO)
        take_priority(0)  # zygotes, and ranks by them, inherit it
        adopt_orphans()
        context = ray.get_runtime_context()
        dirs = NodeDirs(local_root, context.get_node_id())
        self._keeper = Keeper(dirs, os.getppid())
        self._preparations = Preparations(
            dirs, context.get_node_id(), self._keeper.zygote, ray_environment(context.gcs_address)
        )
        self._retiring: asyncio.Task[None] | None = None
        self._warming: asyncio.Task[None] | None = None

    async def claim(self, epoch: int) -> None:
        """Every agent comes by every few seconds. The first one has a zygote warmed."""
        self._keeper.claim(epoch)
        if self._warming is None:
            self._warming = asyncio.create_task(self._warm())

    async def epoch(self) -> int:
        return self._keeper.epoch

    async def zygote(self, environment: Mapping[str, object], accelerator: Accelerator) -> str:
        if self._retiring is None:  # not in `claim`: nobody claims a keeper that Ray has started again
            self._retiring = asyncio.create_task(self._retire_idle())
        return await self._keeper.zygote(environment, accelerator)

    async def seize_cpus(self, owner: str, count: int) -> tuple[int, ...] | None:
        return self._keeper.seize_cpus(owner, count)

    async def release_cpus(self, owner: str) -> None:
        self._keeper.release_cpus(owner)

    async def leftover(self, epoch: int, run_id: str, attempt: int) -> Leftover:
        self._keeper.claim(epoch)
        return self._keeper.leftover(run_id, attempt)

    async def strays(self, epoch: int, attempts: Collection[tuple[str, int]]) -> list[tuple[str, int]]:
        self._keeper.claim(epoch)
        return await self._keeper.strays(attempts)

    async def sweep(self, epoch: int, attempts: Collection[tuple[str, int]], owners: Collection[str]) -> None:
        self._keeper.claim(epoch)
        await self._preparations.sweep(attempts)
        await self._keeper.sweep(attempts, owners)

    async def prepare(self, epoch: int, order: AttemptOrder, after: int, timeout_s: float) -> PreparationReport:
        """Have the attempt's data prepared here, and wait for a word above `after`. May be called again."""
        self._keeper.claim(epoch)
        return await self._preparations.report(order, after, timeout_s)

    async def forget_preparation(self, epoch: int, run_id: str, attempt: int) -> None:
        """End it, where there is one. May be called again."""
        self._keeper.claim(epoch)
        await self._preparations.forget((run_id, attempt))

    async def _warm(self) -> None:
        """Have the zygote ready that the next run here will most likely ask for: GPUs are not bought to lie idle."""
        nodes: Sequence[Mapping[str, Any]] = await asyncio.to_thread(ray.nodes)
        here = ray.get_runtime_context().get_node_id()
        gpus = sum(node["Resources"].get("GPU", 0) for node in nodes if node["NodeID"] == here)
        try:
            await self.zygote({}, accelerator_of({"resources": {"gpu": gpus}}))
        except StartFailed as error:  # a run that needs it is told; trying again before would only heat the node
            logging.getLogger(__name__).error("no zygote is warm: %s", error)

    async def _retire_idle(self) -> None:
        while True:
            await asyncio.sleep(_RETIRE_EVERY_S)
            await self._keeper.retire_idle()


def ray_environment(gcs_address: str) -> dict[str, str]:
    """What a driver of its own beside this actor needs to join the cluster."""
    credentials = {name: value for name, value in os.environ.items() if name.startswith("RAY_AUTH_")}
    return {**credentials, "RAY_ADDRESS": gcs_address}


class RemoteKeeper:
    """The node's keeper, called from a host of the same node. All of its methods may run twice.

    A keeper that died took its zygotes along, so whoever is waiting for it here has just lost its ranks: that is one
    failure, and waiting for the next keeper must not become another one.
    """

    def __init__(self, node_id: str) -> None:
        self._name = keeper_name(node_id)
        self._handle: ActorHandle[Any] | None = None

    async def zygote(self, environment: Mapping[str, object], accelerator: Accelerator) -> str:
        return await self._call(lambda keeper: keeper.zygote.remote(environment, accelerator))

    async def seize_cpus(self, owner: str, count: int) -> tuple[int, ...] | None:
        return await self._call(lambda keeper: keeper.seize_cpus.remote(owner, count))

    async def release_cpus(self, owner: str) -> None:
        await self._call(lambda keeper: keeper.release_cpus.remote(owner))

    async def _call(self, method: Callable[[ActorHandle[Any]], Awaitable[T]]) -> T:
        loop = asyncio.get_running_loop()
        deadline = math.inf  # from when it was missed: it may have built an environment for minutes before
        while True:
            try:
                if self._handle is None:
                    self._handle = await asyncio.to_thread(ray.get_actor, self._name, NAMESPACE)
                return await call(method(self._handle), None)  # it may have to build an environment first
            except (RayActorError, ValueError) as error:
                self._handle = None
                deadline = min(deadline, loop.time() + KEEPER_BACK_S)
                if loop.time() > deadline:
                    raise StartFailed(f"the keeper of this node does not answer: {short(error)}") from error
            await asyncio.sleep(UNREACHABLE_RETRY_S)


@dataclass(frozen=True)
class HostState:
    """What an agent that finds a host learns of it."""

    attempt: tuple[str, int] | None
    placed: Placed | None  # on the coordinating host
    waiting: tuple[str, int] | None = None  # the attempt whose ranks here wait for a slot, all of them living


class HostActor:
    """Holds one bundle of a gang's placement group; on rank 0's node it coordinates the gang as well."""

    def __init__(self, name: str, share: NodeShare, local_root: str) -> None:
        logging.basicConfig(level=logging.INFO)
        take_priority(HOST_NICENESS)
        context = ray.get_runtime_context()
        self._name, self._share = name, share
        self._node_id = context.get_node_id()
        self._dirs = NodeDirs(local_root, self._node_id)
        self._host = Host(
            HostIdentity(name, share.host, share.ip), self._dirs, RemoteKeeper(self._node_id), unpack=unpack
        )
        self._epoch = 0
        self._node_epoch = NodeEpoch(self._dirs.epoch)
        self._binding = asyncio.Lock()
        self._leader: Coordinator | None = None
        self._train: RayTrainRanks | None = None
        self._story: GangStory | None = None
        self._outbox: Outbox | None = None
        self._placed: Placed | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._gcs_address = context.gcs_address

    # ---- for the agent --------------------------------------------------------------------------------------------

    async def epoch(self) -> int:
        return self._epoch

    async def claim(self, epoch: int) -> HostState:
        """Answers once the host is up. Raises Superseded, also when only the node has heard of the newer agent yet."""
        self._node_epoch.insist_on(epoch, f"the node of host {self._name}")
        self._admit(epoch)
        if not self._tasks:
            self._keep(keep_contact(self._gcs_address, os.getppid(), self._fence))
        return HostState(_attempt_of(self._host.bound), self._placed, _attempt_of(self._host.waiting))

    async def bind(self, epoch: int, bind: Bind) -> None:
        """May be called again for the same attempt."""
        self._admit(epoch)
        async with self._binding:
            if _attempt_of(self._host.bound) != _attempt_of(bind):
                await self._host.bind(bind)

    async def hold(self, epoch: int, bind: Bind, master_addr: str, master_port: int | None) -> int:
        """Have the ranks of an attempt that has no slot yet get ready; the rendezvous' port. `release` ends them, and so does
        `bind` for another attempt. Raises StartFailed, HostGone.
        """
        self._admit(epoch)
        async with self._binding:
            return await self._host.hold(bind, master_addr, master_port)

    async def write_probe(self, epoch: int, path: str) -> None:
        """Raises OSError. How several hosts find out whether they share a path."""
        self._admit(epoch)
        await asyncio.to_thread(_write_probe, path)

    async def sees_probe(self, epoch: int, path: str) -> bool:
        self._admit(epoch)
        return await asyncio.to_thread(os.path.exists, path)

    async def remove_probe(self, epoch: int, path: str) -> None:
        self._admit(epoch)
        with contextlib.suppress(OSError):
            await asyncio.to_thread(os.unlink, path)

    async def coordinate(
        self, epoch: int, bind: Bind, others: Sequence[tuple[ActorHandle[Any], NodeShare]], placed: Placed
    ) -> None:
        """Lead the gang of this host, which is the first and is bound by it, and of `others`, which were bound before.

        May be called again. Raises as `bind` does.
        """
        await self.bind(epoch, bind)
        if self._leader is not None:
            return
        bound = self._host.bound
        assert bound is not None
        order = bound.order
        self._outbox = Outbox(self._dirs.attempt(order.run_id, order.attempt), order.run_id, order.attempt)
        self._story = GangStory(order, self._outbox)
        hosts: list[GangHost]
        if uses_ray_train(order.spec):
            self._train = RayTrainRanks(bound, self._host, leader=self._name, gcs_address=self._gcs_address)
            hosts = [self._train]
        else:
            hosts = [LocalHost(self._host, self._share.host, self._share.ip)]
            hosts += [RemoteHost(handle, share) for handle, share in others]
        self._leader = Coordinator(order, hosts, self._story, placed)
        self._placed = placed
        self._keep(self._leader.run())

    async def report(self, epoch: int, after: int, acknowledged: int, timeout_s: float) -> Report:
        self._admit(epoch)
        assert self._story is not None
        return await self._story.report(after, acknowledged, timeout_s)

    async def order_stop(self, epoch: int, stop: StopOrder) -> None:
        self._admit(epoch)
        if self._leader is not None:
            self._leader.stop(stop)

    async def order_inspections(self, epoch: int, inspections: Sequence[Inspection]) -> None:
        """May be called again."""
        self._admit(epoch)
        if self._leader is not None:
            self._leader.inspect(inspections)

    async def log_lines(self, epoch: int, after: int, acknowledged: int, limit: int, timeout_s: float) -> list[LogLine]:
        self._admit(epoch)
        return await self._host.log_lines(after, acknowledged, limit, timeout_s)

    async def release(self, epoch: int) -> None:
        """Back to an empty host. May be called again."""
        self._admit(epoch)
        self._leader, self._train, self._story, self._placed = None, None, None, None
        if self._outbox is not None:
            self._outbox.close()
            self._outbox = None
        async with self._binding:  # ranks that are just being forked must not outlive it
            await self._host.release()

    # ---- for the coordinator --------------------------------------------------------------------------------------

    async def start(self, start: StartRanks) -> tuple[int, ...]:
        return await self._host.start(start)

    async def events(self, after: int, timeout_s: float) -> list[tuple[int, HostEvent]]:
        return await self._host.events(after, timeout_s)

    async def snapshot(self) -> HostSnapshot:
        return self._host.snapshot()

    async def signal_ranks(self, incarnation: int, number: int, stopping: bool) -> None:
        self._host.signal_ranks(incarnation, number, stopping=stopping)

    async def close_incarnation(self, incarnation: int) -> None:
        await self._host.close_incarnation(incarnation)

    async def dump(self, rank: int) -> str:
        return await self._host.dump(rank)

    async def inspect(self, inspection: Inspection) -> None:
        self._host.inspect(inspection)

    # ---- for Ray Train's driver and its workers -------------------------------------------------------------------

    async def train_join(
        self, incarnation: int, rank: int, pid: int, node_id: str, staging_dir: str, socket: str, code_dir: str | None
    ) -> tuple[str, dict[str, str]]:
        return self._train_ranks.join(incarnation, rank, pid, node_id, staging_dir, socket, code_dir)

    async def train_said(self, incarnation: int, rank: int, line: bytes) -> None:
        self._train_ranks.said(incarnation, rank, line)

    async def train_left(self, incarnation: int, rank: int, code: int) -> None:
        self._train_ranks.left(incarnation, rank, code)

    async def train_over_memory(self, incarnation: int, rank: int, evidence: str) -> None:
        self._train_ranks.over_memory(incarnation, rank, evidence)

    async def train_failed(self, incarnation: int, why: Mapping[int, str]) -> None:
        self._train_ranks.failed(incarnation, why)

    async def train_bundle(self) -> bytes | None:
        return self._train_ranks.bundle

    @property
    def _train_ranks(self) -> RayTrainRanks:
        assert self._train is not None, "only what it started calls this"
        return self._train

    # ---- fencing --------------------------------------------------------------------------------------------------

    def _admit(self, epoch: int) -> None:
        if epoch < self._epoch:
            raise Superseded(f"agent {epoch} is older than agent {self._epoch}, which owns host {self._name} now")
        self._epoch = epoch

    def _fence(self, why: str) -> None:
        """Nobody can reach us: end the ranks before somebody starts others. Their leases close with this process."""
        logging.getLogger(__name__).error("host %s ends itself and its ranks: %s", self._name, why)
        if self._train is not None:
            self._train.kill()
        os._exit(1)

    def _keep(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class RemoteHost:
    """A host on another node. Once it is gone it stays gone: every later call says so at once."""

    def __init__(self, handle: ActorHandle[Any], share: NodeShare) -> None:
        self._handle, self._share = handle, share
        self._gone: HostGone | None = None

    @property
    def host(self) -> str:
        return self._share.host

    @property
    def ip(self) -> str:
        return self._share.ip

    async def start(self, start: StartRanks) -> tuple[int, ...]:
        """May take as long as an environment takes to build, as long as the host shows that it is there."""
        starting: asyncio.Task[tuple[int, ...]] = asyncio.create_task(
            self._call(lambda: self._handle.start.remote(start), None)
        )
        try:
            while not (await asyncio.wait({starting}, timeout=_STILL_THERE_S))[0]:
                await self.snapshot()
            return starting.result()
        finally:
            starting.cancel()

    async def open_store(self, incarnation: int, address: str) -> int:
        raise AssertionError("the store is served by the first host, which is local")

    async def events(self, after: int, timeout_s: float) -> list[tuple[int, HostEvent]]:
        return await self._call(lambda: self._handle.events.remote(after, timeout_s), timeout_s + ANSWER_S)

    async def snapshot(self) -> HostSnapshot:
        return await self._call(lambda: self._handle.snapshot.remote(), ANSWER_S)

    async def signal_ranks(self, incarnation: int, number: int, *, stopping: bool) -> None:
        await self._call(lambda: self._handle.signal_ranks.remote(incarnation, number, stopping), ANSWER_S)

    async def close_incarnation(self, incarnation: int) -> None:
        await self._call(lambda: self._handle.close_incarnation.remote(incarnation), ANSWER_S)

    async def dump(self, rank: int) -> str:
        return await self._call(lambda: self._handle.dump.remote(rank), ANSWER_S)

    async def inspect(self, inspection: Inspection) -> None:
        await self._call(lambda: self._handle.inspect.remote(inspection), ANSWER_S)

    async def _call(self, method: Callable[[], Awaitable[T]], timeout_s: float | None) -> T:
        loop = asyncio.get_running_loop()
        deadline = math.inf  # from when it could not be reached: a long poll that breaks late is no longer silence
        while True:
            if self._gone is not None:
                raise self._gone
            try:
                return await call(method(), timeout_s)
            except ActorUnavailableError as error:
                deadline = min(deadline, loop.time() + ANSWER_S)
                if loop.time() > deadline:
                    raise self._lost(f"no answer for {ANSWER_S:g} s", FENCE_S) from error
                await asyncio.sleep(UNREACHABLE_RETRY_S)
            except TimeoutError as error:
                raise self._lost(f"no answer for {ANSWER_S:g} s", FENCE_S) from error
            except RayActorError as error:
                raise self._lost(short(error), await fence_of(self._share.node_id)) from error

    def _lost(self, why: str, fence_s: float) -> HostGone:
        if self._gone is None:
            self._gone = HostGone(self.host, why, fence_s)
        return self._gone


async def fence_of(node_id: str) -> float:
    """How long ranks of a dead host actor on that node may live on. None do while the node lives: their lease closed."""
    nodes = await asyncio.to_thread(ray.nodes)
    alive = any(node["NodeID"] == node_id and node["Alive"] for node in nodes)
    return 0.0 if alive else FENCE_S


def short(error: Exception) -> str:
    """The first line of what may be a page of Ray's."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _attempt_of(bind: Bind | None) -> tuple[str, int] | None:
    return (bind.order.run_id, bind.order.attempt) if bind is not None else None


def _write_probe(path: str) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w"):
        pass
