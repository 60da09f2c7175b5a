"""What a keeper keeps, and what it lets go."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.cluster import keeper as keeper_module
from orchestrator.cluster.environments import EnvironmentKey
from orchestrator.cluster.keeper import Keeper, _Kept
from orchestrator.cluster.local_dirs import NodeDirs
from orchestrator.cluster.zygote_client import ZygoteProcess

OTHER = EnvironmentKey("/opt/python", ())


@pytest.fixture
def keeper(tmp_path: Path) -> Keeper:
    return Keeper(NodeDirs(str(tmp_path), "node-1"), os.getpid())


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """Stands for a zygote: it has a child for each word that it reads, and ends with its input."""
    script = "while read word; do sleep 600 & echo $!; done"
    with subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield process
        process.kill()


def hold(keeper: Keeper, key: EnvironmentKey, process: subprocess.Popen[bytes]) -> _Kept:
    kept = _Kept(key, ZygoteProcess(Path("/nowhere"), process), time.monotonic())
    keeper._zygotes[key.digest] = kept
    keeper._building[key.digest] = asyncio.Lock()
    return kept


def test_a_zygote_with_ranks_is_not_idle_however_long_ago_they_started(
    keeper: Keeper, process: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"fork\n")
    process.stdin.flush()
    rank = int(process.stdout.readline())
    monkeypatch.setattr(keeper_module, "IDLE_ZYGOTE_S", 100.0)
    kept = hold(keeper, OTHER, process)
    kept.used_s -= 1000.0
    try:
        asyncio.run(keeper.retire_idle())
        assert process.poll() is None
        assert time.monotonic() - kept.used_s < 100.0, "once its ranks have ended it is kept for as long as any other"
    finally:
        os.kill(rank, 9)


def test_cpus_that_a_host_has_only_just_seized_stay_its_own(keeper: Keeper, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its ranks start before the agent, which names the owners, has heard that the gang is placed."""
    seized = keeper.seize_cpus("gang-1/0", 1)
    assert seized is not None
    asyncio.run(keeper.sweep([], []))
    keeper.seize_cpus("gang-2/0", 1)
    assert keeper.seize_cpus("gang-1/0", 1) == seized
    monkeypatch.setattr(keeper_module, "SWEEP_OLDER_THAN_S", -1.0)
    asyncio.run(keeper.sweep([], ["gang-2/0"]))
    assert keeper.seize_cpus("gang-3/0", 1) == seized


@pytest.mark.parametrize(("key", "ends"), [(OTHER, True), (EnvironmentKey(None, ()), False)])
def test_an_idle_zygote_is_ended_unless_it_is_the_default_one(
    keeper: Keeper, process: subprocess.Popen[bytes], key: EnvironmentKey, ends: bool
) -> None:
    hold(keeper, key, process).used_s -= 2 * keeper_module.IDLE_ZYGOTE_S
    asyncio.run(keeper.retire_idle())
    assert (process.poll() is not None) == ends
