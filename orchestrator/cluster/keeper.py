"""What a node keeps between attempts: its zygotes, its CPUs' owners, the files that attempts left. One per Ray node.

The zygotes hang on this process by their standard input: when it ends, however that comes about, they end, and their ranks.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.cluster import log_spool, outbox
from orchestrator.cluster.environments import EnvironmentKey, python_of
from orchestrator.cluster.gang_messages import StartFailed
from orchestrator.cluster.local_dirs import NodeDirs, remove_dead_nodes, remove_tree
from orchestrator.cluster.node_epoch import NodeEpoch
from orchestrator.cluster.orphans import end_orphans
from orchestrator.cluster.rank_env import WITHHELD_PREFIXES, Accelerator
from orchestrator.cluster.zygote_client import ZygoteLost, ZygoteProcess
from orchestrator.core.observations import Observation
from orchestrator.core.records import LogLine

log = logging.getLogger(__name__)

ZYGOTE_READY_S = 120.0
IDLE_ZYGOTE_S = 1800.0
ORPHANS_END_S = 10.0
PRINTED_CHUNKS = 16
_NO_PROGRAM = (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ENOEXEC, errno.EISDIR)  # nor will it be one later
SWEEP_OLDER_THAN_S = 30.0  # an attempt may have begun since the agent made its list


@dataclass(frozen=True)
class Leftover:
    """What the hosts of an attempt left on this node when their processes died."""

    observations: tuple[Observation, ...]
    lines: tuple[LogLine, ...]


class Printed:
    """What a zygote prints: read so that it never waits, the end of it kept for an error message."""

    def __init__(self) -> None:
        self._read_fd, self.write_fd = os.pipe()
        self._chunks: deque[bytes] = deque(maxlen=PRINTED_CHUNKS)
        self._thread = threading.Thread(target=self._read, name="zygote output", daemon=True)

    def follow(self) -> None:
        """Begin to read, and give up our own end."""
        os.close(self.write_fd)
        self._thread.start()

    def tail(self) -> str:
        """Waits a moment for the end of the output."""
        self._thread.join(1.0)
        return b"".join(self._chunks).decode(errors="backslashreplace")

    def _read(self) -> None:
        while chunk := os.read(self._read_fd, 4096):
            self._chunks.append(chunk)
            log.info("zygote: %s", chunk.decode(errors="backslashreplace").rstrip())
        os.close(self._read_fd)


@dataclass
class _Kept:
    key: EnvironmentKey
    zygote: ZygoteProcess
    used_s: float  # monotonic


@dataclass(frozen=True)
class _Seized:
    cpus: tuple[int, ...]
    since_s: float  # monotonic


class Keeper:
    """Knows nothing of Ray; `actors` wraps it. For one event loop; what blocks runs in threads.

    Its process is its alone: once a zygote has died, every child that it does not know is taken for that one's orphan.
    """

    def __init__(self, dirs: NodeDirs, owner: int) -> None:
        """`owner`: process id of the node's raylet; once it is gone, anybody may take the node's files away."""
        self._dirs = dirs
        dirs.create()
        dirs.own(owner)
        self._zygotes: dict[str, _Kept] = {}  # by environment and accelerator
        self._starting = threading.Lock()  # nobody looks for orphans before what is being started is known
        self._building: dict[str, asyncio.Lock] = {}
        self._pids: set[int] = set()  # of all zygotes
        self._cpus: dict[str, _Seized] = {}
        self._epoch = NodeEpoch(dirs.epoch)

    def claim(self, epoch: int) -> None:
        """An agent owns the cluster from now on. Raises Superseded when a newer one has claimed it."""
        self._epoch.insist_on(epoch, "this node")
        self._epoch.remember(epoch)

    @property
    def epoch(self) -> int:
        """Of the newest agent heard of; 0 before the first."""
        return self._epoch.newest

    async def zygote(self, environment: Mapping[str, object], accelerator: Accelerator) -> str:
        """Path of the socket of the zygote of both, which takes leases. Raises StartFailed.

        DeepSpeed chooses its accelerator when it is imported, so what is forked cannot choose any more.
        """
        key = EnvironmentKey.of(environment)
        name = f"{key.digest}-{accelerator}"
        async with self._building.setdefault(name, asyncio.Lock()):
            kept = self._zygotes.get(name)
            if kept is None or not await asyncio.to_thread(kept.zygote.serves):
                kept = await asyncio.to_thread(self._start, key, accelerator, kept)
                self._zygotes[name] = kept
                self._watch(kept.zygote)
            kept.used_s = time.monotonic()
            return str(kept.zygote.socket_path)

    def _start(self, key: EnvironmentKey, accelerator: Accelerator, before: _Kept | None) -> _Kept:
        if before is not None:
            before.zygote.close()  # it may be ending still
            self._end_orphans()  # the ranks that were lost with it are about to start again
        try:
            python = python_of(key, self._dirs.environments)
        except OSError as error:
            raise StartFailed(f"no environment in {self._dirs.environments}: {error}") from error
        # With our process id: the zygotes of a keeper that died before us end only when they notice.
        path = self._dirs.zygotes / f"{key.digest}-{accelerator}-{os.getpid()}"
        env = {name: value for name, value in os.environ.items() if not name.startswith(WITHHELD_PREFIXES)}
        printed = Printed()
        try:
            with self._starting:
                zygote = ZygoteProcess.start(python, path, accelerator=accelerator, env=env, output=printed.write_fd)
                self._pids.add(zygote.pid)
        except OSError as error:
            final = error.errno in _NO_PROGRAM
            raise StartFailed(f"no zygote: {python} cannot be started on this node: {error.strerror}", final) from error
        finally:
            printed.follow()  # also where nothing is printed: it closes the pipe
        try:
            zygote.wait_ready(ZYGOTE_READY_S)
        except ZygoteLost as error:
            zygote.close()
            self._pids.discard(zygote.pid)
            raise StartFailed(f"no zygote of {python}: {error}\n{printed.tail()}") from error
        log.info("zygote of %s for %s is ready as pid %d", python, accelerator, zygote.pid)
        return _Kept(key, zygote, time.monotonic())

    def _watch(self, zygote: ZygoteProcess) -> None:
        """What its ranks leave is ended when it dies, also when no rank ever asks for another."""
        loop = asyncio.get_running_loop()
        pidfd = os.pidfd_open(zygote.pid)

        def died() -> None:
            loop.remove_reader(pidfd)
            os.close(pidfd)
            zygote.returncode()  # takes it off the kernel's hands, so its number may come again
            self._pids.discard(zygote.pid)
            loop.run_in_executor(None, self._end_orphans)

        loop.add_reader(pidfd, died)

    def _end_orphans(self) -> None:
        with self._starting:
            left = end_orphans(self._pids, ORPHANS_END_S)
        if left:
            log.error("processes %s of ranks whose zygote died do not end: they hang in the kernel", left)

    async def retire_idle(self) -> None:
        """End the zygotes of environments that have had no rank and no asker lately; the default one stays."""
        for name, kept in list(self._zygotes.items()):
            async with self._building[name]:  # nobody may be given the path of one that is being ended
                if kept.zygote.has_ranks():
                    kept.used_s = time.monotonic()  # it was asked for when they started, perhaps hours ago
                elif not kept.key.is_default and time.monotonic() - kept.used_s > IDLE_ZYGOTE_S:
                    del self._zygotes[name]
                    await asyncio.to_thread(kept.zygote.close)

    def seize_cpus(self, owner: str, count: int) -> tuple[int, ...] | None:
        """CPUs for `owner` alone; the same ones when it asks again. None when so many are not free."""
        if owner in self._cpus:
            return self._cpus[owner].cpus
        taken = {cpu for seized in self._cpus.values() for cpu in seized.cpus}
        free = [cpu for cpu in sorted(os.sched_getaffinity(0)) if cpu not in taken]
        if len(free) < count:
            return None
        self._cpus[owner] = _Seized(tuple(free[:count]), time.monotonic())
        return self._cpus[owner].cpus

    def release_cpus(self, owner: str) -> None:
        self._cpus.pop(owner, None)

    def leftover(self, run_id: str, attempt: int) -> Leftover:
        """What dead hosts of that attempt could not send any more."""
        directory = self._dirs.attempt(run_id, attempt)
        return Leftover(tuple(outbox.leftover(directory)), tuple(log_spool.leftover(directory / "log")))

    async def strays(self, attempts: Collection[tuple[str, int]]) -> list[tuple[str, int]]:
        """Attempts besides `attempts` that have a log here: their hosts are gone, and lines of theirs may be unsent."""
        return await asyncio.to_thread(_strays, self._dirs, attempts)

    async def sweep(self, attempts: Collection[tuple[str, int]], owners: Collection[str]) -> None:
        """Take away what belongs to none of the living `attempts`, and the CPUs of hosts that are not `owners`."""
        kept = {where(*each).name for each in attempts for where in (self._dirs.attempt, self._dirs.ahead)}
        youngest_s = time.monotonic() - SWEEP_OLDER_THAN_S
        for owner, seized in list(self._cpus.items()):
            if owner not in owners and seized.since_s < youngest_s:
                del self._cpus[owner]
        await asyncio.to_thread(_sweep, self._dirs.gangs, kept)
        for path in await asyncio.to_thread(remove_dead_nodes, Path(self._dirs.root)):
            log.info("removed %s: its Ray node is dead", path)

    def close(self) -> None:
        for kept in self._zygotes.values():
            kept.zygote.close()


def _strays(dirs: NodeDirs, attempts: Collection[tuple[str, int]]) -> list[tuple[str, int]]:
    kept = {dirs.attempt(run_id, attempt).name for run_id, attempt in attempts}
    owners = [log_spool.owner(path / "log") for path in dirs.gangs.iterdir() if path.name not in kept]
    return [each for each in owners if each is not None]


def _sweep(directory: Path, kept: Collection[str]) -> None:
    youngest = time.time() - SWEEP_OLDER_THAN_S
    for path in directory.iterdir():
        with contextlib.suppress(FileNotFoundError):  # its host has taken it away meanwhile
            if path.name not in kept and path.stat().st_mtime < youngest:
                remove_tree(path)
