"""The scheduling loop: at its own pace, woken by events, one pass over one snapshot at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from orchestrator.control.board import LOOK_AHEAD, Board
from orchestrator.control.capacity import views
from orchestrator.control.clusters import Clusters
from orchestrator.control.runs import RunRecords
from orchestrator.core import lifecycle
from orchestrator.core.runs import Run
from orchestrator.core.scheduling.admission import Admit, Decision, Entry, Reject, Wait, admit
from orchestrator.errors import EvertrainError, NotFound
from orchestrator.ports import Clock, Wakeups

log = logging.getLogger(__name__)

PASS_EVERY_S = 1.0
AFTER_FAILURE_S = 2.0
BREATH = (
    19  # times as long as a pass took: a burst of submissions is a few passes, and they take 5 % of the time at most
)
LONGEST_BREATH_S = 0.25


class Loop:
    def __init__(
        self,
        *,
        records: RunRecords,
        board: Board,
        clusters: Clusters,
        wakeups: Wakeups,
        clock: Clock,
        connected: Callable[[str], bool],
        end_orphans: Callable[[], int] = lambda: 0,
    ) -> None:
        """`end_orphans` cancels the trials of sweeps that have ended."""
        self._records, self._board, self._clusters = records, board, clusters
        self._wakeups, self._clock, self._connected = wakeups, clock, connected
        self._end_orphans = end_orphans

    async def run(self) -> None:
        """Until cancelled. A pass that fails is logged and tried again: nothing it does is lost by that."""
        async for _ in self._wakeups.wait("runs", PASS_EVERY_S):
            try:
                began_ns = self._clock.monotonic_ns()
                await asyncio.to_thread(self.one_pass)
                took_s = (self._clock.monotonic_ns() - began_ns) / 1e9
                await asyncio.sleep(min(BREATH * took_s, LONGEST_BREATH_S))
            except EvertrainError as error:
                log.error("scheduling pass failed, trying again in %g s: %s", AFTER_FAILURE_S, error)
                await asyncio.sleep(AFTER_FAILURE_S)

    def one_pass(self) -> list[Decision]:
        """Snapshot, decide, apply. Blocks."""
        now = self._clock.now()
        self._end_orphans()
        self._give_up_inspections(now)
        entries = self._board.queue(LOOK_AHEAD)
        if not entries:
            return []
        shown = views(self._clusters.all(), self._board, self._connected)
        seen = [replace(each, away=self._clusters.away(each.name)) for each in shown]
        decisions = admit(entries, seen, self._clock.monotonic_ns() / 1e9, self._board.trials_held())
        by_id = {each.run_id: each for each in entries}
        for decision in decisions:
            self._apply(by_id[decision.run_id], decision, now)
        waiting = [each for each in decisions if isinstance(each, Wait)]
        self._board.explain({each.run_id: each.reason for each in waiting})
        for each in waiting:
            for trial in each.yielding:
                self._evict(trial, by_id[each.run_id], now)
        if self._board.look_ahead({each.run_id: each.ahead for each in waiting if each.ahead is not None}):
            self._records.wake()
        return decisions

    def _give_up_inspections(self, now: float) -> None:
        """Of those that nobody has answered in time: their agent is away, or older than the question."""
        for project, run_id, ids in self._board.overdue():
            try:
                self._records.change(project, run_id, partial(lifecycle.give_up_inspections, ids=ids, now=now))
            except NotFound:
                log.error("run %s is on the board but not in the store", run_id)

    def _apply(self, entry: Entry, decision: Decision, now: float) -> None:
        if isinstance(decision, Wait) and decision.reason.code == entry.waits_for:
            return
        try:
            self._records.change(entry.project, entry.run_id, lambda run: _transition(run, decision, now))
        except NotFound:
            log.error("run %s is on the board but not in the store", entry.run_id)
        if isinstance(decision, Reject) and decision.ends:
            self._end_sweep(entry, decision, now)

    def _end_sweep(self, entry: Entry, rejected: Reject, now: float) -> None:
        """None of its trials can be placed any more: it ends with what it has found."""
        words = f"{entry.name} and every trial like it: {rejected.reason.message}"
        try:
            self._records.change(entry.project, rejected.ends, partial(_ended_by, words=words, now=now))
        except NotFound:
            log.error("sweep %s of %s is not in the store", rejected.ends, entry.name)

    def _evict(self, trial: str, entry: Entry, now: float) -> None:
        """Have a trial seal and make room for what has a higher priority. Once: it may be on its way out already."""
        holding = self._board.holding(trial)
        if holding is None:
            return
        words = f"makes room for {entry.name}, whose priority is higher"
        self._records.change(
            holding.project, trial, lambda run: lifecycle.preempt(run, by="evertrain", message=words, now=now)
        )


def _ended_by(sweep: Run, words: str, now: float) -> lifecycle.Transition | lifecycle.Ignored:
    if any(path.split(".")[0] == "resources" for path in sweep.spec["search"]["space"]):
        return lifecycle.Ignored("other trials of it may ask for less")
    return lifecycle.finish(sweep, by="evertrain", message=words, now=now)


def _transition(run: Run, decision: Decision, now: float) -> lifecycle.Transition | lifecycle.Ignored:
    match decision:
        case Admit():
            return lifecycle.place(run, decision.cluster, decision.shares, now)
        case Reject():
            return lifecycle.reject(run, decision.reason, now)
        case Wait():
            return lifecycle.wait(run, decision.reason, now)
