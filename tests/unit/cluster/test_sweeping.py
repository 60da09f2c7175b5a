"""What a sweep of the nodes takes away, what it must leave, and what it survives."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, ActorUnschedulableError

from orchestrator.cluster.agent import Agent
from orchestrator.cluster.gang_messages import Superseded
from orchestrator.cluster.keeper import Leftover
from orchestrator.cluster.leftovers import Leftovers
from orchestrator.cluster.sweeping import Living, Sweeper

SUPERSEDED = Superseded("agent 1 is older than agent 2, which owns this node now")


class NodeKeeper:
    """A node's keeper as the agent calls it. `during`: happens while it looks for strays."""

    def __init__(self, error: Exception | None = None, during: Callable[[], object] = lambda: None) -> None:
        self.error, self._during = error, during
        self.stray: tuple[tuple[str, int], ...] = ()
        self.swept: list[tuple[Sequence[object], Sequence[object]]] = []
        self.claims = 0
        self.claim = SimpleNamespace(remote=self._claim)
        self.strays = SimpleNamespace(remote=self._strays)
        self.sweep = SimpleNamespace(remote=self._sweep)

    async def _claim(self, epoch: int) -> None:
        self.claims += 1
        if self.error is not None:
            raise self.error

    async def _strays(self, epoch: int, attempts: Sequence[object]) -> Sequence[tuple[str, int]]:
        if self.error is not None:
            raise self.error
        self._during()
        return [key for key in self.stray if key not in attempts]

    async def _sweep(self, epoch: int, attempts: Sequence[object], owners: Sequence[object]) -> None:
        self.swept.append((attempts, owners))


class Keepers:
    """A cluster without gangs."""

    def __init__(self, *keepers: NodeKeeper) -> None:
        self.by_node = {f"node-{place}": keeper for place, keeper in enumerate(keepers)}
        self.resting: set[str] = set()

    async def living_node_ids(self) -> set[str]:
        return set(self.by_node)

    async def keeper(self, node_id: str) -> Any:
        return self.by_node[node_id]

    def forget_keeper(self, node_id: str) -> None:
        pass

    async def find_gangs(self) -> list[object]:
        return []

    async def find_strange_gangs(self) -> list[object]:
        return []

    async def nodes(self, lent: object) -> tuple[()]:
        return ()


def sweeper_of(cluster: Keepers, living: Callable[[], Living | None], leftovers: object = None) -> Sweeper:
    return Sweeper(cluster, leftovers, 1, living)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "error", [FileNotFoundError(2, "gone"), ActorUnschedulableError("no such node"), ActorDiedError(), TimeoutError()]
)
def test_a_node_that_cannot_be_swept_keeps_no_other_from_being(error: Exception) -> None:
    cluster = Keepers(NodeKeeper(error), NodeKeeper())
    asyncio.run(sweeper_of(cluster, lambda: Living((("run-1", 1),), ("gang-1/0",))).sweep())
    assert [len(each.swept) for each in cluster.by_node.values()] == [0, 1]


def test_nothing_is_swept_while_it_is_not_known_what_lives() -> None:
    cluster = Keepers(NodeKeeper())
    asyncio.run(sweeper_of(cluster, lambda: None).sweep())
    assert cluster.by_node["node-0"].swept == []


def test_an_attempt_that_begins_while_another_node_is_asked_keeps_its_files_and_cpus() -> None:
    attempts, hosts = [("run-1", 1)], ["gang-1/0"]

    def begin() -> None:
        attempts.append(("run-2", 1))
        hosts.append("gang-2/0")

    cluster = Keepers(NodeKeeper(during=begin), NodeKeeper())
    asyncio.run(sweeper_of(cluster, lambda: Living(tuple(attempts), tuple(hosts))).sweep())
    for keeper in cluster.by_node.values():
        ((kept, owners),) = keeper.swept
        assert (list(kept), list(owners)) == (attempts, hosts)


class Shipped:
    """`leftovers` of which each delivery ends as the test says."""

    def __init__(self, *outcomes: bool | Exception) -> None:
        self._outcomes = list(outcomes)

    async def ship_all(self, key: object, node_ids: Sequence[str]) -> bool:
        outcome = self._outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


