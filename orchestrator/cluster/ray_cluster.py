"""The Ray cluster as the agent uses it: placement groups, actors by name, tables. Translates Ray's words once.

Everything that is ours in Ray lives in one namespace, detached, and is named `gang-<id>` (placement group),
`gang-<id>/<index>` (its hosts) or `keeper-<node id>`, so that any later agent finds it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray._private import state
from ray.actor import ActorHandle
from ray.autoscaler.sdk import request_resources
from ray.util.placement_group import PlacementGroup, get_placement_group, placement_group, placement_group_table
from ray.util.placement_group import remove_placement_group as remove_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from orchestrator.cluster.actors import NAMESPACE, HostActor, KeeperActor, keeper_name
from orchestrator.cluster.inventory import held_by, inventory
from orchestrator.cluster.ray_train import uses_ray_train
from orchestrator.core.orders import AttemptOrder
from orchestrator.core.runs import NodeShare
from orchestrator.core.scheduling.demand import Workers
from orchestrator.core.scheduling.fit import Node

GANG_PREFIX = "gang-"
_PIN = 0.001  # of the node's own resource: enough to pin a bundle to it, and a thousand of them fit
CONTROL_CONCURRENCY = 1000


@dataclass(frozen=True)
class Shape:
    """What a gang holds of which nodes: two attempts of one shape may use the same hosts, one after the other."""

    bundles: tuple[tuple[str, str, float, float, int], ...]  # node id, ip, CPUs, GPUs, bytes

    @classmethod
    def of(cls, order: AttemptOrder) -> Shape:
        if uses_ray_train(order.spec):
            # Ray Train makes a placement group of its own: ours holds only the place of the leader.
            return cls(((order.shares[0].node_id, order.shares[0].ip, 0.0, 0.0, 0),))
        return cls.of_ranks(order)

    @classmethod
    def of_ranks(cls, order: AttemptOrder) -> Shape:
        """What the order's ranks hold, whoever places them."""
        resources = order.spec.get("resources") or {}
        cpu, gpu = float(resources.get("cpu", 1) or 0), float(resources.get("gpu") or 0)
        memory = int(resources.get("memory") or 0)
        return cls(
            tuple(
                (share.node_id, share.ip, cpu * share.ranks, gpu * share.ranks, memory * share.ranks)
                for share in order.shares
            )
        )

    @property
    def nodes(self) -> frozenset[str]:
        return frozenset(node_id for node_id, *_ in self.bundles)


@dataclass(frozen=True)
class Gang:
    """A placement group with its host actors, one a share."""

    id: str
    shape: Shape
    group: PlacementGroup
    hosts: tuple[ActorHandle[Any], ...]
    shares: tuple[NodeShare, ...]

    def host_name(self, index: int) -> str:
        return f"{self.id}/{index}"


@dataclass(frozen=True)
class FoundGang:
    """A gang that an earlier agent left: perhaps without some of its hosts, which are dead then."""

    id: str
    group: PlacementGroup
    hosts: tuple[ActorHandle[Any], ...]  # in order, those that exist
    whole: bool


