"""What a server does before it schedules: fill the board from the store."""

from __future__ import annotations

from orchestrator import spec
from orchestrator.control.board import Board
from orchestrator.control.runs import RunRecords
from orchestrator.errors import InvalidSpec
from orchestrator.ports import Clock, Store


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
            words = f"this version of Evertrain cannot read the run file: {error}. Submit it again, corrected"
            records.abandon(run.project, run.id, words, clock.now())
