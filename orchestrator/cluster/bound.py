"""What a host keeps of the attempt that it belongs to, or of one whose ranks wait on it for a slot."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from orchestrator.cluster import network
from orchestrator.cluster.feed import Feed
from orchestrator.cluster.gang_messages import Bind, HostEvent, StartRanks
from orchestrator.cluster.incarnation import RunningIncarnation
from orchestrator.cluster.inspecting import Inspector
from orchestrator.cluster.log_spool import LogSpool
from orchestrator.cluster.rank_account import RankAccount
from orchestrator.cluster.rank_output import Redactor
from orchestrator.core.orders import AttemptOrder

EARLY_LINES = 1000  # of ranks that wait for a slot

SpoolLine = tuple[int, int, float, str]  # incarnation, rank, time, text


class Bound:
    """Lives until the host is released."""

    def __init__(self, bind: Bind, directory: Path, code_dir: Path | None, host: str, source: str) -> None:
        self.bind, self.directory, self.code_dir = bind, directory, code_dir
        order = bind.order
        self.redact = Redactor(tuple(order.secrets.values()))
        self.start: StartRanks | None = None  # which ranks that wait were forked for
        self.starting = asyncio.Lock()
        self._gate_fd = -1
        self._source = source
        self._spool: LogSpool | None = None
        self._early: deque[SpoolLine] = deque(maxlen=EARLY_LINES)
        self.events: Feed[HostEvent] = Feed()
        self.inspector = Inspector(host, self.redact, self.take_lines, self.events.put)
        began_ns = time.monotonic_ns() - int(bind.started_before_s * 1e9)
        self.accounts = {rank: RankAccount(rank, began_ns) for rank in bind.ranks}
        self.running: RunningIncarnation | None = None
        self.stopping = False
        self.closed_through = 0  # incarnations that must not be started any more
        self._store: network.StoreLease | None = None
        self._grew = asyncio.Event()

    def take_lines(self, incarnation: int, rank: int) -> Callable[[Sequence[str]], None]:
        def take(lines: Sequence[str]) -> None:
            at = time.time()
            self._append([(incarnation, rank, at, line) for line in lines])

        return take

    def _append(self, lines: Sequence[SpoolLine]) -> None:
        if self._spool is None:
            self._early.extend(lines)
        else:
            self._spool.append(lines)
            self._grew.set()

    @property
    def spool(self) -> LogSpool:
        assert self._spool is not None, "only an attempt that was placed has lines"
        return self._spool

    def keep_lines(self, directory: Path) -> None:
        """From now on the lines are the attempt's, and those from before."""
        order = self.bind.order
        self._spool = LogSpool(directory / "log", run_id=order.run_id, attempt=order.attempt, source=self._source)
        self._append(list(self._early))
        self._early.clear()

    # ---- ranks that wait ------------------------------------------------------------------------------------------

    def serves(self, bind: Bind) -> bool:
        """Whether what waits here is what `bind` wants, and lives."""
        return _lasting(bind) == _lasting(self.bind) and self.lives()

    def lives(self) -> bool:
        return self.running is not None and self.running.all_live()

    def enter(self, bind: Bind, directory: Path) -> None:
        """The attempt has been placed: its time, its lines and its deadlines begin."""
        self.bind = bind
        now_ns = time.monotonic_ns()
        for account in self.accounts.values():
            account.enter(now_ns - int(bind.started_before_s * 1e9), now_ns)
        self.keep_lines(directory)

    def make_gate(self) -> Path:
        """Ranks that are told of it wait there. It is kept open here, so that nobody waits for a writer."""
        gate = self.directory / "gate"
        gate.unlink(missing_ok=True)  # of a host that died here before it could take it away
        os.mkfifo(gate, 0o600)
        self._gate_fd = os.open(gate, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        return gate

    def open_gate(self) -> tuple[int, ...]:
        """The ranks go on; their process ids."""
        self.start = None
        os.write(self._gate_fd, bytes(len(self.accounts)))
        return self.pids

    @property
    def pids(self) -> tuple[int, ...]:
        """Of the ranks; 0 for one that has died meanwhile, which has told its end as any rank does."""
        return tuple(each.pid or 0 for each in self.accounts.values())

    async def log_grew(self, timeout_s: float) -> None:
        self._grew.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._grew.wait(), timeout_s)

    def replace_store(self, lease: network.StoreLease) -> None:
        if self._store is not None:
            self._store.close()
        self._store = lease

    def close(self) -> None:
        self.inspector.close()
        if self._store is not None:
            self._store.close()
            self._store = None
        self.events.wake()
        self._grew.set()
        if self._spool is not None:
            self._spool.close()
        if self._gate_fd >= 0:
            os.close(self._gate_fd)
            self._gate_fd = -1


def _lasting(bind: Bind) -> tuple[AttemptOrder, int]:
    """What of an order is the same before and after it is placed."""
    order = replace(bind.order, ahead=False, remaining_s=None, deadline_message="", stop=None, inspections=())
    return order, bind.index
