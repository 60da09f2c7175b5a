"""The processes of one incarnation on one host: their lease, their progress socket, their output.

Closing it ends them all, whatever state it is in.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
import signal
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from orchestrator.cluster.rank_output import RankOutput, Redactor, TakeLines
from orchestrator.cluster.zygote_client import Exited, Forked, Lease, RankRequest, ZygoteLost
from trainers import contract

log = logging.getLogger(__name__)

_LAST_WORDS_S = 0.5  # how long the messages of a dead rank may take out of its socket
_RESULT_S = 5.0  # ... of one that finished: its last word is the run's result
_KILL_WAIT_S = 10.0

Heard = Callable[[int, contract.Message], None]
Ended = Callable[[Exited], None]


class RanksSurvive(Exception):
    """Ranks did not end by SIGKILL in time: stuck in the kernel, mostly. Nothing may be started beside them."""


class RunningIncarnation:
    def __init__(self, number: int, directory: Path, zygote: str) -> None:
        self.number = number
        self.socket_path = directory / f"p{number}"
        self._launch_path = directory / f"launch-{number}.json"
        self._lease = Lease(zygote)
        self._outputs: dict[int, RankOutput] = {}
        self._readers: dict[int, asyncio.Task[None]] = {}
        self._writers: dict[int, asyncio.StreamWriter] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._living: dict[int, Forked] = {}  # by rank; their pidfds are open
        self._all_ended = asyncio.Event()
        self._watching = False
        self._closed = False
        self._server: asyncio.Server | None = None
        self._ended: Ended = lambda exited: None
        self._ranks: Collection[int] = ()
        self._heard: Heard = lambda rank, message: None

    async def listen(self, ranks: Collection[int], heard: Heard) -> None:
        """Serve the progress socket. Messages of `ranks` go to `heard`; other connections are closed."""
        self._ranks, self._heard = ranks, heard
        self.socket_path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, str(self.socket_path), limit=contract.MESSAGE_BYTES)
        self.socket_path.chmod(0o600)

    def write_launch(self, text: str) -> Path:
        with open(os.open(self._launch_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)
        return self._launch_path

    def open_output(self, rank: int, redact: Redactor, take: TakeLines) -> RankOutput:
        self._outputs[rank] = RankOutput(redact, take)
        return self._outputs[rank]

    async def fork(self, requests: Sequence[RankRequest], ended: Ended) -> list[Forked]:
        """Raises what `Lease.fork` raises. Ends are told only after `watch`."""
        self._ended = ended
        forking = asyncio.ensure_future(asyncio.to_thread(self._lease.fork, requests))
        try:
            return await asyncio.shield(forking)
        finally:
            # A thread cannot be called back: whoever cancels us must know what it forks, to wait for its end.
            await asyncio.wait({forking})
            if forking.exception() is None:
                self._living = {each.rank: each for each in forking.result()}
                for output in self._outputs.values():
                    output.forked()

    def watch(self) -> None:
        """From now on ends are noticed, by the zygote's word and not by a poll."""
        self._watching = True
        asyncio.get_running_loop().add_reader(self._lease.fileno(), self._on_lease)
        self._on_lease()  # a rank may have ended while others were forked

    def all_live(self) -> bool:
        """Whether no rank has ended, be it told of or not."""
        ends = select.poll()
        for forked in self._living.values():
            ends.register(forked.pidfd, select.POLLIN)
        return len(self._living) == len(self._ranks) and not ends.poll(0)

    def keep_task(self, task: asyncio.Task[None]) -> None:
        """Ends with the incarnation."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def ask(self, rank: int, request: contract.Profile) -> bool:
        """Say it on the rank's own connection; False where there is none."""
        writer = self._writers.get(rank)
        if writer is None or writer.is_closing():
            return False
        writer.write(contract.encode(request))
        return True

    def signal(self, number: int, rank: int | None = None) -> None:
        """Raises ZygoteLost."""
        self._lease.signal(number, rank)

    async def close(self) -> None:
        """End every rank and wait until each has: after this the next incarnation has the host to itself.

        May be called again. Raises RanksSurvive, with everything else cleared away.
        """
        if self._living and not self._closed:
            if not self._watching:
                self.watch()
            with contextlib.suppress(ZygoteLost):
                self._lease.signal(signal.SIGKILL)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._all_ended.wait(), _KILL_WAIT_S)
        self._unwatch()
        self._lease.close()
        for task in (*self._tasks, *self._readers.values()):
            task.cancel()
        for output in self._outputs.values():
            output.close()
        if self._server is not None:
            self._server.close()
        self.socket_path.unlink(missing_ok=True)
        self._launch_path.unlink(missing_ok=True)
        if not self._closed:
            for forked in self._living.values():
                self._close_pidfd(forked)
        self._closed = True
        if self._living:
            who = ", ".join(str(rank) for rank in sorted(self._living))
            raise RanksSurvive(f"rank {who} did not end within {_KILL_WAIT_S:g} s of SIGKILL")

    # ---- ends -----------------------------------------------------------------------------------------------------

    def _on_lease(self) -> None:
        try:
            exits = self._lease.events(timeout_s=0)
        except ZygoteLost as error:
            log.warning("the zygote is lost: %s", error)
            self._unwatch()
            self._lose_all()
            return
        for exited in exits:
            self.keep_task(asyncio.create_task(self._tell_end(exited)))

    async def _tell_end(self, exited: Exited) -> None:
        """A rank's end comes after its last words: they may explain it."""
        reader = self._readers.get(exited.rank)
        if reader is not None:
            await asyncio.wait({reader}, timeout=_LAST_WORDS_S if exited.status else _RESULT_S)
        elif exited.signal is None:
            await self._first_words(exited.rank)
        if exited.rank in self._outputs:
            self._outputs[exited.rank].close()
        self._finish(exited)

    async def _first_words(self, rank: int) -> None:
        """The rank connected and ended before its connection was accepted here: its words are in the socket."""
        deadline = time.monotonic() + _LAST_WORDS_S / 5
        while rank not in self._readers and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        if rank in self._readers:
            await asyncio.wait({self._readers[rank]}, timeout=_LAST_WORDS_S)

    def _lose_all(self) -> None:
        """The zygote is gone and nobody is left to tell how its ranks end: we watch for it ourselves.

        They should, by their death signal. But a rank that changed its user has lost that signal, and it reaches none
        of what a rank started.
        """
        for forked in self._living.values():
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(forked.pidfd, signal.SIGKILL)
            with contextlib.suppress(OSError):
                os.killpg(forked.pid, signal.SIGKILL)  # it led this group a moment ago: nobody else can yet
            asyncio.get_running_loop().add_reader(forked.pidfd, self._ended_with_zygote, forked)

    def _ended_with_zygote(self, forked: Forked) -> None:
        self._finish(Exited(forked.rank, forked.pid, None, int(signal.SIGKILL), 0, 0, with_zygote=True))

    def _finish(self, exited: Exited) -> None:
        forked = self._living.pop(exited.rank, None)
        if forked is None:
            return
        self._close_pidfd(forked)
        self._ended(exited)
        if not self._living:
            self._all_ended.set()

    def _close_pidfd(self, forked: Forked) -> None:
        asyncio.get_running_loop().remove_reader(forked.pidfd)
        os.close(forked.pidfd)

    def _unwatch(self) -> None:
        if self._watching:
            self._watching = False
            asyncio.get_running_loop().remove_reader(self._lease.fileno())

    # ---- progress -------------------------------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        rank: int | None = None
        try:
            while line := await reader.readline():
                message = contract.decode(line)
                if isinstance(message, contract.Hello):
                    if message.rank not in self._ranks or self._closed:
                        return
                    rank = message.rank
                    task = asyncio.current_task()
                    assert task is not None
                    self._readers[rank] = task
                    self._writers[rank] = writer
                if rank is None:
                    return
                self._heard(rank, message)
        except (ValueError, OSError) as error:
            log.warning("closing a progress connection of rank %s: %s", rank, error)
        finally:
            if rank is not None and self._writers.get(rank) is writer:
                del self._writers[rank]
            writer.close()
