"""A host starts each rank once, however often it is asked, and where another host died before."""

from __future__ import annotations

import asyncio
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cluster import incarnation
from orchestrator.cluster.bound import Bound
from orchestrator.cluster.gang_messages import Bind, StartFailed, StartRanks
from orchestrator.cluster.host import Host, HostIdentity
from orchestrator.cluster.local_dirs import NodeDirs
from orchestrator.cluster.zygote_client import Exited, Forked, RankRequest
from orchestrator.core.orders import AttemptOrder
from orchestrator.core.runs import NodeShare

SHARE = NodeShare("node-1", "host-1", "127.0.0.1", 2)
ORDER = AttemptOrder(
    run_id="run-1", project="default", run_name="run", attempt=1, shares=(SHARE,), checkpoint_root="/c",
    spec={"recipe": "digits_cnn", "resources": {"workers": 2}},
)  # fmt: skip
FIRST = StartRanks(1, "127.0.0.1", 29500, (), furthest_step=0)


class CountingLease:
    """Of a zygote that takes a moment to fork, and whose ranks end with the lease."""

    forked = 0

    def __init__(self, path: str) -> None:
        self._socket, self._peer = socket.socketpair()
        self._ended: list[Exited] = []
        self._forked: list[Forked] = []

    def fork(self, requests: list[RankRequest]) -> list[Forked]:
        time.sleep(0.05)
        for each in requests:
            type(self).forked += 1
            self._forked.append(Forked(each.rank, 4_000_000 + self.forked, self._peer.dup().detach()))
        return self._forked

    def signal(self, number: int, rank: int | None = None) -> None:
        self._ended = [Exited(each.rank, each.pid, None, number, 0, 0) for each in self._forked]
        self._peer.send(b"they ended")

    def events(self, timeout_s: float) -> list[Exited]:
        told, self._ended = self._ended, []
        return told

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()
        self._peer.close()


class OneZygote:
    async def zygote(self, environment: object, accelerator: object) -> str:
        return "/zygote"

    async def seize_cpus(self, owner: str, count: int) -> tuple[int, ...] | None:
        return None

    async def release_cpus(self, owner: str) -> None: ...


def test_a_start_that_is_asked_for_again_answers_the_same_ranks_and_one_that_was_closed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asks over a network cannot know whether a call that broke was heard."""
    monkeypatch.setattr(incarnation, "Lease", CountingLease)
    monkeypatch.setattr(CountingLease, "forked", 0)

    async def story() -> None:
        dirs = NodeDirs(str(tmp_path / "n"), "node-1")
        host = Host(HostIdentity("gang-1/0", "host-1", "127.0.0.1"), dirs, OneZygote(), unpack=lambda *_: None)
        await host.bind(Bind(ORDER, 0))
        both: list[Any] = await asyncio.gather(host.start(FIRST), host.start(FIRST))
        assert both == [(4_000_001, 4_000_002)] * 2 == [await host.start(FIRST)] * 2
        await host.close_incarnation(1)
        with pytest.raises(StartFailed, match="called off"):
            await host.start(FIRST)
        assert CountingLease.forked == 2
        await host.release()

    asyncio.run(story())


def test_ranks_get_ready_also_where_a_host_died_that_had_some_get_ready_for_the_same_attempt(tmp_path: Path) -> None:
    async def story() -> None:
        for _ in range(2):
            bound = Bound(Bind(ORDER, 0), tmp_path, None, host="host-1", source="gang-1/0")
            assert bound.make_gate().is_fifo()

    asyncio.run(story())
