"""An incarnation that is closed has no living ranks, or says so."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from orchestrator.cluster import incarnation
from orchestrator.cluster.incarnation import RanksSurvive, RunningIncarnation
from orchestrator.cluster.zygote_client import Exited, Forked


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
