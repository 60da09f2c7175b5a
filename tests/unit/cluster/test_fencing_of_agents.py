"""Keepers and hosts obey the newest agent that their node has heard of, and refuse every older one."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.cluster import actors
from orchestrator.cluster.actors import HostActor, KeeperActor
from orchestrator.cluster.gang_messages import StartFailed, Superseded
from orchestrator.cluster.keeper import Keeper
from orchestrator.cluster.local_dirs import NodeDirs
from orchestrator.cluster.node_epoch import NodeEpoch
from orchestrator.core.runs import NodeShare, StopOrder

OLD, NEW = 1, 2
HOST_CALLS: dict[str, Callable[[Any], Awaitable[object]]] = {
    "claim": lambda host: host.claim(OLD),
    "bind": lambda host: host.bind(OLD, None),
    "write_probe": lambda host: host.write_probe(OLD, "/nowhere"),
    "sees_probe": lambda host: host.sees_probe(OLD, "/nowhere"),
    "remove_probe": lambda host: host.remove_probe(OLD, "/nowhere"),
    "coordinate": lambda host: host.coordinate(OLD, None, (), None),
    "report": lambda host: host.report(OLD, 0, 0, 0.0),
    "order_stop": lambda host: host.order_stop(OLD, StopOrder("cancel", "test", "of the test")),
    "log_lines": lambda host: host.log_lines(OLD, 0, 0, 1, 0.0),
    "release": lambda host: host.release(OLD),
}
KEEPER_CALLS: dict[str, Callable[[Any], Awaitable[object]]] = {
    "claim": lambda keeper: keeper.claim(OLD),
    "leftover": lambda keeper: keeper.leftover(OLD, "run-1", 1),
    "strays": lambda keeper: keeper.strays(OLD, ()),
    "sweep": lambda keeper: keeper.sweep(OLD, (), ()),
}


@pytest.fixture
def dirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NodeDirs:
    """Of the node that actors of this test believe to be on."""
    context = SimpleNamespace(get_node_id=lambda: "node-1", gcs_address="127.0.0.1:1")
    monkeypatch.setattr(actors.ray, "get_runtime_context", lambda: context)
    monkeypatch.setattr(actors, "take_priority", lambda niceness: None)
    dirs = NodeDirs(str(tmp_path), "node-1")
    dirs.create()
    return dirs


def host_actor(dirs: NodeDirs) -> HostActor:
    return HostActor("gang-1/0", NodeShare("node-1", "host-1", "127.0.0.1", 1), dirs.root)


@pytest.mark.parametrize("name", HOST_CALLS)
def test_a_host_that_a_newer_agent_has_claimed_refuses_the_older_one(dirs: NodeDirs, name: str) -> None:
    async def story() -> None:
        host = host_actor(dirs)
        await host.claim(NEW)
        with pytest.raises(Superseded, match="agent 1 is older than agent 2"):
            await HOST_CALLS[name](host)
        await host.claim(NEW)

    asyncio.run(story())


def test_a_host_that_an_older_agent_starts_is_refused_to_it_where_the_node_knows_a_newer_one(dirs: NodeDirs) -> None:
    async def story() -> None:
        Keeper(dirs, os.getpid()).claim(NEW)
        host = host_actor(dirs)
        with pytest.raises(Superseded, match="agent 1 is older than agent 2, which owns the node of host gang-1/0"):
            await host.claim(OLD)
        await host.claim(NEW)

    asyncio.run(story())


@pytest.mark.parametrize("name", KEEPER_CALLS)
def test_a_keeper_refuses_an_older_agent_also_after_it_was_started_again(dirs: NodeDirs, name: str) -> None:
    async def story() -> None:
        Keeper(dirs, os.getpid()).claim(NEW)
        again = KeeperActor(dirs.root)
        assert await again.epoch() == NEW
        with pytest.raises(Superseded, match="agent 1 is older than agent 2, which owns this node now"):
            await KEEPER_CALLS[name](again)

    asyncio.run(story())


@pytest.mark.parametrize(("gpus", "accelerator"), [(0.0, "cpu"), (8.0, "cuda")])
def test_a_keeper_warms_the_zygote_of_its_node_at_the_first_claim_only(
    dirs: NodeDirs, monkeypatch: pytest.MonkeyPatch, gpus: float, accelerator: str
) -> None:
    asked: list[tuple[object, str]] = []

    async def zygote(self: Keeper, environment: object, accelerator: str) -> str:
        asked.append((environment, accelerator))
        raise StartFailed("no torch here", True)

    nodes = [
        {"NodeID": "node-2", "Resources": {"CPU": 4.0, "GPU": 4.0}},
        {"NodeID": "node-1", "Resources": {"CPU": 4.0, "GPU": gpus}},
    ]
    monkeypatch.setattr(actors.ray, "nodes", lambda: nodes)
    monkeypatch.setattr(Keeper, "zygote", zygote)

    async def story() -> None:
        keeper = KeeperActor(dirs.root)
        for _ in range(3):
            await keeper.claim(OLD)
        assert keeper._warming is not None
        await keeper._warming

    asyncio.run(story())
    assert asked == [({}, accelerator)]


def test_an_epoch_that_cannot_be_kept_or_read_is_remembered_by_the_process(tmp_path: Path) -> None:
    away = NodeEpoch(tmp_path / "missing" / "epoch")
    away.remember(NEW)
    assert away.newest == NEW
    torn = tmp_path / "epoch"
    torn.write_text("")
    epoch = NodeEpoch(torn)
    assert epoch.newest == 0
    epoch.remember(NEW)
    assert NodeEpoch(torn).newest == NEW
