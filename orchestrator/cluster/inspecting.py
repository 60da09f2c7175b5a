"""Looking at ranks for somebody who asked: their stacks are read from outside, a profile is their own work.

A rank is neither signalled nor ended for it. Each question is answered once for each rank, whatever becomes of the rank.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from orchestrator.cluster.rank_account import RankAccount
from orchestrator.cluster.rank_output import Redactor
from orchestrator.cluster.stack_dump import CannotLook, read_stack
from orchestrator.core.observations import Inspected
from orchestrator.core.runs import Inspection
from orchestrator.core.words import counted
from trainers import contract

TEXT_BYTES = 64 * 1024  # of one answer; the log has all of it
AT_ONCE = 2  # readers of stacks on one host: each takes a CPU for a second
WRITING_S = 30.0  # for a trace to be written once its time is over

TakeLines = Callable[[int, int], Callable[[Sequence[str]], None]]
"""By incarnation and rank."""


class Inspector:
    """For one attempt on one host. `tell` hears each answer; `take_lines` keeps what was seen in the rank's log."""

    def __init__(self, host: str, redact: Redactor, take_lines: TakeLines, tell: Callable[[Inspected], object]) -> None:
        self._host, self._redact, self._take_lines, self._tell = host, redact, take_lines, tell
        self._begun: set[tuple[str, int]] = set()
        self._profiles: dict[tuple[str, int], asyncio.TimerHandle] = {}  # that ranks were asked for
        self._tasks: set[asyncio.Task[None]] = set()
        self._free = asyncio.Semaphore(AT_ONCE)

    def begin(
        self, inspection: Inspection, account: RankAccount, incarnation: int, ask: Callable[[contract.Profile], bool]
    ) -> None:
        """Look at one rank, unless that was begun before. `ask` says something to the rank; False where nobody hears it."""
        rank = account.rank
        if not self._is_new(inspection, rank):
            return
        if account.pid is None:
            self._answer(inspection.id, rank, False, "does not live now: it has ended, or is about to be started again")
        elif inspection.kind == "stacks":
            task = asyncio.create_task(self._read(inspection, rank, account.pid, incarnation))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            self._ask(inspection, account, ask)

    def refuse(self, inspection: Inspection, rank: int, why: str) -> None:
        if self._is_new(inspection, rank):
            self._answer(inspection.id, rank, False, why)

    def profiled(self, rank: int, message: contract.Profiled) -> None:
        """The rank's own answer."""
        waiting = self._profiles.pop((message.id, rank), None)
        if waiting is None:
            return
        waiting.cancel()
        self._answer(message.id, rank, message.trace is not None, message.message, message.table, message.trace)

    def ended(self, rank: int) -> None:
        """The rank's process is gone."""
        for identity, of_rank in [key for key in self._profiles if key[1] == rank]:
            self._profiles.pop((identity, of_rank)).cancel()
            self._answer(identity, rank, False, "ended before its profile was written")

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        for waiting in self._profiles.values():
            waiting.cancel()

    def _is_new(self, inspection: Inspection, rank: int) -> bool:
        key = (inspection.id, rank)
        if key in self._begun:
            return False
        self._begun.add(key)
        return True

    async def _read(self, inspection: Inspection, rank: int, pid: int, incarnation: int) -> None:
        async with self._free:
            try:
                text, how = await _stacks(pid)
            except CannotLook as error:
                return self._answer(inspection.id, rank, False, f"its stacks cannot be read: {error}")
        lines = self._redact(text).splitlines()
        header = f"[evertrain] the stacks of rank {rank}, for {inspection.by}:"
        self._take_lines(incarnation, rank)([header, *lines])
        return self._answer(inspection.id, rank, True, f"its stacks{how}", "\n".join(lines))

    def _ask(self, inspection: Inspection, account: RankAccount, ask: Callable[[contract.Profile], bool]) -> None:
        until_ns = time.monotonic_ns() + int(inspection.within_s * 1e9)
        if not ask(contract.Profile(inspection.id, inspection.steps, until_ns)):
            self._answer(inspection.id, account.rank, False, "has not spoken to its host yet: it is starting")
            return
        loop = asyncio.get_running_loop()
        late = loop.call_later(inspection.within_s + WRITING_S, self._late, inspection, account)
        self._profiles[inspection.id, account.rank] = late

    def _late(self, inspection: Inspection, account: RankAccount) -> None:
        del self._profiles[inspection.id, account.rank]
        view = account.view(time.monotonic_ns())
        done = f"after step {view.step.step}" if view.step else "before any step"
        missing = f"has not done {counted(inspection.steps, 'step')} within {inspection.within_s:g} s"
        self._answer(inspection.id, account.rank, False, f"{missing}: {done} it is in phase {view.phase!r}")

    def _answer(self, identity: str, rank: int, ok: bool, words: str, text: str = "", trace: str | None = None) -> None:
        raw = text.encode()
        if len(raw) > TEXT_BYTES:
            text = raw[:TEXT_BYTES].decode(errors="ignore") + "\n[evertrain: cut here; the rank's log has all of it]"
        self._tell(Inspected(identity, rank, ok, f"rank {rank} on {self._host}: {words}", text, trace))


async def _stacks(pid: int) -> tuple[str, str]:
    """The process's stacks, and how they were read. Raises CannotLook."""
    try:
        return await read_stack(pid, "--native"), ", with native frames"
    except CannotLook as error:
        less = f", Python's frames only ({error})"
    try:
        return await read_stack(pid), less
    except CannotLook:
        return await read_stack(pid, "--nonblocking"), less
