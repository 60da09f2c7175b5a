"""What the server keeps in mind of the runs that have not ended.

The store is the truth; the board is its index in memory, so that a pass over 100,000 queued runs reads no database. The
server is the store's only writer, and whoever writes a run tells the board. It is filled from the store at the start.
"""

from __future__ import annotations

import bisect
import threading
from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator import spec
from orchestrator.core.runs import NodeShare, Queued, Reason, ReasonCode, Run
from orchestrator.core.scheduling.admission import Entry
from orchestrator.core.scheduling.fit import GangShape


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


class Board:
    """Safe from several threads."""

    def __init__(self, runs: Iterable[Run] = ()) -> None:
        self._lock = threading.Lock()
        self._entries: dict[str, Entry] = {}
        self._order: list[tuple[int, float, str]] = []
        self._holdings: dict[str, Holding] = {}
        self._reasons: dict[str, Reason] = {}
        for run in runs:
            self.update(run)

    def update(self, run: Run) -> None:
        """Take in a run as the store has it now."""
        with self._lock:
            self._forget(run.id)
            if isinstance(run.state, Queued):
                entry = _entry(run, run.state)
                self._entries[run.id] = entry
                bisect.insort(self._order, entry.rank)
            elif run.attempt is not None:
                self._holdings[run.id] = _holding(run)

    def queue(self, limit: int) -> list[Entry]:
        """The first `limit` of the queue."""
        with self._lock:
            return [self._entries[rank[2]] for rank in self._order[:limit]]

    def holdings(self, cluster: str | None = None) -> list[Holding]:
        with self._lock:
            return [each for each in self._holdings.values() if cluster in (None, each.cluster)]

    def explain(self, reasons: dict[str, Reason]) -> None:
        """Keep why the runs of the last pass wait."""
        with self._lock:
            self._reasons = reasons

    def reason(self, run_id: str) -> Reason | None:
        """Why a queued run waits: by the last pass, else its place in the queue. None where it is not queued."""
        with self._lock:
            entry = self._entries.get(run_id)
            if entry is None or run_id in self._reasons:
                return self._reasons.get(run_id)
            place = bisect.bisect_left(self._order, entry.rank) + 1
            return Reason(ReasonCode.WAITING_BEHIND, f"place {place} in the queue")

    def queued(self) -> int:
        with self._lock:
            return len(self._order)

    def _forget(self, run_id: str) -> None:
        self._holdings.pop(run_id, None)
        self._reasons.pop(run_id, None)
        entry = self._entries.pop(run_id, None)
        if entry is not None:
            del self._order[bisect.bisect_left(self._order, entry.rank)]


def _entry(run: Run, state: Queued) -> Entry:
    return Entry(
        run_id=run.id,
        name=run.name,
        project=run.project,
        shape=spec.gang_shape(spec.load(run.spec)),
        priority=run.priority,
        submitted_at=run.submitted_at,
        queued_since_at=run.state_since_at,
        not_before_at=state.not_before_at,
        tried_before=any(each.placed for each in run.attempts),
        waits_for=state.reason.code,
    )


def _holding(run: Run) -> Holding:
    attempt = run.attempt
    assert attempt is not None, "update() has checked that there is one"
    shape = spec.gang_shape(spec.load(run.spec))
    return Holding(run.id, run.name, run.project, attempt.number, attempt.cluster, shape, attempt.shares)
