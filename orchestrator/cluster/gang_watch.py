"""One incarnation of a gang, from its rendezvous to the end of its last rank, and the one reason why it ended."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field

from orchestrator.cluster.fencing import FENCE_S
from orchestrator.cluster.gang_host import GangHost
from orchestrator.cluster.gang_messages import (
    Ended,
    HostEvent,
    HostGone,
    HostSnapshot,
    RankView,
    Said,
    StartFailed,
    StartRanks,
)
from orchestrator.cluster.network import LOOPBACK
from orchestrator.core import failure as failures
from orchestrator.core.failure import RankExit
from orchestrator.core.observations import Inspected
from orchestrator.core.runs import Failure, FailureKind, StopOrder
from trainers import contract

TICK_S = 1.0  # each tick is a progress told by host, agent and server, on the cores that train where all is one machine
COLLECT_S = 0.3  # how long a communication error waits for the exit that explains it
EXIT_SKEW_S = 30.0  # how long ranks may be silent after another one has finished
EVENTS_POLL_S = 30.0


@dataclass(frozen=True)
class Limits:
    start_s: float
    hang_s: float
    stop_grace_s: float
    hang_before_steps: bool  # False: silence means nothing until the first step (a script of somebody else's)
    must_tell_result: bool  # True: exits with 0 are a success only with rank 0's `Done`


@dataclass(frozen=True)
class Finished:
    """Every rank exited with 0."""

    result: contract.Done | None


@dataclass(frozen=True)
class Broken:
    failure: Failure
    noticed_ns: int


@dataclass(frozen=True)
class Stopped:
    stop: StopOrder


@dataclass(frozen=True)
class Lost:
    failure: Failure
    noticed_ns: int
    fence_s: float


IncarnationEnd = Finished | Broken | Stopped | Lost


@dataclass(frozen=True)
class _Tick:
    snapshots: tuple[HostSnapshot, ...]


@dataclass(frozen=True)
class _CollectOver:
    pass


@dataclass(frozen=True)
class _GraceOver:
    pass


_Event = HostEvent | HostGone | StopOrder | _Tick | _CollectOver | _GraceOver


@dataclass
class GangState:
    """What outlives an incarnation: where each host's events were read to, and the newest accounts."""

    cursors: dict[int, int] = field(default_factory=dict)  # by the host's place in the gang
    snapshots: tuple[HostSnapshot, ...] = ()


