"""What ranks left behind when their zygote was killed: it can end nothing any more, and nobody else knows of them.

A rank dies with its zygote by its death signal; what the rank started does not. Whoever owns zygotes is the subreaper of
their descendants, so those become its children, whatever sessions they made for themselves.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Collection
from pathlib import Path

from orchestrator.cluster.memory_watch import remove_shared_memory

_PR_SET_CHILD_SUBREAPER = 36
_LOOK_EVERY_S = 0.02


def adopt_orphans() -> None:
    """Make this process the parent of its descendants whose own parents die."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_orphans(kept: Collection[int], timeout_s: float) -> list[int]:
    """End every child of this process, and their descendants, besides `kept` and what lives in our own session.

    Returns those that did not end in time. Children that we start ourselves are in our session or among `kept`.
    """
    deadline = time.monotonic() + timeout_s
    while orphans := [pid for pid in _children() if pid not in kept and _session(pid) not in (None, os.getsid(0))]:
        for pid in orphans:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)  # its own children are ours then
            remove_shared_memory(pid)
        if time.monotonic() > deadline:
            return orphans
        time.sleep(_LOOK_EVERY_S)
    return []


def _children() -> list[int]:
    found = []
    for task in Path("/proc/self/task").iterdir():  # a child belongs to the thread that started it
        with contextlib.suppress(OSError):
            found += [int(pid) for pid in (task / "children").read_text().split()]
    return found


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None
