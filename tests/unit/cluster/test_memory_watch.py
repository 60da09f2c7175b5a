"""Who is ended when memory ends, and on what evidence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from orchestrator.cluster import memory_watch
from orchestrator.cluster.memory_watch import (
    LimitWatch,
    NodeMemory,
    explains_kernel_kill,
    node_memory,
    over_node,
    victim,
)

GIB = 2**30
FULL = NodeMemory(used_bytes=93 * GIB, total_bytes=100 * GIB)


def test_of_ranks_without_a_limit_the_largest_is_ended_before_the_node_is_full() -> None:
    found = victim({0: 20 * GIB, 1: 50 * GIB}, FULL)
    assert list(found) == [1]
    assert "93.00 GiB of 100.00 GiB" in found[1]
    assert "50.00 GiB" in found[1]


def test_nobody_is_ended_while_the_node_has_memory_or_when_others_fill_it() -> None:
    assert victim({0: 80 * GIB}, NodeMemory(85 * GIB, 100 * GIB)) == {}
    assert victim({0: 2 * GIB, 1: 3 * GIB}, FULL) == {}
    assert victim({}, FULL) == {}


def test_the_bound_lies_below_the_one_at_which_ray_kills() -> None:
    assert memory_watch.NODE_LIMIT < 0.95


def test_a_real_rank_is_found_when_its_node_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_watch, "node_memory", lambda: NodeMemory(95, 100))
    assert list(over_node({3: os.getpid()})) == [3]
    monkeypatch.setattr(memory_watch, "node_memory", lambda: NodeMemory(50, 100))
    assert over_node({3: os.getpid()}) == {}


def test_a_rank_is_held_to_its_own_limit() -> None:
    assert list(LimitWatch(2**20).over({0: os.getpid()})) == [0]
    assert LimitWatch(2**50).over({0: os.getpid()}) == {}


def test_a_rank_answers_for_what_its_descendants_use() -> None:
    # A child that only starts another one, which holds 300 MiB and says so.
    hog = "held = b'x' * (300 << 20); print('held', flush=True); input()"
    starts = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hog!r}])"
    with subprocess.Popen(
        [sys.executable, "-c", starts], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "held\n"
        assert list(LimitWatch(300 * 2**20).over({2: parent.pid})) == [2]
        assert LimitWatch(2**30).over({2: parent.pid}) == {}
        parent.communicate("\n")
    assert LimitWatch(1).over({2: parent.pid}) == {}, "nobody lives there any more"


# Shares 300 MiB with its child, so that each answers for half; then the child makes as much its own as it is told.
SHARES = """
import os, sys
shared = bytearray(os.urandom(1 << 20)) * 300
if os.fork() == 0:
    print(os.getpid(), flush=True)
    kept = []
    for line in sys.stdin:
        kept.append(bytearray(b"x" * (int(line) << 20)))
        print("grown", flush=True)
else:
    os.wait()
"""


def test_what_a_rank_shares_is_not_read_again_and_again_and_its_growth_is_seen_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    readings = []
    read = memory_watch._pss
    monkeypatch.setattr(memory_watch, "_pss", lambda pid: readings.append(pid) or read(pid))
    monkeypatch.setattr(memory_watch, "_READING_SHARE", 1e-9)  # what was read stays fresh throughout the test
    with subprocess.Popen(
        [sys.executable, "-c", SHARES], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        pids = {0: int(parent.stdout.readline())}
        watch = LimitWatch(250 * 2**20)
        assert [watch.over(pids) for _ in range(5)] == [{}] * 5
        assert len(readings) == 1
        print(200, file=parent.stdin, flush=True)
        assert parent.stdout.readline() == "grown\n"
        assert list(watch.over(pids)) == [0]
        parent.communicate()


def test_a_small_rank_was_not_what_the_kernel_ended_for_memory() -> None:
    assert not explains_kernel_kill(1 * GIB, 0, FULL)
    assert explains_kernel_kill(60 * GIB, 0, FULL)
    assert explains_kernel_kill(1 * GIB, 1 * GIB, FULL)


def test_the_limit_of_a_container_is_the_memory_of_the_node(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("800000\n")
    (tmp_path / "memory.stat").write_text("anon 500000\ninactive_file 200000\n")
    assert node_memory(tmp_path) == NodeMemory(600000, 1000000)


def test_the_limit_of_an_older_container_counts_as_well(tmp_path: Path) -> None:
    directory = tmp_path / "memory"
    directory.mkdir()
    (directory / "memory.limit_in_bytes").write_text("1000000\n")
    (directory / "memory.usage_in_bytes").write_text("800000\n")
    (directory / "memory.stat").write_text("cache 5\ntotal_inactive_file 100000\n")
    assert node_memory(tmp_path) == NodeMemory(700000, 1000000)


def test_without_a_limit_the_node_has_the_memory_of_the_machine(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("max\n")
    assert node_memory(tmp_path).total_bytes == psutil.virtual_memory().total
