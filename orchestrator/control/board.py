"""What the server keeps in mind of the runs that have not ended.

The store is the truth; the board is its index in memory, so that a pass over 100,000 queued runs reads no database. The
server is the store's only writer, and whoever writes a run tells the board. It is filled from the store at the start.
"""

from __future__ import annotations

import bisect
import heapq
import itertools
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from orchestrator import spec
from orchestrator.core.inspections import GRACE_S
from orchestrator.core.runs import NodeShare, Queued, Reason, ReasonCode, Run
from orchestrator.core.scheduling.admission import BLOCK_AFTER_S, Admit, Entry
from orchestrator.core.scheduling.fit import GangShape
from orchestrator.ports import Clock

LOOK_AHEAD = 200  # entries of the queue that one pass judges, and nodes are asked for; the rest wait behind them
REMEMBERED_ENDS = 10_000  # of runs that have ended, so that a late announcement does not bring them back

Rank = tuple[int, float, str]


@dataclass(frozen=True)
class Holding:
    """A living attempt: what it takes, and where."""

    run_id: str
    name: str
    project: str
    attempt: int
    cluster: str
    shape: GangShape
    shares: tuple[NodeShare, ...]
    sweep: str = ""  # of a trial: its sweep's id
    priority: int = 50
    since_s: float = 0.0  # monotonic: when the attempt was placed


@dataclass(frozen=True)
class QueueView:
    """The queue at a glance. `overdue`: those that have waited so long that nothing may pass them any more.

    Trials that wait for another one of their sweep are in `reasons` alone: they wait for no place.
    """

    reasons: Mapping[ReasonCode, int]
    overdue: int
    longest_s: float

    @property
    def depth(self) -> int:
        """How many wait for a place."""
        return sum(number for code, number in self.reasons.items() if code is not ReasonCode.WAITING_SLOT)


