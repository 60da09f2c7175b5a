"""Hold ranks to their memory by looking: the summed proportional set size (PSS) of a rank and its descendants.

PSS counts a page that a zygote and n forks share as 1/n for each, so a rank pays for what it made and not for the
imported libraries. Reading it is dear, so the resident size, which is cheap and never smaller, is looked at first.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

import psutil

INTERVAL_S = 0.5


def over_limit(pids: Mapping[int, int], limit_bytes: int) -> dict[int, int]:
    """Of the ranks (by number: pid) those that use more than `limit_bytes`, with what they use."""
    found = {}
    for rank, pid in pids.items():
        try:
            process = psutil.Process(pid)  # type: ignore[no-untyped-call]
            family = [process, *process.children(recursive=True)]  # type: ignore[no-untyped-call]
            if sum(_rss(each) for each in family) <= limit_bytes:
                continue
            used = sum(_pss(each) for each in family)
        except psutil.Error:
            continue
        if used > limit_bytes:
            found[rank] = used
    return found


def remove_shared_memory(pid: int, directory: Path = Path("/dev/shm")) -> None:
    """Take away the torch segments that a killed rank left: their names carry its pid."""
    for path in directory.glob(f"torch_{pid}_*"):
        with contextlib.suppress(OSError):
            path.unlink()


def _rss(process: psutil.Process) -> int:
    with contextlib.suppress(psutil.Error):
        return int(process.memory_info().rss)
    return 0


def _pss(process: psutil.Process) -> int:
    with contextlib.suppress(OSError, ValueError):
        for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
