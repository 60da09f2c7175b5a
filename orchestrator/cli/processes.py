"""Processes named so that a reused pid is never taken for another, and ended only when they are ours.

Every process of a stack carries the stack's mark in its environment, inherited by all that it starts, ranks and Ray's
workers included. Only processes of the present user can be read, so nobody else's are ever touched.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

MARK = "EVERTRAIN_STACK"
_PROC = Path("/proc")


@dataclass(frozen=True)
class Process:
    """A process by pid and start time (clock ticks since boot)."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> Process | None:
        """None when there is no such process, or only its zombie."""
        try:
            fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        except (OSError, IndexError):
            return None
        return None if fields[0] in ("Z", "X") else cls(pid, int(fields[19]))

    @property
    def alive(self) -> bool:
        return Process.of(self.pid) == self

    def send(self, number: signal.Signals) -> None:
        """Signal this very process; no effect when it has ended."""
        try:
            handle = os.pidfd_open(self.pid)
        except OSError:
            return
        try:
            if self.alive:
                signal.pidfd_send_signal(handle, number)
        except ProcessLookupError:
            pass
        finally:
            os.close(handle)


def marked(mark: str) -> list[Process]:
    """Every living process that was started with this mark, or with one below it (`stack` covers `stack/ray`)."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for entry in _PROC.iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        process = Process.of(int(entry.name))
        if process is not None and _has_mark(entry, wanted):
            found.append(process)
    return found


def _has_mark(entry: Path, wanted: bytes) -> bool:
    try:
        variables = (entry / "environ").read_bytes().split(b"\0")
    except OSError:
        return False
    return any(each == wanted or each.startswith(wanted + b"/") for each in variables)


def end_marked(mark: str, *, patience_s: float) -> int:
    """SIGTERM all, and SIGKILL what is left after `patience_s`, until none is left. Answers how many there were."""
    seen: set[Process] = set()

    def rest() -> list[Process]:
        left = marked(mark)
        seen.update(left)
        return left

    for process in rest():
        process.send(signal.SIGTERM)
    wait_until(lambda: not rest(), timeout_s=patience_s)
    while left := rest():  # killing one may leave a child that it was just starting
        for process in left:
            process.send(signal.SIGKILL)
        wait_until(lambda: not rest(), timeout_s=1.0)
    return len(seen)


def wait_until(condition: Callable[[], bool], *, timeout_s: float, pause_s: float = 0.05) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause_s)
    return True
