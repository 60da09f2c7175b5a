"""Hold ranks to their memory by looking: the summed proportional set size (PSS) of a rank and its descendants.

PSS counts a page that a zygote and n forks share as 1/n for each, so a rank pays for what it made and not for the
imported libraries. Reading it is dear, so the resident size, which is cheap and never smaller, is looked at first.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

INTERVAL_S = 0.5
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


def over_limit(pids: Mapping[int, int], limit_bytes: int) -> dict[int, str]:
    """Of the ranks (by number: pid) those that use more than `limit_bytes`, with the evidence in words."""
    found = {}
    for rank, family in _families(pids).items():
        if (
            sum(_rss(each) for each in family) > limit_bytes
            and (used := sum(_pss(each) for each in family)) > limit_bytes
        ):
            found[rank] = f"{_gib(used)} used of {_gib(limit_bytes)} allowed"
    return found


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
