"""What a server does before it schedules: fill the board from the store."""

from __future__ import annotations

import logging

from orchestrator import spec
from orchestrator.control.board import Board
from orchestrator.control.runs import RunRecords
from orchestrator.core import lifecycle
from orchestrator.core.runs import Reason, ReasonCode, Run
from orchestrator.errors import InvalidSpec
from orchestrator.ports import Clock, Store

log = logging.getLogger(__name__)


def fill_board(board: Board, store: Store, records: RunRecords, clock: Clock) -> None:
    """Every unfinished run onto the board.

    One whose run file this version cannot read (a recipe that is gone, a rule that became stricter) ends FAILED with that
    reason: it must not keep the server from starting.
    """
    for run in store.unfinished():
        try:
            spec.load(run.spec)
            board.update(run)
        except InvalidSpec as error:
            _abandon(run, error, records, clock)


def _abandon(run: Run, error: InvalidSpec, records: RunRecords, clock: Clock) -> None:
    words = f"this version of Evertrain cannot read the run file: {error}. Submit it again, corrected"
    log.error("run %s: %s", run.id, words)
    reason = Reason(ReasonCode.NOT_RETRIABLE, words)
    records.change(run.project, run.id, lambda current: lifecycle.abandon(current, reason, clock.now()))
