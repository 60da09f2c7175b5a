"""Not to be reached is not to be dead: nothing is given up, removed or reported lost before it is known."""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError

from orchestrator.cluster import actors
from orchestrator.cluster import agent as agent_module
from orchestrator.cluster.actors import HostState, RemoteHost, insist
from orchestrator.cluster.agent import Agent
from orchestrator.cluster.fencing import FENCE_S
from orchestrator.cluster.gang_messages import HostGone
from orchestrator.cluster.keeper import Keeper
from orchestrator.cluster.local_dirs import NodeDirs
from orchestrator.cluster.log_spool import LogSpool
from orchestrator.cluster.ray_cluster import FoundGang
from orchestrator.core.observations import Placed
from orchestrator.core.orders import AttemptOrder
from orchestrator.core.runs import NodeShare

SHARE = NodeShare("node-1", "host-1", "10.0.0.1", 1)
UNREACHABLE = ActorUnavailableError("away", b"0" * 16)
ORDER = AttemptOrder(
    run_id="run-1", project="default", run_name="run", attempt=1, shares=(SHARE,), spec={}, checkpoint_root="/c",
    placed=True,
)  # fmt: skip


class Method:
    """Stands for an actor's method; `answer` is asked at each call."""

    def __init__(self, answer: Callable[[], Any]) -> None:
        self._answer = answer

    async def remote(self, *_: object) -> Any:
        return await self._answer()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actors, "UNREACHABLE_RETRY_S", 0.01)
    monkeypatch.setattr(agent_module, "CALL_S", 0.05)


def test_an_actor_that_cannot_be_reached_is_asked_again_and_a_dead_one_is_not() -> None:
    answers: list[Exception | str] = [UNREACHABLE, UNREACHABLE, "here"]

    async def answer() -> str:
        now = answers.pop(0)
        if isinstance(now, Exception):
            raise now
        return now

    assert asyncio.run(insist(Method(answer).remote)) == "here"
    answers[:] = [UNREACHABLE, ActorDiedError(), "too late"]
    with pytest.raises(ActorDiedError):
        asyncio.run(insist(Method(answer).remote))
    assert answers == ["too late"]


def test_ranks_of_a_host_that_does_not_answer_may_live_until_the_fence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actors, "FENCE_S", 0.05)
    monkeypatch.setattr(actors, "ANSWER_S", 0.05)

    async def answer() -> None:
        raise UNREACHABLE

    async def story() -> float:
        with pytest.raises(HostGone) as gone:
            await RemoteHost(SimpleNamespace(snapshot=Method(answer)), SHARE).snapshot()  # type: ignore[arg-type]
        return gone.value.fence_s

    assert asyncio.run(story()) == 0.05
    assert FENCE_S > 0


def test_a_host_that_cannot_be_reached_late_in_a_long_poll_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actors, "ANSWER_S", 0.05)
    polls = iter((UNREACHABLE, [(1, "news")]))

    async def answer() -> Any:
        await asyncio.sleep(0.1)  # more than it may be away
        now = next(polls)
        if isinstance(now, Exception):
            raise now
        return now

    async def story() -> Any:
        return await RemoteHost(SimpleNamespace(events=Method(answer)), SHARE).events(0, 30.0)  # type: ignore[arg-type]

    assert asyncio.run(story()) == [(1, "news")]


class OneGang:
    """A cluster with one gang that an earlier agent left."""

    def __init__(self, claim: Callable[[], Any]) -> None:
        async def never() -> None:
            await asyncio.Event().wait()

        host: Any = SimpleNamespace(claim=Method(claim), report=Method(never), log_lines=Method(never))
        self.found = FoundGang("gang-1", "the group", (host,), True)  # type: ignore[arg-type]
        self.strange: list[FoundGang] = []  # what another agent places later
        self.removed: list[object] = []
        self.resting: set[str] = set()

    async def find_gangs(self) -> list[FoundGang]:
        return [self.found]

    async def find_strange_gangs(self) -> list[FoundGang]:
        strange, self.strange = self.strange, []
        return strange

    async def remove(self, group: object, hosts: Sequence[object]) -> None:
        self.removed.append(group)

    async def living_node_ids(self) -> set[str]:
        return set()


