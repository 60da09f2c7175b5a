"""An incarnation that is closed has no living ranks, or says so."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.cluster import incarnation
from orchestrator.cluster.incarnation import RanksSurvive, RunningIncarnation
from orchestrator.cluster.zygote_client import Exited, Forked, ZygoteLost
from trainers import contract


class StubbornLease:
    """Of a zygote whose ranks do not end: they hang in the kernel, as on a file server that is gone."""

    def __init__(self, path: str) -> None:
        self._socket, self._peer = socket.socketpair()
        self.signals: list[int] = []
        self.closed = False

    def fork(self, requests: object) -> list[Forked]:
        return [Forked(rank, 4_000_000 + rank, self._peer.dup().detach()) for rank in (0, 1)]

    def signal(self, number: int, rank: int | None = None) -> None:
        self.signals.append(number)

    def events(self, timeout_s: float) -> list[Exited]:
        return []

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self.closed = True
        self._socket.close()
        self._peer.close()


@pytest.mark.parametrize("watched", [True, False])
def test_a_rank_that_survives_sigkill_is_told_and_everything_else_is_cleared_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, watched: bool
) -> None:
    monkeypatch.setattr(incarnation, "Lease", StubbornLease)
    monkeypatch.setattr(incarnation, "_KILL_WAIT_S", 0.05)

    async def story() -> None:
        running = RunningIncarnation(1, tmp_path, "/zygote")
        await running.listen([0, 1], lambda rank, message: None)
        launch = running.write_launch("{}")
        await running.fork([], lambda exited: None)
        if watched:
            running.watch()
        for _ in range(2):
            with pytest.raises(RanksSurvive, match="rank 0, 1 did not end"):
                await running.close()
        assert not launch.exists()
        assert not running.socket_path.exists()

    asyncio.run(story())


def test_a_rank_that_connected_and_says_its_name_once_all_is_closed_is_not_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first step would be taken for that of the next incarnation's rank."""
    monkeypatch.setattr(incarnation, "Lease", StubbornLease)
    heard: list[contract.Message] = []

    async def story() -> None:
        running = RunningIncarnation(1, tmp_path, "/zygote")
        await running.listen([0], lambda rank, message: heard.append(message))
        reader, writer = await asyncio.open_unix_connection(str(running.socket_path))
        await asyncio.sleep(0)  # it is accepted
        await running.close()
        writer.write(contract.encode(contract.Hello(rank=0, pid=1)))
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()

    asyncio.run(story())
    assert heard == []


class SlowLease(StubbornLease):
    """Of a zygote that forks only when the test says so."""

    asked, granted = threading.Event(), threading.Event()

    def fork(self, requests: object) -> list[Forked]:
        self.asked.set()
        assert self.granted.wait(10)
        return super().fork(requests)


def test_ranks_that_were_forked_for_nobody_any_more_are_waited_for_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(incarnation, "Lease", SlowLease)
    monkeypatch.setattr(incarnation, "_KILL_WAIT_S", 0.05)

    async def story() -> None:
        running = RunningIncarnation(1, tmp_path, "/zygote")
        forking = asyncio.create_task(running.fork([], lambda exited: None))
        assert await asyncio.to_thread(SlowLease.asked.wait, 10)
        forking.cancel()
        SlowLease.granted.set()
        with pytest.raises(asyncio.CancelledError):
            await forking
        with pytest.raises(RanksSurvive, match="rank 0, 1 did not end"):
            await running.close()

    asyncio.run(story())


@pytest.fixture
def sleepers() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Two groups of processes that nothing ends by itself. Their output ends with the last process of a group."""
    command = ["sh", "-c", "sleep 600 & echo; wait"]
    found = [subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) for _ in range(2)]
    for each in found:
        assert each.stdout is not None
        assert each.stdout.readline() == b"\n"  # the whole group is there
    yield found
    for each in found:
        each.kill()
        each.communicate(timeout=10)


def test_ranks_that_outlive_their_zygote_are_ended_and_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sleepers: list[subprocess.Popen[bytes]]
) -> None:
    class LostLease(StubbornLease):
        def fork(self, requests: object) -> list[Forked]:
            return [Forked(rank, each.pid, os.pidfd_open(each.pid)) for rank, each in enumerate(sleepers)]

        def events(self, timeout_s: float) -> list[Exited]:
            raise ZygoteLost("the zygote has closed the lease")

    monkeypatch.setattr(incarnation, "Lease", LostLease)
    told: list[Exited] = []

    async def story() -> None:
        running = RunningIncarnation(1, tmp_path, "/zygote")
        await running.fork([], told.append)
        running.watch()
        assert told == []
        await running.close()

    asyncio.run(story())
    assert sorted((each.rank, each.signal, each.with_zygote) for each in told) == [(0, 9, True), (1, 9, True)]
    for each in sleepers:
        each.communicate(timeout=10)
        assert each.returncode == -signal.SIGKILL
