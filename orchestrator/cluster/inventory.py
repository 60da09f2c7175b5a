"""What the nodes of a Ray cluster have, and what of it others than Evertrain hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from orchestrator.core.scheduling.fit import Node

_ACCELERATOR_PREFIX = "accelerator_type:"

Amounts = Mapping[str, float]


def inventory(
    nodes: Sequence[Mapping[str, Any]], available: Mapping[str, Amounts], ours: Mapping[str, Amounts]
) -> tuple[Node, ...]:
    """Living nodes, by id. `nodes` as `ray.nodes()` has them; `available` and `ours` (our placement groups) by node id.

    Ray counts our own groups as taken, the server counts its attempts itself: so ours are added to what is free.
    """
    return tuple(sorted((_node(each, available, ours) for each in nodes if each["Alive"]), key=lambda node: node.id))


def held_by(groups: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """What placement groups, as in Ray's table, hold of each node."""
    held: dict[str, dict[str, float]] = {}
    for group in groups:
        for index, node_id in group["bundles_to_node_id"].items():
            amounts = held.setdefault(node_id, {})
            for name, amount in group["bundles"][index].items():
                amounts[name] = amounts.get(name, 0.0) + amount
    return held


def _node(raw: Mapping[str, Any], available: Mapping[str, Amounts], ours: Mapping[str, Amounts]) -> Node:
    total: Amounts = raw["Resources"]
    node_id = raw["NodeID"]
    left, held = available.get(node_id, {}), ours.get(node_id, {})

    def free(name: str) -> float:
        return min(total.get(name, 0.0), max(0.0, left.get(name, 0.0) + held.get(name, 0.0)))

    return Node(
        id=node_id,
        host=raw["NodeManagerHostname"],
        ip=raw["NodeManagerAddress"],
        cpu=total.get("CPU", 0.0),
        gpu=total.get("GPU", 0.0),
        memory=int(total.get("memory", 0)),
        free_cpu=round(free("CPU"), 4),
        free_gpu=round(free("GPU"), 4),
        free_memory=int(free("memory")),
        accelerator=next(
            (n.removeprefix(_ACCELERATOR_PREFIX) for n in total if n.startswith(_ACCELERATOR_PREFIX)), None
        ),
    )
