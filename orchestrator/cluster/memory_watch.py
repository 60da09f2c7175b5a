"""Hold ranks to their memory by looking: the summed proportional set size (PSS) of a rank and its descendants.

PSS counts a page that a zygote and n forks share as 1/n for each, so a rank pays for what it made and not for the
imported libraries. Reading it is dear: the kernel walks all of the rank's pages, and holds off its page faults
meanwhile. The resident size (RSS) is cheap and never smaller, so it decides whether the other is read at all.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

INTERVAL_S = 0.5
_READING_SHARE = 0.01  # of a core, at most, for reading one rank's proportional size
# At 0.95 of the node's memory Ray ends a worker of its choice: that would be the host actor, and all ranks with it.
NODE_LIMIT = 0.90
_OURS_AT_LEAST = 0.10  # of the node's memory: below it our ranks are not what fills the node
_KERNEL_KILLS_FROM = 0.20  # of the rank's limit or the node's memory: the kernel chooses who uses most
_CGROUP = Path("/sys/fs/cgroup")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class NodeMemory:
    """Of the machine, or of the container that all of the node lives in. Pages that can be dropped count as free."""

    used_bytes: int
    total_bytes: int


@dataclass(frozen=True)
class _Reading:
    pid: int
    rss_bytes: int
    pss_bytes: int
    fresh_until_s: float


class LimitWatch:
    """Holds ranks to a limit each. A rank whose resident size lies above it only by what it shares is read anew when it
    has grown by what was left, and else as often as its pages are cheap to walk: pages that it shared and has made its
    own since then (at most what its zygote holds) are seen that much later.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._readings: dict[int, _Reading] = {}

    def over(self, pids: Mapping[int, int]) -> dict[int, str]:
        """Of the ranks (by number: pid) those that use more than the limit, with the evidence in words."""
        found = {}
        for rank, family in _families(pids).items():
            rss_bytes = sum(_rss(each) for each in family)
            if rss_bytes <= self._limit_bytes:
                continue
            last = self._readings.get(rank)
            if last is None or not self._still_tells(last, pids[rank], rss_bytes):
                began_s = time.monotonic()
                used = sum(_pss(each) for each in family)
                ended_s = time.monotonic()
                fresh_until_s = ended_s + (ended_s - began_s) / _READING_SHARE
                last = self._readings[rank] = _Reading(pids[rank], rss_bytes, used, fresh_until_s)
            if last.pss_bytes > self._limit_bytes:
                found[rank] = f"{_gib(last.pss_bytes)} used of {_gib(self._limit_bytes)} allowed"
        return found

    def _still_tells(self, last: _Reading, pid: int, rss_bytes: int) -> bool:
        grown = last.pss_bytes + rss_bytes - last.rss_bytes
        return last.pid == pid and grown <= self._limit_bytes and time.monotonic() < last.fresh_until_s


def over_node(pids: Mapping[int, int]) -> dict[int, str]:
    """For ranks without a limit of their own: the largest one, with the evidence, when the node's memory ends."""
    node = node_memory()
    if node.used_bytes <= NODE_LIMIT * node.total_bytes:
        return {}
    used = {rank: sum(_pss(each) for each in family) for rank, family in _families(pids).items()}
    return victim(used, node)


def victim(used: Mapping[int, int], node: NodeMemory) -> dict[int, str]:
    """Of ranks that use `used` bytes, the one to end so that the node lives on; none while the node has memory left, or
    when it is not these ranks that fill it.
    """
    full = node.used_bytes > NODE_LIMIT * node.total_bytes
    if not full or sum(used.values()) < _OURS_AT_LEAST * node.total_bytes:
        return {}
    rank = max(used, key=lambda each: used[each])
    evidence = (
        f"its node has {_gib(node.used_bytes)} of {_gib(node.total_bytes)} in use, and with {_gib(used[rank])} it used "
        "the most of its run's ranks there, which set no `resources.memory`"
    )
    return {rank: evidence}


def explains_kernel_kill(rss_bytes: int, limit_bytes: int, node: NodeMemory) -> bool:
    """Whether a rank was large enough for the kernel to have chosen it: that somebody was killed says not yet who."""
    return rss_bytes >= _KERNEL_KILLS_FROM * (limit_bytes or node.total_bytes)


def node_memory(cgroup: Path = _CGROUP) -> NodeMemory:
    machine = psutil.virtual_memory()  # type: ignore[no-untyped-call]
    whole = NodeMemory(machine.total - machine.available, machine.total)
    container = _cgroup_memory(
        cgroup / "memory.max", cgroup / "memory.current", cgroup / "memory.stat", "inactive_file"
    )
    old = cgroup / "memory"  # version 1
    container = container or _cgroup_memory(
        old / "memory.limit_in_bytes", old / "memory.usage_in_bytes", old / "memory.stat", "total_inactive_file"
    )
    return container if container is not None and container.total_bytes < whole.total_bytes else whole


def _cgroup_memory(limit: Path, usage: Path, stat: Path, droppable: str) -> NodeMemory | None:
    """None where there is no such file, or no limit."""
    try:
        stats = dict(line.split() for line in stat.read_text().splitlines())
        return NodeMemory(int(usage.read_text()) - int(stats.get(droppable, 0)), int(limit.read_text()))
    except (OSError, ValueError):
        return None


def _families(pids: Mapping[int, int]) -> dict[int, list[int]]:
    """Each rank's process with its descendants."""
    return {rank: _family(pid) for rank, pid in pids.items()}


def _family(pid: int) -> list[int]:
    """Asks the kernel for each process's own children. Looking through every process of the node for them, as psutil
    does, took two hundredths of a core that the ranks were using.
    """
    family = [pid]
    with contextlib.suppress(OSError):  # ended meanwhile
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                family += _family(int(child))
    return family


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / 2**30:.2f} GiB"


def remove_shared_memory(pid: int, directory: Path = Path("/dev/shm")) -> None:
    """Take away the torch segments that a killed rank left: their names carry its pid."""
    for path in directory.glob(f"torch_{pid}_*"):
        with contextlib.suppress(OSError):
            path.unlink()


def _rss(pid: int) -> int:
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
    return 0


def _pss(pid: int) -> int:
    with contextlib.suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
