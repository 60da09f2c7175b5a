"""Processes named so that a reused pid is never taken for another, and ended only when they are ours.

Every process of a stack carries the stack's mark in its environment, inherited by all that it starts, ranks and Ray's
workers included. Only processes of the present user can be read, so nobody else's are ever touched. Some of Ray's
overwrite their environment with a title: those are known by their ancestors and, once orphans, by their session.
"""

from __future__ import annotations

import os
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

MARK = "EVERTRAIN_STACK"
_PROC = Path("/proc")
_PARENT, _SESSION, _STARTED = 1, 3, 19  # positions after the name in /proc/PID/stat


@dataclass(frozen=True)
class Process:
    """A process by pid and start time (clock ticks since boot)."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> Process | None:
        """None when there is no such process, or only its zombie."""
        fields = _stat(pid)
        return cls(pid, int(fields[_STARTED])) if fields else None

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
    """Every living process that was started with this mark, or with one below it (`stack` covers `stack/ray`), and all
    that descend from one."""
    wanted = f"{MARK}={mark}".encode()
    found: dict[int, Process] = {}
    children: dict[int, list[Process]] = defaultdict(list)
    for pid, fields in _others():
        process = Process(pid, int(fields[_STARTED]))
        children[int(fields[_PARENT])].append(process)
        if _has_mark(_PROC / str(pid), wanted):
            found[pid] = process
    unvisited = list(found)
    while unvisited:
        for child in children[unvisited.pop()]:
            if child.pid not in found:
                found[child.pid] = child
                unvisited.append(child.pid)
    return list(found.values())


def of_session(leader: Process) -> list[Process]:
    """Who lives in the session that `leader` began, be it alive or not; nobody when its pid is another's by now."""
    if Process.of(leader.pid) not in (leader, None):
        return []
    return [Process(pid, int(fields[_STARTED])) for pid, fields in _others() if int(fields[_SESSION]) == leader.pid]


def _others() -> list[tuple[int, list[str]]]:
    """Every living process but this one, with the fields of its status."""
    pids = [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit()]
    found = [(pid, _stat(pid)) for pid in pids if pid != os.getpid()]
    return [(pid, fields) for pid, fields in found if fields is not None]


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat after the name; None when there is no such process, or only its zombie."""
    try:
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if not fields or fields[0] in ("Z", "X") else fields


def _has_mark(entry: Path, wanted: bytes) -> bool:
    try:
        variables = (entry / "environ").read_bytes().split(b"\0")
    except OSError:
        return False
    return any(each == wanted or each.startswith(wanted + b"/") for each in variables)


def end_marked(mark: str, *, patience_s: float, known: Iterable[Process] = ()) -> int:
    """SIGTERM all, and SIGKILL what is left after `patience_s`, until none is left. Answers how many there were.

    `known`: more that belong to them and cannot be told by the mark any more, for their ancestors have ended.
    """
    seen: set[Process] = set(known)

    def rest() -> list[Process]:
        seen.update(marked(mark))
        return [each for each in seen if each.alive]

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
