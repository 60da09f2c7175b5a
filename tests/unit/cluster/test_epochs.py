"""An agent that starts later has the higher epoch, whatever the wall clock says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError

from orchestrator.cluster import agent as agent_module
from orchestrator.cluster.epochs import OlderEpoch, highest_epoch, next_epoch
from orchestrator.cluster.gang_messages import Superseded
from orchestrator.control.clusters import Clusters, NewerAgent
from orchestrator.errors import Refused
from orchestrator.store.memory import MemoryStore


def knows(epoch: int) -> Any:
    async def answer() -> int:
        if epoch < 0:
            raise ActorDiedError()
        return epoch

    return SimpleNamespace(epoch=SimpleNamespace(remote=answer))


class Known:
    """A cluster whose keepers and hosts have heard of these epochs."""

    def __init__(self, keepers: list[int], hosts: list[int]) -> None:
        self._keepers, self._hosts = keepers, hosts

    async def living_node_ids(self) -> set[str]:
        return {str(place) for place in range(len(self._keepers))}

    async def keeper(self, node_id: str) -> Any:
        return knows(self._keepers[int(node_id)])

    async def find_gangs(self) -> list[Any]:
        return [SimpleNamespace(hosts=tuple(knows(each) for each in self._hosts))]


def test_an_epoch_is_above_all_that_anybody_knows_of() -> None:
    known: Any = Known([5, -1, 70], [30, 90, -1])
    assert asyncio.run(highest_epoch(known)) == 90
    assert next_epoch(90, now_ns=80) == 91
    assert next_epoch(90, now_ns=1000) == 1000


def test_a_cluster_that_was_never_served_knows_no_epoch() -> None:
    assert asyncio.run(highest_epoch(Known([], []))) == 0  # type: ignore[arg-type]


def serve_with(monkeypatch: pytest.MonkeyPatch, heard: list[int], refuse: Callable[[int], Refused | None]) -> list[int]:
    """The epochs that an agent has tried; `heard`: the highest one that the cluster tells, at each question."""
    tried: list[int] = []

    async def highest(_: object) -> int:
        return heard.pop(0)

    async def serve(options: object, token: str, epoch: int) -> None:
        tried.append(epoch)
        refusal = refuse(epoch)
        if refusal is not None:
            raise refusal

    monkeypatch.setattr(agent_module, "highest_epoch", highest)
    monkeypatch.setattr(agent_module, "_serve", serve)
    monkeypatch.setattr(agent_module.time, "time_ns", lambda: 100)
    asyncio.run(agent_module.serve(SimpleNamespace(local_dir="/nowhere"), "token"))  # type: ignore[arg-type]
    return tried


def too_old(epoch: int) -> Refused | None:
    return OlderEpoch("the server knows of agent 500", 500) if epoch <= 500 else None


def test_an_epoch_from_before_the_clock_was_set_back_is_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert serve_with(monkeypatch, [0, 100], too_old) == [100, 501]


def test_an_agent_does_not_pass_one_that_has_claimed_the_cluster_since(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Superseded):
        serve_with(monkeypatch, [0, 500], too_old)


def test_the_server_names_the_epoch_that_it_knows() -> None:
    clusters = Clusters(MemoryStore(), SimpleNamespace(now=lambda: 1.0, monotonic_ns=lambda: 0))  # type: ignore[arg-type]
    clusters.attach("alpha", "*", 500, "2.60.0")
    with pytest.raises(NewerAgent) as refused:
        clusters.attach("alpha", "*", 100, "2.60.0")
    assert refused.value.epoch == 500
