"""Changing one run: load, think, and apply only if nobody else did."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence

from orchestrator.control.board import Board
from orchestrator.core import lifecycle
from orchestrator.core.lifecycle import Ignored, Transition
from orchestrator.core.runs import Reason, ReasonCode, Run
from orchestrator.errors import Conflict
from orchestrator.ports import Change, Store, Wakeups

log = logging.getLogger(__name__)

Think = Callable[[Run], Transition | Ignored]
ATTEMPTS = 20


class RunRecords:
    """The one way in which control writes runs: compare and set, then tell the board and whoever waits. Blocks."""

    def __init__(self, store: Store, board: Board, wakeups: Wakeups) -> None:
        self._store, self._board, self._wakeups = store, board, wakeups

    def change(self, project: str, run_id: str, think: Think) -> Run:
        """Apply what `think` answers; a run that changed meanwhile is loaded and thought about again.

        Answers the run as stored, unchanged where `think` said Ignored. Raises NotFound; Conflict when others kept winning.
        """
        for _ in range(ATTEMPTS):
            run = self._store.run(project, run_id)
            thought = think(run)
            if isinstance(thought, Ignored):
                log.debug("run %s unchanged: %s", run.id, thought.why)
                return run
            stored = self.apply([thought])[0]
            if stored is not None:
                return stored
        raise Conflict(f"run {run_id} changed {ATTEMPTS} times while it was being changed: try again")

    def abandon(self, project: str, run_id: str, words: str, now: float) -> None:
        """End a run that this server cannot read, or cannot tell a cluster of: it must not stand in the way of others."""
        log.error("run %s: %s", run_id, words)
        reason = Reason(ReasonCode.NOT_RETRIABLE, words)
        self.change(project, run_id, lambda run: lifecycle.abandon(run, reason, now))

    def apply(self, transitions: Iterable[Transition]) -> list[Run | None]:
        """Write independent transitions in one transaction. None: that run changed meanwhile, nothing of it was written."""
        changes = [
            Change(each.run, each.events, each.checkpoints, each.model, each.facts, each.monitor)
            for each in transitions
        ]
        answers = self._store.apply(changes)
        self.announce([each for each in answers if each is not None])
        return answers

    def announce(self, runs: Sequence[Run]) -> None:
        """Tell the board and the waiting of runs that were just written."""
        for run in runs:
            self._board.update(run)
            self._wakeups.notify(f"run:{run.id}")
        self._wakeups.notify("runs")

    def wake(self) -> None:
        """Something else than a run changed that the next pass should see."""
        self._wakeups.notify("runs")