class Board:
    """Safe from several threads. Announcements may come in any order: the highest version of a run counts."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: dict[str, Entry] = {}
        # All monotonic, so that a wall clock that is moved shortens no wait and ends no run.
        self._queued_ns: dict[str, int] = {}
        self._ready_ns: dict[str, int] = {}
        self._began_ns: dict[str, int] = {}  # when the first attempt was placed, moved on by the pauses since
        self._paused_ns: dict[str, int] = {}  # since when those are paused that were placed before and hold nothing
        self._attempt_ns: dict[str, tuple[int, int]] = {}  # the current attempt's number, and when it was placed
        self._order: dict[str, list[Rank]] = {}  # by project
        self._holdings: dict[str, Holding] = {}
        self._reasons: dict[str, Reason] = {}
        self._ahead: dict[str, Admit] = {}
        self._versions: dict[str, int] = {}
        self._trials: dict[str, tuple[str, str]] = {}  # unfinished ones: to sweep and project
        self._sweeps: dict[str, str] = {}  # unfinished ones: to project
        self._inspections: dict[str, tuple[str, dict[str, int]]] = {}  # to project, and when each is over by its id
        self._ended: OrderedDict[str, int] = OrderedDict()
        self._when_ended: list[Callable[[str], None]] = []

    def when_ended(self, tell: Callable[[str], None]) -> None:
        """`tell` is called with the id of every run that ends from now on, however it does, in the thread that wrote it."""
        self._when_ended.append(tell)

    def update(self, run: Run) -> None:
        """Take in a run as the store has it."""
        self._take_in(run)
        if run.terminal:
            for tell in self._when_ended:
                tell(run.id)

    def _take_in(self, run: Run) -> None:
        shape = None if run.terminal else spec.stored_shape(run.spec)
        with self._lock:
            if run.version < self._versions.get(run.id, self._ended.get(run.id, 0)):
                return
            self._forget(run.id)
            if not isinstance(run.state, Queued) or run.paused:
                self._queued_ns.pop(run.id, None)
                self._ready_ns.pop(run.id, None)
            self._note_attempts(run)
            self._note_inspections(run)
            if shape is None:
                self._remember_end(run)
                return
            self._versions[run.id] = run.version
            if run.kind == "sweep":
                self._sweeps[run.id] = run.project
            if sweep := _sweep(run):
                self._trials[run.id] = sweep, run.project
            if isinstance(run.state, Queued):
                if not run.paused:
                    self._queue(run, run.state, shape)
            elif run.attempt is not None:
                attempt = run.attempt
                self._holdings[run.id] = Holding(
                    run_id=run.id,
                    name=run.name,
                    project=run.project,
                    attempt=attempt.number,
                    cluster=attempt.cluster,
                    shape=shape,
                    shares=attempt.shares,
                    sweep=_sweep(run),
                    priority=run.priority,
                    since_s=self._attempt_ns[run.id][1] / 1e9,
                )

    def queue(self, limit: int) -> list[Entry]:
        """The first `limit` of each project: no project's queue hides another's."""
        with self._lock:
            now_ns = self._clock.monotonic_ns()
            heads = [order[:limit] for order in self._order.values()]
            return [self._waiting(rank[2], now_ns) for rank in heapq.merge(*heads)]

    def holdings(self, cluster: str | None = None) -> list[Holding]:
        with self._lock:
            return [each for each in self._holdings.values() if cluster in (None, each.cluster)]

    def trials_held(self) -> Counter[str]:
        """How many trials of each sweep hold workers."""
        with self._lock:
            return Counter(each.sweep for each in self._holdings.values() if each.sweep)

    def passed_s(self, run_id: str) -> tuple[float, float]:
        """Seconds since an unfinished run's first attempt was placed, and since its current one was; 0 where there is none.
        Pauses that are over do not count.

        Only what passed before this server started is taken from the wall clock.
        """
        with self._lock:
            now_ns = self._clock.monotonic_ns()
            began_ns, (_, attempt_ns) = self._began_ns.get(run_id, now_ns), self._attempt_ns.get(run_id, (0, now_ns))
            return (now_ns - began_ns) / 1e9, (now_ns - attempt_ns) / 1e9

    def overdue(self) -> list[tuple[str, str, list[str]]]:
        """Project, run and ids of the inspections whose time is over."""
        with self._lock:
            now_ns = self._clock.monotonic_ns()
            found = [
                (project, run_id, [each for each, over_ns in ends.items() if over_ns <= now_ns])
                for run_id, (project, ends) in self._inspections.items()
            ]
            return [each for each in found if each[2]]

    def holding(self, run_id: str) -> Holding | None:
        with self._lock:
            return self._holdings.get(run_id)

    def sweeps(self) -> dict[str, str]:
        """The project of every unfinished sweep, by its id."""
        with self._lock:
            return dict(self._sweeps)

    def trials(self) -> dict[str, list[tuple[str, str]]]:
        """Project and id of every unfinished trial, by the id of its sweep."""
        found: dict[str, list[tuple[str, str]]] = {}
        with self._lock:
            for run_id, (sweep, project) in self._trials.items():
                found.setdefault(sweep, []).append((project, run_id))
        return found

    def explain(self, reasons: dict[str, Reason]) -> None:
        """Keep why the runs of the last pass wait."""
        with self._lock:
            self._reasons = reasons

    def look_ahead(self, places: dict[str, Admit]) -> bool:
        """Keep where gangs of queued runs may get ready, by run, as of the last pass; whether that is news."""
        with self._lock:
            known = {run_id: place for run_id, place in places.items() if run_id in self._entries}
            news, self._ahead = known != self._ahead, known
            return news

    def ahead(self, cluster: str) -> list[tuple[str, Admit]]:
        """Project and place of the queued runs whose gangs may get ready there."""
        with self._lock:
            found = [each for each in self._ahead.values() if each.cluster == cluster]
            return [(self._entries[each.run_id].project, each) for each in found]

    def reason(self, run_id: str) -> Reason | None:
        """Why a queued run waits: by the last pass, else its place in the queue. None where it is not queued."""
        with self._lock:
            entry = self._entries.get(run_id)
            if entry is None or run_id in self._reasons:
                return self._reasons.get(run_id)
            place = 1 + sum(bisect.bisect_left(order, entry.rank) for order in self._order.values())
            return Reason(ReasonCode.WAITING_BEHIND, f"place {place} in the queue")

    def queued(self) -> int:
        with self._lock:
            return len(self._entries)

    def queue_view(self) -> QueueView:
        with self._lock:
            now_ns = self._clock.monotonic_ns()
            codes = {run_id: self._waits_for(entry) for run_id, entry in self._entries.items()}
            reasons = Counter(codes.values())
            ready = [run_id for run_id in self._entries if self._ready_ns[run_id] <= now_ns]
            waiting = [run_id for run_id in ready if codes[run_id] is not ReasonCode.WAITING_SLOT]
            waited_s = [(now_ns - self._queued_ns[run_id]) / 1e9 for run_id in waiting]
        overdue = sum(each >= BLOCK_AFTER_S for each in waited_s)
        return QueueView(reasons, overdue, max(waited_s, default=0.0))

    def _waits_for(self, entry: Entry) -> ReasonCode:
        """By the last pass. What that did not look at waits behind others, or for a slot if its record says so."""
        if (judged := self._reasons.get(entry.run_id)) is not None:
            return judged.code
        slot = entry.waits_for is ReasonCode.WAITING_SLOT
        return ReasonCode.WAITING_SLOT if slot else ReasonCode.WAITING_BEHIND

    def _queue(self, run: Run, state: Queued, shape: GangShape) -> None:
        if run.lineage is not None:
            shape = replace(shape, memory=max(shape.memory, run.lineage.memory))
        entry = Entry(
            run_id=run.id,
            name=run.name,
            project=run.project,
            shape=shape,
            priority=run.priority,
            submitted_at=run.submitted_at,
            queued_since_s=self._queued_ns.setdefault(run.id, self._clock.monotonic_ns()) / 1e9,
            tried_before=any(each.placed for each in run.attempts),
            waits_for=state.reason.code,
            sweep=_sweep(run),
            slots=run.lineage.slots if run.lineage is not None else 0,
            sized=run.lineage is not None and run.lineage.sized,
        )
        # The pause as it was decided, both ends by the same clock; after a restart of the server it begins anew, as does
        # the time in the queue: its agents have yet to come back, so nobody has waited for them in vain.
        pause_s = max(0.0, state.not_before_at - run.state_since_at)
        self._ready_ns[run.id] = self._ready_ns.get(run.id, self._clock.monotonic_ns() + int(pause_s * 1e9))
        self._entries[run.id] = entry
        bisect.insort(self._order.setdefault(run.project, []), entry.rank)

    def _note_attempts(self, run: Run) -> None:
        if run.terminal:
            self._began_ns.pop(run.id, None)
        elif run.attempts:
            self._began_ns.setdefault(run.id, self._monotonic(run.attempts[0].started_at) + run.paused_ns)
        self._note_pause(run)
        if run.attempt is None:
            self._attempt_ns.pop(run.id, None)
        elif self._attempt_ns.get(run.id, (0, 0))[0] != run.attempt.number:
            self._attempt_ns[run.id] = run.attempt.number, self._monotonic(run.attempt.started_at)

    def _note_pause(self, run: Run) -> None:
        if run.paused and run.attempts and isinstance(run.state, Queued):
            self._paused_ns.setdefault(run.id, self._monotonic(run.state_since_at))
        elif (since_ns := self._paused_ns.pop(run.id, None)) is not None and run.id in self._began_ns:
            self._began_ns[run.id] += self._clock.monotonic_ns() - since_ns

    def _note_inspections(self, run: Run) -> None:
        _, known = self._inspections.pop(run.id, ("", {}))
        if run.inspections:
            ends = {
                each.id: known.get(each.id) or self._monotonic(each.asked_at) + int((each.within_s + GRACE_S) * 1e9)
                for each in run.inspections
            }
            self._inspections[run.id] = run.project, ends

    def _monotonic(self, at: float) -> int:
        """A moment in the past that the wall clock told. Asked at first sight, when hardly any time can have been moved."""
        return self._clock.monotonic_ns() - max(0, int((self._clock.now() - at) * 1e9))

    def _waiting(self, run_id: str, now_ns: int) -> Entry:
        left_s = (self._ready_ns[run_id] - now_ns) / 1e9
        return replace(self._entries[run_id], backing_off_s=max(0.0, left_s), ahead=self._ahead.get(run_id))

    def _remember_end(self, run: Run) -> None:
        self._ended[run.id] = run.version
        for old in list(itertools.islice(self._ended, max(0, len(self._ended) - REMEMBERED_ENDS))):
            del self._ended[old]

    def _forget(self, run_id: str) -> None:
        self._holdings.pop(run_id, None)
        self._reasons.pop(run_id, None)
        self._ahead.pop(run_id, None)
        self._versions.pop(run_id, None)
        self._trials.pop(run_id, None)
        self._sweeps.pop(run_id, None)
        entry = self._entries.pop(run_id, None)
        if entry is not None:
            order = self._order[entry.project]
            del order[bisect.bisect_left(order, entry.rank)]
            if not order:
                del self._order[entry.project]


def _sweep(run: Run) -> str:
    return run.lineage.sweep if run.lineage is not None else ""