class GangIncarnation:
    """`started` hears the process ids by rank, `said` every message of a rank, `ticked` every snapshot, all in order.

    `inspected` hears what was seen of ranks, of those of earlier incarnations, too.
    """

    def __init__(
        self,
        number: int,
        hosts: Sequence[GangHost],
        state: GangState,
        limits: Limits,
        *,
        world_size: int,
        started: Callable[[tuple[int, ...]], None],
        said: Callable[[int, contract.Message], None],
        ticked: Callable[[tuple[HostSnapshot, ...]], None],
        inspected: Callable[[Inspected], None],
    ) -> None:
        self.number = number
        self._hosts, self._state, self._limits = hosts, state, limits
        self._started, self._said, self._ticked, self._inspected = started, said, ticked, inspected
        self._queue: asyncio.Queue[_Event] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []
        self._alive = set(range(world_size))
        self._exits: list[RankExit] = []
        self._stop: StopOrder | None = None
        self._stop_asked = asyncio.Event()
        self._noticed_ns = 0
        self._first_end_s: float | None = None
        self._result: contract.Done | None = None

    def stop(self, order: StopOrder) -> None:
        """End in order: SIGTERM, a time of grace, SIGKILL. A second order changes nothing."""
        if self._stop is None:
            self._stop = order
            self._stop_asked.set()
            self._queue.put_nowait(order)

    async def live(
        self, admitted: tuple[contract.Admitted, ...], furthest_step: int, sealed_step: int | None = None
    ) -> IncarnationEnd:
        """Everything between the start and the end. When this returns, no rank that can be reached lives."""
        try:
            end = await self._start(admitted, furthest_step, sealed_step)
            if end is None:
                end = await self._watch()
        finally:
            for task in self._tasks:
                task.cancel()
            lost = await self._close()
            await self._last_words()
            await self._last_snapshot()
        # Where a host could not confirm that its ranks are dead, nothing else may start before the fence has passed.
        if lost is not None and not isinstance(end, Lost):
            return self._lost(lost)
        return end

    # ---- start ----------------------------------------------------------------------------------------------------

    async def _start(
        self, admitted: tuple[contract.Admitted, ...], furthest_step: int, sealed_step: int | None
    ) -> IncarnationEnd | None:
        starting = asyncio.create_task(self._fork_all(admitted, furthest_step, sealed_step))
        stopping = asyncio.create_task(self._stop_asked.wait())
        try:
            await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                return starting.result()
            assert self._stop is not None
            return Stopped(self._stop)
        finally:
            for task in (starting, stopping):
                task.cancel()
            await asyncio.gather(starting, stopping, return_exceptions=True)

    async def _fork_all(
        self, admitted: tuple[contract.Admitted, ...], furthest_step: int, sealed_step: int | None
    ) -> IncarnationEnd | None:
        address = LOOPBACK if len(self._hosts) == 1 else self._hosts[0].ip
        try:
            port = await self._hosts[0].open_store(self.number, address)
            start = StartRanks(self.number, address, port, admitted, furthest_step, sealed_step)
            results = await asyncio.gather(*(host.start(start) for host in self._hosts), return_exceptions=True)
            pids: list[int] = []
            for result in results:
                if isinstance(result, BaseException):
                    raise result
                pids += result
            self._started(tuple(pids))
        except HostGone as gone:
            return self._lost(gone)
        except StartFailed as error:
            kind = FailureKind.CONFIG if error.final else FailureKind.NEVER_STARTED
            return Broken(Failure(kind, str(error)), time.monotonic_ns())
        return None

    # ---- watch ----------------------------------------------------------------------------------------------------

    async def _watch(self) -> IncarnationEnd:
        for place in range(len(self._hosts)):
            self._spawn(self._follow(place))
        self._spawn(self._tick())
        while True:
            event = await self._queue.get()
            end = await self._take(event)
            if end is not None:
                return end

    async def _take(self, event: _Event) -> IncarnationEnd | None:
        match event:
            case Said(incarnation=number, rank=rank, message=message) if number == self.number:
                if isinstance(message, contract.Done):
                    self._result = message
                self._said(rank, message)
            case Ended(incarnation=number, exit=end) if number == self.number:
                return self._rank_ended(end)
            case Inspected():
                self._inspected(event)
            case HostGone():
                return self._lost(event)
            case StopOrder():
                await self._signal_all(signal.SIGTERM)
                self._later(self._limits.stop_grace_s, _GraceOver())
            case _Tick(snapshots=snapshots):
                self._state.snapshots = snapshots
                self._ticked(snapshots)
                return await self._check_deadlines(snapshots)
            case _CollectOver():
                return self._broken()
            case _GraceOver():
                assert self._stop is not None
                return Stopped(self._stop)
            case _:
                pass
        return None

    def _rank_ended(self, end: RankExit) -> IncarnationEnd | None:
        self._alive.discard(end.rank)
        self._exits.append(end)
        if self._first_end_s is None:
            self._first_end_s = time.monotonic()
        if not self._alive and all(each.code == 0 for each in self._exits):
            return self._all_finished()
        if self._stop is not None:
            return Stopped(self._stop) if not self._alive else None
        if end.code == 0:
            return None
        if not self._noticed_ns:
            self._noticed_ns = time.monotonic_ns()
            self._later(COLLECT_S, _CollectOver())
        # A signal from outside explains itself, and so does a gang that is wholly gone: no need to wait for more.
        if end.signal is not None or end.oom_evidence or not self._alive:
            return self._broken()
        return None

    def _all_finished(self) -> IncarnationEnd:
        if self._result is not None or not self._limits.must_tell_result:
            return Finished(self._result)
        if self._stop is not None:
            return Stopped(self._stop)
        message = "Every rank exited with 0, but rank 0 told no result: the training ended before it was done."
        return Broken(Failure(FailureKind.EXITED_EARLY, message, rank=0), time.monotonic_ns())

    def _broken(self) -> Broken:
        return Broken(failures.first_cause(_explaining(self._exits)), self._noticed_ns)

    def _lost(self, gone: HostGone) -> Lost:
        step = max(
            (view.step.step for snapshot in self._state.snapshots for view in snapshot.ranks if view.step), default=0
        )
        return Lost(failures.host_lost(gone.host, gone.why, step), time.monotonic_ns(), gone.fence_s)

    async def _check_deadlines(self, snapshots: tuple[HostSnapshot, ...]) -> IncarnationEnd | None:
        if self._stop is not None:
            return None
        living = [
            (view, host)
            for host, snapshot in zip(self._hosts, snapshots, strict=True)
            for view in snapshot.ranks
            if view.alive and snapshot.incarnation == self.number
        ]
        for view, host in living:
            if not view.greeted and view.silent_s > self._limits.start_s:
                await self._dump(host, view)
                failure = failures.never_started(view.rank, host.host, self._limits.start_s)
                return Broken(failure, time.monotonic_ns())
        counted = [view for view, _ in living if view.greeted and self._counts(view)]
        # As long as one speaks, the others may be waiting for it: it reads, writes or uploads what they need.
        if counted and all(view.silent_s > self._limits.hang_s for view in counted):
            return await self._hung(max(counted, key=lambda view: view.silent_s).rank, living)
        return self._early_exit([view for view, _ in living])

    async def _hung(self, rank: int, living: Sequence[tuple[RankView, GangHost]]) -> IncarnationEnd:
        """`rank` has been silent longest. In a collective any of them may be the one that the others wait for."""
        stacks = await asyncio.gather(*(self._dump(host, view) for view, host in living))
        place, (view, host) = next((at, each) for at, each in enumerate(living) if each[0].rank == rank)
        step = view.step.step if view.step else 0
        return Broken(failures.hung(rank, host.host, self._limits.hang_s, step, stacks[place]), time.monotonic_ns())

    def _counts(self, view: RankView) -> bool:
        return view.stepping or self._limits.hang_before_steps

    def _early_exit(self, living: Sequence[RankView]) -> IncarnationEnd | None:
        """A rank has finished, and the others neither finish nor say anything: they wait for it."""
        if self._first_end_s is None or not living or any(each.code != 0 for each in self._exits):
            return None
        waited_s = time.monotonic() - self._first_end_s
        if waited_s > EXIT_SKEW_S and all(view.silent_s > EXIT_SKEW_S for view in living):
            return Broken(failures.first_cause(self._exits), time.monotonic_ns())
        return None

    async def _dump(self, host: GangHost, view: RankView) -> str:
        try:
            return await host.dump(view.rank)
        except (HostGone, StartFailed):
            return ""

    # ---- tasks ----------------------------------------------------------------------------------------------------

    async def _follow(self, place: int) -> None:
        try:
            while True:
                await self._read(place, EVENTS_POLL_S)
        except HostGone as gone:
            self._queue.put_nowait(gone)

    async def _read(self, place: int, timeout_s: float) -> bool:
        """Whether there was anything."""
        events = await self._hosts[place].events(self._state.cursors.get(place, 0), timeout_s)
        for number, event in events:
            self._state.cursors[place] = number
            self._queue.put_nowait(event)
        return bool(events)

    async def _tick(self) -> None:
        while True:
            try:
                snapshots = await asyncio.gather(*(host.snapshot() for host in self._hosts))
            except HostGone as gone:
                self._queue.put_nowait(gone)
                return
            self._queue.put_nowait(_Tick(tuple(snapshots)))
            await asyncio.sleep(TICK_S)

    def _later(self, delay_s: float, event: _Event) -> None:
        async def wait() -> None:
            await asyncio.sleep(delay_s)
            self._queue.put_nowait(event)

        self._spawn(wait())

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        self._tasks.append(asyncio.create_task(work))

    async def _signal_all(self, number: int) -> None:
        with contextlib.suppress(HostGone):
            await asyncio.gather(*(host.signal_ranks(self.number, number, stopping=True) for host in self._hosts))

    async def _last_words(self) -> None:
        """What ranks said until they were ended: what they sealed meanwhile is what the next ones go on from."""
        for place in range(len(self._hosts)):
            with contextlib.suppress(HostGone, StartFailed):
                while await self._read(place, 0.0):
                    pass
        while not self._queue.empty():
            event = self._queue.get_nowait()
            if isinstance(event, Said | Inspected):
                await self._take(event)

    async def _last_snapshot(self) -> None:
        """The accounts as they are once every rank has ended."""
        with contextlib.suppress(HostGone, StartFailed):
            self._state.snapshots = tuple(await asyncio.gather(*(host.snapshot() for host in self._hosts)))

    async def _close(self) -> HostGone | None:
        """End what still lives on every host that answers; the one that did not confirm it, if any.

        A host that fails at it in whatever way has confirmed nothing.
        """
        results = await asyncio.gather(
            *(host.close_incarnation(self.number) for host in self._hosts), return_exceptions=True
        )
        lost = [
            error if isinstance(error, HostGone) else HostGone(host.host, f"cannot end its ranks: {error!r}", FENCE_S)
            for host, error in zip(self._hosts, results, strict=True)
            if isinstance(error, Exception)
        ]
        return max(lost, key=lambda gone: gone.fence_s, default=None)


def _explaining(exits: Sequence[RankExit]) -> Sequence[RankExit]:
    """Exits that may be the cause: a rank that finished explains nothing where another one says what went wrong."""
    failed = [each for each in exits if each.code != 0 and not each.ended_by_us]
    if any(each.code != contract.ExitCode.LOST_PEER and not (each.report and each.report.secondary) for each in failed):
        return failed
    return exits