class RayCluster:
    """For a driver that is connected already. Blocking calls of Ray run in threads."""

    def __init__(self, local_root: str) -> None:
        self._local_root = local_root
        self._keepers: dict[str, ActorHandle[Any]] = {}
        self.resting: set[str] = set()  # nodes whose keepers were let go
        self._known: dict[str, bool] = {}  # gangs that we made or have told of; whether Ray has shown them

    async def nodes(self, lent: Sequence[Shape] = ()) -> tuple[Node, ...]:
        """The inventory. `lent`: what else is ours though Ray does not know it by our names."""
        return await asyncio.to_thread(_read_nodes, lent)

    async def ask_for(self, demand: Sequence[Workers]) -> None:
        """Tell Ray's autoscaler all that the cluster should have room for; it replaces what was asked before."""
        bundles = [_bundle(each) for each in demand for _ in range(each.count)]
        await asyncio.to_thread(request_resources, bundles=bundles)

    async def living_node_ids(self) -> set[str]:
        return {node["NodeID"] for node in await asyncio.to_thread(_nodes) if node["Alive"]}

    async def keeper(self, node_id: str) -> ActorHandle[Any]:
        """The node's keeper, started where there is none."""
        self.resting.discard(node_id)
        if node_id not in self._keepers:
            self._keepers[node_id] = await asyncio.to_thread(self._start_keeper, node_id)
        return self._keepers[node_id]

    def forget_keeper(self, node_id: str) -> None:
        self._keepers.pop(node_id, None)

    async def let_go(self, node_id: str) -> None:
        """End the node's keeper, with its zygotes. Whoever asks for it starts another one."""
        keeper = await self.keeper(node_id)
        self.forget_keeper(node_id)
        self.resting.add(node_id)
        await asyncio.to_thread(ray.kill, keeper)

    def _start_keeper(self, node_id: str) -> ActorHandle[Any]:
        keeper: Any = ray.remote(KeeperActor)
        handle: ActorHandle[Any] = keeper.options(
            name=keeper_name(node_id),
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            num_cpus=0,
            max_restarts=-1,
            max_concurrency=CONTROL_CONCURRENCY,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False),
        ).remote(self._local_root)
        return handle

    # ---- gangs ----------------------------------------------------------------------------------------------------

    async def reserve(self, shape: Shape) -> tuple[str, PlacementGroup]:
        """Ask for a placement group; it is ready when Ray says so (`wait_reserved`)."""
        gang_id = GANG_PREFIX + uuid.uuid4().hex[:12]
        self._known[gang_id] = False
        return gang_id, await asyncio.to_thread(_create_group, gang_id, shape)

    async def wait_reserved(self, group: PlacementGroup, timeout_s: float) -> bool:
        # Asking Ray for a ready object starts a task, and that a worker; waiting in the control service does not.
        return await asyncio.to_thread(group.wait, timeout_s)

    def start_hosts(self, gang_id: str, shape: Shape, group: PlacementGroup, shares: Sequence[NodeShare]) -> Gang:
        host: Any = ray.remote(HostActor)
        hosts = []
        for index, (share, (_, _, cpu, gpu, memory)) in enumerate(zip(shares, shape.bundles, strict=True)):
            hosts.append(
                host.options(
                    name=f"{gang_id}/{index}",
                    namespace=NAMESPACE,
                    lifetime="detached",
                    num_cpus=cpu,
                    num_gpus=gpu,
                    memory=memory or None,
                    max_concurrency=CONTROL_CONCURRENCY,
                    scheduling_strategy=PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index),
                ).remote(f"{gang_id}/{index}", share, self._local_root)
            )
        return Gang(gang_id, shape, group, tuple(hosts), tuple(shares))

    async def remove(self, group: PlacementGroup, hosts: Sequence[ActorHandle[Any]]) -> None:
        """Explicitly: after its actors are dead a detached group would stay, and hold its resources."""
        await asyncio.to_thread(_remove, group, hosts)

    async def find_gangs(self) -> list[FoundGang]:
        """What is there of ours: placement groups that are not removed, each with those of its hosts that exist."""
        found = await asyncio.to_thread(_find_gangs)
        self._know(found)
        return found

    async def find_strange_gangs(self) -> list[FoundGang]:
        """Those that this driver neither made nor has found before: another agent made them since."""
        found = await asyncio.to_thread(_find_gangs)
        strange = [each for each in found if each.id not in self._known]
        self._know(found)
        return strange

    def _know(self, found: Sequence[FoundGang]) -> None:
        ids = {each.id for each in found}
        removed = [each for each, seen in self._known.items() if seen and each not in ids]
        for each in removed:
            del self._known[each]
        self._known.update(dict.fromkeys(ids, True))


def _bundle(worker: Workers) -> dict[str, float]:
    amounts = {"CPU": worker.cpu, "GPU": worker.gpu, "memory": float(worker.memory)}
    if worker.accelerator:
        amounts[f"accelerator_type:{worker.accelerator}"] = _PIN
    return {name: amount for name, amount in amounts.items() if amount}


def _read_nodes(lent: Sequence[Shape]) -> tuple[Node, ...]:
    groups = [group for group in _groups() if group["state"] == "CREATED"]
    held = held_by(groups)
    for node_id, _, cpu, gpu, memory in (bundle for shape in lent for bundle in shape.bundles):
        amounts = held.setdefault(node_id, {})
        for name, amount in (("CPU", cpu), ("GPU", gpu), ("memory", float(memory))):
            amounts[name] = amounts.get(name, 0.0) + amount
    return inventory(_nodes(), state.available_resources_per_node(), held)  # type: ignore[no-untyped-call]


def _nodes() -> Sequence[Mapping[str, Any]]:
    found: Sequence[Mapping[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return found


def _groups() -> list[Mapping[str, Any]]:
    table: Mapping[str, Mapping[str, Any]] = placement_group_table()
    return [each for each in table.values() if each["name"].startswith(GANG_PREFIX) and each["state"] != "REMOVED"]


def _create_group(name: str, shape: Shape) -> PlacementGroup:
    bundles = []
    for _, ip, cpu, gpu, memory in shape.bundles:
        amounts = {f"node:{ip}": _PIN, "CPU": cpu, "GPU": gpu, "memory": float(memory)}
        bundles.append({key: amount for key, amount in amounts.items() if amount})
    group: PlacementGroup = placement_group(bundles, strategy="PACK", name=name, lifetime="detached")
    return group


def _remove(group: PlacementGroup, hosts: Sequence[ActorHandle[Any]]) -> None:
    for host in hosts:
        with contextlib.suppress(Exception):  # it may be dead already, which is all we want
            ray.kill(host)
    remove_group(group)


def _find_gangs() -> list[FoundGang]:
    named = {each["name"] for each in ray.util.list_named_actors(all_namespaces=True) if each["namespace"] == NAMESPACE}
    found = []
    for group in _groups():
        hosts = []
        for index in range(len(group["bundles"])):
            with contextlib.suppress(ValueError):
                if f"{group['name']}/{index}" in named:
                    hosts.append(ray.get_actor(f"{group['name']}/{index}", NAMESPACE))
        with contextlib.suppress(ValueError):
            whole = len(hosts) == len(group["bundles"])
            found.append(FoundGang(group["name"], get_placement_group(group["name"]), tuple(hosts), whole))
    return found
