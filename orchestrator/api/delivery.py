"""The thread of an observer: encodes what was recorded, and sends it until the server has it."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Sequence

from orchestrator.api.backlog import Backlog
from orchestrator.api.calls import Calls
from orchestrator.api.observing import BATCH_ROWS, WINDOW, Outgoing, Replica
from orchestrator.api.recorded import Encoder
from orchestrator.errors import EvertrainError
from orchestrator.settings import Connection

log = logging.getLogger(__name__)

CALL_S = 30.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 30.0
COMPLAIN_EVERY_S = 60.0


class Delivery(threading.Thread):
    """Ends once the backlog is closed and empty, or when it is told that nobody waits any longer."""

    def __init__(
        self,
        backlog: Backlog,
        encoder: Encoder,
        connection: Connection,
        *,
        project: str,
        model: str,
        version: int,
        source: str,
        every_s: float,
    ) -> None:
        super().__init__(name=f"observer {model}", daemon=True)
        self._backlog, self._encoder, self._connection = backlog, encoder, connection
        self._project, self._model, self._version, self._source = project, model, version, source
        self._every_s = every_s
        self._given_up = threading.Event()
        self._complained_at = -COMPLAIN_EVERY_S

    def give_up(self) -> None:
        """What has not been sent by now will not be."""
        self._given_up.set()

    def run(self) -> None:
        calls = Calls(self._connection, CALL_S)
        try:
            import orchestrator.drift.batches  # noqa: F401  # takes a while: now, and not when the program ends

            replica = Replica(
                calls, project=self._project, model=self._model, version=self._version, source=self._source
            )
            while not self._given_up.is_set():
                self._backlog.awake.wait(self._every_s)
                self._backlog.awake.clear()
                closing = self._backlog.closed
                self._send_all(replica, closing)
                if closing:
                    return
        except Exception as error:
            self._backlog.closed = True
            self._complain(f"its thread ended, and everything from now on is dropped: {error!r}", error)
        finally:
            calls.close()

    def _send_all(self, replica: Replica, closing: bool) -> None:
        while not self._given_up.is_set():
            entries, mark = self._backlog.take(WINDOW * BATCH_ROWS)
            made = self._encoder.batches(entries, all_now=closing or mark is not None)
            if made.lost:
                self._backlog.settle(dropped=made.lost)
                self._complain(f"{made.lost} rows and labels make no columns, and were dropped: {made.why}")
            for start in range(0, len(made.batches), WINDOW):
                self._deliver(replica, made.batches[start : start + WINDOW])
            if mark is not None:
                mark.set()
            elif not entries:
                return

    def _deliver(self, replica: Replica, batches: Sequence[Outgoing]) -> None:
        """Again and again until the server has them: it drops what it has already."""
        pause_s = FIRST_PAUSE_S
        while not self._given_up.is_set():
            try:
                refused = replica.send(batches, again=False)
            except EvertrainError as error:
                self._complain(f"rows wait, the server does not take them: {error}")
            else:
                lost = sum(each.rows for each in batches if each.seq in refused)
                self._backlog.settle(sent=sum(each.rows for each in batches) - lost, refused=lost)
                if refused:
                    self._complain(f"{lost} rows and labels were refused: {next(iter(refused.values()))}")
                return
            self._given_up.wait(random.uniform(0.5, 1.0) * pause_s)
            pause_s = min(LONGEST_PAUSE_S, pause_s * 2)

    def _complain(self, words: str, error: Exception | None = None) -> None:
        """Once a minute at most: this is somebody else's log."""
        if error is not None or time.monotonic() - self._complained_at >= COMPLAIN_EVERY_S:
            self._complained_at = time.monotonic()
            log.warning("observer of %s: %s", self._model, words, exc_info=error)