def agent_of(cluster: OneGang) -> Agent:
    options = argparse.Namespace(
        cluster="test", local_dir="/nowhere", pool_ttl=60.0, server="127.0.0.1:1", ca_cert=None, autoscaling=False
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(agent_module, "RayCluster", lambda local_dir: cluster)
        return Agent(options, "token", epoch=1)


def test_a_gang_that_does_not_answer_a_new_agent_is_left_alone_and_adopted_once_it_does() -> None:
    async def story() -> None:
        sure = asyncio.Event()

        async def claim() -> HostState:
            if not sure.is_set():
                await sure.wait()
            return HostState(("run-1", 1), Placed((SHARE,), 0.1, False))

        cluster = OneGang(claim)
        agent = agent_of(cluster)
        await agent._find_living()
        agent._take_orders((ORDER,))
        assert (cluster.removed, agent._attendants) == ([], {}), "its attempt must be neither ended nor begun again"
        sure.set()
        async with asyncio.timeout(10):
            while not agent._attendants:
                await asyncio.sleep(0.01)
        assert agent._attendants["run-1", 1].host_names == ("gang-1/0",)
        assert cluster.removed == []

    asyncio.run(story())


def gang_of(gang_id: str, attempt: tuple[str, int] | None) -> FoundGang:
    async def claim() -> HostState:
        return HostState(attempt, None if attempt is None else Placed((SHARE,), 0.1, False))

    async def never() -> None:
        await asyncio.Event().wait()

    host: Any = SimpleNamespace(claim=Method(claim), report=Method(never), log_lines=Method(never))
    return FoundGang(gang_id, f"the group of {gang_id}", (host,), True)  # type: ignore[arg-type]


def test_what_an_older_agent_places_behind_our_back_is_adopted_once_and_never_beside_another() -> None:
    async def story() -> None:
        async def claim() -> HostState:
            return HostState(("run-1", 1), Placed((SHARE,), 0.1, False))

        cluster = OneGang(claim)
        agent = agent_of(cluster)
        await agent._find_living()
        agent._take_orders((ORDER,))
        agent._orders = (ORDER, replace(ORDER, run_id="run-2"))  # as if nobody had attended to it yet
        cluster.strange = [gang_of("second", ("run-1", 1)), gang_of("other", ("run-2", 1)), gang_of("empty", None)]
        await agent._clean()
        async with asyncio.timeout(10):
            while agent._unsure or agent._dismissals:
                await asyncio.sleep(0.01)
        assert agent._attendants["run-1", 1].host_names == ("gang-1/0",)
        assert agent._attendants["run-2", 1].host_names == ("other/0",)
        assert sorted(map(str, cluster.removed)) == ["the group of empty", "the group of second"]

    asyncio.run(story())


def test_a_gang_with_a_dead_host_is_removed() -> None:
    async def claim() -> HostState:
        raise ActorDiedError()

    async def story() -> None:
        cluster = OneGang(claim)
        await agent_of(cluster)._find_living()
        assert cluster.removed == ["the group"]

    asyncio.run(story())


def test_a_keeper_names_the_attempts_whose_lines_nobody_sends(tmp_path: Path) -> None:
    dirs = NodeDirs(str(tmp_path), "node-1")
    keeper = Keeper(dirs, os.getpid())
    for run_id in ("run-1", "run-2"):
        spool = LogSpool(dirs.attempt(run_id, 1) / "log", run_id=run_id, attempt=1, source="gang/0")
        spool.append([(1, 0, 0.0, "last words")])
        spool.close()
    assert asyncio.run(keeper.strays([("run-2", 1)])) == [("run-1", 1)]
    assert [line.text for line in keeper.leftover("run-1", 1).lines] == ["last words"]
