"""The host's side of a zygote: start one, lease ranks from it, hear of their ends.

The wire protocol is described in `trainers/zygote.py`. Nothing here blocks without a time limit; a `Lease` has a
`fileno()`, so an event loop may watch it and call `events(timeout_s=0)` when it is readable.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from orchestrator.errors import Refused, Unavailable

PACKET_BYTES = 192 * 1024


class ZygoteLost(Unavailable):
    """The zygote does not answer, or has closed the lease: its ranks are dead or dying."""


class RankRefused(Refused):
    """The zygote did not fork a rank; the message says which and why."""


@dataclass(frozen=True)
class RankRequest:
    """One process to fork. Exactly one of `launch` and `call` is given."""

    rank: int
    env: Mapping[str, str]  # its whole environment
    cwd: str
    stdout: int  # descriptors; they stay the caller's to close
    stderr: int
    launch: str | None = None  # path of the launch document
    call: str | None = None  # "module:function"
    args: tuple[Any, ...] = ()  # of `call`; JSON values
    threads: int = 1
    cpus: tuple[int, ...] | None = None
    seed: int = 0


@dataclass(frozen=True)
class Forked:
    rank: int
    pid: int
    pidfd: int  # the caller's to close; readable when the process has ended


@dataclass(frozen=True)
class Exited:
    rank: int
    pid: int
    status: int | None  # exit status, or None when a signal ended it
    signal: int | None
    max_rss_bytes: int
    oom_kills: int  # of the kernel, near the rank, during its life: evidence for a SIGKILL
    with_zygote: bool = False  # the zygote was lost first, so its owner tells this end

    @property
    def returncode(self) -> int:
        """As `subprocess` has it: the exit status, or minus the signal."""
        if self.signal is not None:
            return -self.signal
        assert self.status is not None
        return self.status


class Lease:
    """A connection to a zygote, and the life of every rank that was forked over it."""

    def __init__(self, path: str | Path, *, timeout_s: float = 10.0) -> None:
        """Raises ZygoteLost when nobody listens at `path`."""
        self._timeout_s = timeout_s
        self._exited: list[Exited] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(timeout_s)
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            raise ZygoteLost(f"no zygote listens at {path}: {error}") from error

    def fork(self, requests: Sequence[RankRequest]) -> list[Forked]:
        """Fork all, in order. Blocks for some milliseconds a rank.

        Raises RankRefused (the ranks before it live on: close the lease to end them) and ZygoteLost.
        """
        for request in requests:
            self._send_fork(request)
        forked: list[Forked] = []
        deadline = time.monotonic() + self._timeout_s
        try:
            while len(forked) < len(requests):
                forked += self._take(max(0.0, deadline - time.monotonic()), what="a forked rank")
        except BaseException:
            for each in forked:
                os.close(each.pidfd)
            raise
        return forked

    def signal(self, number: int, rank: int | None = None) -> None:
        """Send a signal to one living rank or to all. Raises ZygoteLost."""
        self._send({"op": "signal", "signal": int(number), "rank": rank})

    def events(self, timeout_s: float) -> list[Exited]:
        """What has ended; waits up to `timeout_s` for the first. Raises ZygoteLost once there is nothing left to tell."""
        if not self._exited and select.select([self._socket], [], [], timeout_s)[0]:
            self._drain()
        told, self._exited = self._exited, []
        return told

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        """End every rank with SIGKILL. May be called again."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send_fork(self, request: RankRequest) -> None:
        raw = {"op": "fork", **asdict(request)}
        self._send(raw, [raw.pop("stdout"), raw.pop("stderr")])

    def _send(self, raw: Mapping[str, Any], descriptors: Sequence[int] = ()) -> None:
        packet = json.dumps(raw).encode()
        if len(packet) > PACKET_BYTES:
            raise RankRefused(
                f"the request for rank {raw.get('rank')} is {len(packet)} bytes, {PACKET_BYTES} at most: "
                "its environment or its arguments are too large"
            )
        try:
            socket.send_fds(self._socket, [packet], list(descriptors))
        except OSError as error:
            raise ZygoteLost(f"the zygote takes no requests: {error}") from error

    def _drain(self) -> None:
        with contextlib.suppress(TimeoutError):
            while True:
                try:
                    self._take(0.0, what="an event")
                except ZygoteLost:
                    if not self._exited:
                        raise
                    return

    def _take(self, timeout_s: float, *, what: str) -> list[Forked]:
        """One packet: exits are kept for `events`, forked ranks returned."""
        raw, descriptors = self._packet(timeout_s, what)
        if raw["event"] == "forked":
            return [Forked(raw["rank"], raw["pid"], descriptors[0])]
        if raw["event"] == "refused":
            raise RankRefused(f"the zygote did not fork rank {raw['rank']}: {raw['why']}")
        del raw["event"]
        self._exited.append(Exited(**raw))
        return []

    def _packet(self, timeout_s: float, what: str) -> tuple[dict[str, Any], list[int]]:
        if not select.select([self._socket], [], [], timeout_s)[0]:
            raise TimeoutError(f"the zygote has not sent {what} within {timeout_s:.1f} s")
        try:
            packet, descriptors, _, _ = socket.recv_fds(self._socket, PACKET_BYTES, 1)
        except OSError as error:
            raise ZygoteLost(f"the zygote is gone: {error}") from error
        if not packet:
            raise ZygoteLost("the zygote has closed the lease")
        return json.loads(packet), descriptors


class ZygoteProcess:
    """A zygote that this process owns: it ends when this object is closed or this process dies."""

    def __init__(self, socket_path: Path, process: subprocess.Popen[bytes]) -> None:
        self.socket_path = socket_path
        self._process = process

    @classmethod
    def start(
        cls,
        python: str,
        socket_path: Path,
        *,
        accelerator: str,
        env: Mapping[str, str] | None = None,
        output: int | None = None,
    ) -> Self:
        """Start `python`'s zygote; it is ready some seconds later (`wait_ready`). `output` takes what it prints."""
        command = [python, "-m", "trainers.zygote", "--socket", str(socket_path), "--accelerator", accelerator]
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env=None if env is None else dict(env),
            start_new_session=True,  # Ctrl-C in our terminal is ours to answer
        )
        return cls(socket_path, process)

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_ready(self, timeout_s: float) -> None:
        """Raises ZygoteLost when it ends first, or is not ready in time."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise ZygoteLost(
                    f"the zygote ended with {self._process.returncode} before it was ready: see its output"
                )
            with contextlib.suppress(ZygoteLost):
                Lease(self.socket_path).close()
                return
            time.sleep(0.02)
        raise ZygoteLost(f"the zygote at {self.socket_path} was not ready within {timeout_s:.0f} s")

    def returncode(self) -> int | None:
        """None while it lives."""
        return self._process.poll()

    def has_ranks(self) -> bool:
        """Whether anything that was forked from it is there still: ranks, stores, or what they left behind."""
        try:
            return bool(Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split())
        except OSError:
            return False  # it has ended

    def serves(self) -> bool:
        """Whether it takes leases. One that is ending takes none, while its process may be there for a while yet."""
        if self.returncode() is not None:
            return False
        try:
            Lease(self.socket_path).close()
        except ZygoteLost:
            return False
        return True

    def close(self, timeout_s: float = 10.0) -> None:
        """End it and all its ranks."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