def test_the_only_copy_of_a_line_is_swept_only_once_the_server_has_it() -> None:
    async def story() -> None:
        keeper = NodeKeeper()
        keeper.stray = (("run-1", 1),)
        shipped = Shipped(RuntimeError("the stream broke"), False, True)
        sweeper = sweeper_of(Keepers(keeper), lambda: Living((), ()), shipped)
        for _ in range(4):
            await sweeper.sweep()
            await asyncio.sleep(0)
        assert [list(kept) for kept, _ in keeper.swept] == [[("run-1", 1)]] * 3 + [[]]
        assert sweeper._strays == {}

    asyncio.run(story())


def test_nothing_is_remembered_of_strays_on_a_node_that_is_gone() -> None:
    async def story() -> None:
        cluster = Keepers(NodeKeeper())
        cluster.by_node["node-0"].stray = (("run-1", 1),)
        sweeper = sweeper_of(cluster, lambda: Living((), ()), Shipped(False))
        await sweeper.sweep()
        await asyncio.sleep(0)
        cluster.by_node.clear()
        await sweeper.sweep()
        assert sweeper._strays == {}

    asyncio.run(story())


def test_what_a_node_does_not_tell_is_not_delivered() -> None:
    class Away(Leftovers):
        async def on(self, key: object, node_id: str) -> Leftover | None:
            return None if node_id == "node-1" else Leftover((), ())

    leftovers = Away(Keepers(), None, 1)  # type: ignore[arg-type]
    assert asyncio.run(leftovers.ship_all(("run-1", 1), ["node-0"]))
    assert not asyncio.run(leftovers.ship_all(("run-1", 1), ["node-0", "node-1"]))


def agent_of(cluster: Keepers, monkeypatch: pytest.MonkeyPatch) -> Agent:
    monkeypatch.setattr("orchestrator.cluster.agent.RayCluster", lambda local_dir: cluster)
    options = argparse.Namespace(
        cluster="test", local_dir="/nowhere", pool_ttl=60.0, server="127.0.0.1:1", ca_cert=None, autoscaling=False
    )
    return Agent(options, "token", epoch=1)


def test_a_node_that_rests_is_not_woken_to_be_swept() -> None:
    busy, resting = NodeKeeper(), NodeKeeper()
    cluster = Keepers(busy, resting)
    cluster.resting.add("node-1")
    asyncio.run(sweeper_of(cluster, lambda: Living((), ())).sweep())
    assert (len(busy.swept), len(resting.swept)) == (1, 0)


@pytest.mark.parametrize("swept", [True, False])
def test_an_agent_whom_a_keeper_refuses_knows_that_it_is_superseded(
    monkeypatch: pytest.MonkeyPatch, swept: bool
) -> None:
    """By whatever call it learns of it: its supervisor must not start it again."""

    async def story() -> None:
        keeper = NodeKeeper()
        agent = agent_of(Keepers(keeper), monkeypatch)
        running = asyncio.create_task(agent.run())
        if swept:
            await asyncio.sleep(0.1)
            agent._take_orders(())
        keeper.error = SUPERSEDED
        async with asyncio.timeout(20):
            await running

    with pytest.raises(Superseded, match="owns this node now"):
        asyncio.run(story())


def test_an_agent_serves_on_beside_a_node_whose_keeper_cannot_be_scheduled(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        agent = agent_of(Keepers(NodeKeeper(ActorUnschedulableError("the node is gone"))), monkeypatch)
        running = asyncio.create_task(agent.run())
        await asyncio.sleep(0.1)
        agent._take_orders(())
        await asyncio.sleep(0.1)
        assert not running.done()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(story())


def test_a_keeper_that_was_started_again_is_claimed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.cluster.agent.INVENTORY_EVERY_S", 0.01)

    async def story() -> None:
        keeper = NodeKeeper()
        running = asyncio.create_task(agent_of(Keepers(keeper), monkeypatch).run())
        async with asyncio.timeout(20):
            while keeper.claims < 3:
                await asyncio.sleep(0.01)
        assert not running.done(), "claims go on beside everything else"
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(story())
