"""What becomes of a gang in which something goes wrong: it is never held by nobody, and the attempt is not lost."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.cluster.gang_messages import HostGone
from orchestrator.cluster.placing import Placer, Unplaced
from orchestrator.cluster.pool import Pool
from orchestrator.cluster.ray_cluster import Gang, Shape
from orchestrator.core.orders import AttemptOrder
from orchestrator.core.runs import NodeShare
from orchestrator.errors import Unavailable

SHARE = NodeShare("node-1", "host-1", "10.0.0.1", 1)
ORDER = AttemptOrder(
    run_id="run-1", project="default", run_name="run", attempt=1, shares=(SHARE,), spec={"resources": {"workers": 1}},
    checkpoint_root="/c",
)  # fmt: skip


class Cluster:
    """Of one node."""

    def __init__(self) -> None:
        self.removed: list[object] = []

    async def living_node_ids(self) -> set[str]:
        return {"node-1"}

    async def remove(self, group: object, hosts: Sequence[object]) -> None:
        self.removed.append(group)


def method(answer: Callable[[], Any] = lambda: None) -> Any:
    async def remote(*_: object) -> Any:
        return answer()

    return SimpleNamespace(remote=remote)


def failing(error: Exception) -> Any:
    def answer() -> Any:
        raise error

    return method(answer)


def placer_of(cluster: Any, **methods: Any) -> tuple[Placer, Pool, Gang]:
    pool = Pool(cluster)
    host: Any = SimpleNamespace(claim=method(), **methods)
    gang = Gang("gang-1", Shape.of(ORDER), "the group", (host,), (SHARE,))  # type: ignore[arg-type]
    pool.put(gang)

    async def fetch(sha256: str) -> bytes:
        raise Unavailable("the server is away")

    return Placer(cluster, pool, 1, fetch), pool, gang


def test_a_gang_whose_host_cannot_clear_up_gives_its_place_back() -> None:
    cluster = Cluster()
    placer, _, gang = placer_of(cluster, release=failing(OSError(28, "No space left on device")))
    assert asyncio.run(placer.unhold(gang)) is False
    assert cluster.removed == ["the group"]


def test_an_attempt_that_meets_a_host_with_ranks_that_do_not_end_is_placed_anew() -> None:
    cluster = Cluster()
    placer, _, _ = placer_of(cluster, coordinate=failing(HostGone("host-1", "rank 0 did not end", 20.0)))
    with pytest.raises(Unplaced, match="rank 0 did not end") as unplaced:
        asyncio.run(placer.place(ORDER, lambda: False, lambda reason: None))
    assert not unplaced.value.final
    assert cluster.removed == ["the group"]


def test_a_gang_in_which_ranks_wait_is_not_lost_with_the_code_that_cannot_be_fetched() -> None:
    placer, pool, gang = placer_of(Cluster())
    key = (ORDER.run_id, ORDER.attempt)
    pool.put(gang, key)
    with pytest.raises(Unplaced, match="no code to run: the server is away"):
        asyncio.run(placer.place(dataclasses.replace(ORDER, bundle="ab"), lambda: False, lambda reason: None))
    assert pool.take_ready(gang.shape, key) is gang
