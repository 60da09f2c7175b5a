"""Where a gang fits: all of its workers, or none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from orchestrator.core.runs import NodeShare
from orchestrator.core.words import counted


@dataclass(frozen=True)
class GangShape:
    """What every worker needs, and how many there are. `memory` in bytes."""

    workers: int
    cpu: float = 1.0
    gpu: float = 0.0
    memory: int = 0
    spread: bool = False  # one worker a node as far as nodes reach; otherwise as few nodes as possible
    accelerator: str | None = None  # e.g. "H100": only nodes that have it


@dataclass(frozen=True)
class Node:
    """One living node. `free_*` is what neither our attempts nor anybody else holds."""

    id: str
    host: str
    ip: str
    cpu: float
    gpu: float
    memory: int
    free_cpu: float
    free_gpu: float
    free_memory: int
    accelerator: str | None = None


@dataclass(frozen=True)
class Fits:
    shares: tuple[NodeShare, ...]


@dataclass(frozen=True)
class Waits:
    """It would fit an empty cluster; `lacks` says in words what is missing now."""

    lacks: str


@dataclass(frozen=True)
class NeverFits:
    why: str


def fit(shape: GangShape, nodes: Sequence[Node]) -> Fits | Waits | NeverFits:
    """Place `shape` on `nodes`: the fullest nodes first when packing, the emptiest first when spreading.

    Ties go to the lower node id, so the same cluster gives the same answer.
    """
    usable = [node for node in nodes if shape.accelerator in (None, node.accelerator)]
    if not usable:
        wanted = f"with {shape.accelerator}" if shape.accelerator else "at all"
        return NeverFits(f"the cluster has no node {wanted}")
    empty = [replace(n, free_cpu=n.cpu, free_gpu=n.gpu, free_memory=n.memory) for n in usable]
    most = sum(_room(shape, node) for node in empty)
    if most < shape.workers:
        return NeverFits(
            f"{_words(shape)} asked, but the whole cluster has room for {most} such workers ({_totals(empty)})"
        )
    placed = _place(shape, usable)
    if placed is None:
        now = sum(_room(shape, node) for node in usable)
        return Waits(f"{_words(shape)} asked, room for {now} of {shape.workers} workers now ({_free(usable)})")
    return Fits(placed)


def _room(shape: GangShape, node: Node) -> int:
    """How many workers of this shape the node can take now."""
    limits = [shape.workers]
    if shape.cpu > 0:
        limits.append(int((node.free_cpu + 1e-9) / shape.cpu))
    if shape.gpu > 0:
        limits.append(int((node.free_gpu + 1e-9) / shape.gpu))
    if shape.memory > 0:
        limits.append(node.free_memory // shape.memory)
    return max(0, min(limits))


def _place(shape: GangShape, nodes: Sequence[Node]) -> tuple[NodeShare, ...] | None:
    rooms = {node.id: _room(shape, node) for node in nodes}
    taken = dict.fromkeys(rooms, 0)
    left = shape.workers
    if shape.spread:
        order = sorted(nodes, key=lambda node: (-rooms[node.id], node.id))
        while left and any(taken[node.id] < rooms[node.id] for node in order):
            for node in order:
                if left and taken[node.id] < rooms[node.id]:
                    taken[node.id] += 1
                    left -= 1
    else:
        whole = [node for node in nodes if rooms[node.id] >= shape.workers]
        # One node that takes the whole gang beats any two; among those the tightest fit keeps big holes open.
        order = sorted(whole, key=lambda node: (node.free_gpu, node.free_cpu, node.id)) or sorted(
            nodes, key=lambda node: (-rooms[node.id], node.id)
        )
        for node in order:
            taken[node.id] = min(rooms[node.id], left)
            left -= taken[node.id]
    if left:
        return None
    return tuple(NodeShare(node.id, node.host, node.ip, taken[node.id]) for node in order if taken[node.id])


def room(shape: GangShape, nodes: Sequence[Node]) -> int:
    """How many gangs of this shape fit at once into what is free. At most 1,000 are counted."""
    left, found = list(nodes), 0
    while found < 1000 and isinstance(answer := fit(shape, left), Fits):
        left = reserve(left, shape, answer.shares)
        found += 1
    return found


def still_fits(shape: GangShape, nodes: Sequence[Node], shares: Sequence[NodeShare]) -> bool:
    """Whether exactly these shares are free."""
    rooms = {node.id: _room(shape, node) for node in nodes}
    return all(rooms.get(share.node_id, 0) >= share.ranks for share in shares)


def reserve(nodes: Sequence[Node], shape: GangShape, shares: Sequence[NodeShare]) -> list[Node]:
    """The nodes with the gang's part taken out of what is free."""
    ranks = {share.node_id: share.ranks for share in shares}
    return [
        replace(
            node,
            free_cpu=node.free_cpu - shape.cpu * ranks.get(node.id, 0),
            free_gpu=node.free_gpu - shape.gpu * ranks.get(node.id, 0),
            free_memory=node.free_memory - shape.memory * ranks.get(node.id, 0),
        )
        for node in nodes
    ]


def release(nodes: Sequence[Node], shape: GangShape, shares: Sequence[NodeShare]) -> list[Node]:
    """The nodes with the gang's part given back."""
    return reserve(nodes, shape, [replace(share, ranks=-share.ranks) for share in shares])


def _words(shape: GangShape) -> str:
    parts = [f"{shape.cpu:g} CPU"]
    if shape.gpu:
        parts.append(f"{shape.gpu:g} {shape.accelerator or 'GPU'}")
    if shape.memory:
        parts.append(f"{shape.memory / 2**30:.1f} GiB")
    return f"{counted(shape.workers, 'worker')} of {', '.join(parts)}"


def _totals(nodes: Sequence[Node]) -> str:
    return "; ".join(f"{n.host}: {n.cpu:g} CPU, {n.gpu:g} GPU, {n.memory / 2**30:.1f} GiB" for n in nodes)


def _free(nodes: Sequence[Node]) -> str:
    return "; ".join(
        f"{n.host}: {n.free_cpu:g} CPU, {n.free_gpu:g} GPU, {n.free_memory / 2**30:.1f} GiB free" for n in nodes
    )
