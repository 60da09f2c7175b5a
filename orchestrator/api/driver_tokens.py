"""What the drivers of sweeps speak to the server with: tokens of their own, of one project, that do not live long."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from orchestrator.api.auth import make_token
from orchestrator.core.records import Role
from orchestrator.core.runs import Run
from orchestrator.core.sweeps import driver_of
from orchestrator.errors import EvertrainError
from orchestrator.ports import Clock, Store

log = logging.getLogger(__name__)

LIVES_S = 24 * 3600.0


class DriverTokens:
    """One token for each living sweep, renewed at half its life; all are revoked at the sweep's end.

    The secret is in memory only: a server that was started again gives another one. Safe from several threads.
    """

    def __init__(self, store: Store, clock: Clock, forget: Callable[[], None]) -> None:
        self._store, self._clock, self._forget = store, clock, forget
        self._lock = threading.Lock()
        self._given: dict[str, tuple[str, str, float]] = {}  # sweep: project, secret, expires at

    def of(self, run: Run) -> str:
        """The secret for the sweep's driver; the same as before while it holds. Blocks."""
        now = self._clock.now()
        with self._lock:
            given = self._given.get(run.id)
            if given is None or given[2] - now < LIVES_S / 2:
                secret, token = make_token(driver_of(run.id), run.project, Role.USER, now, LIVES_S)
                self._store.add_token(token)
                given = self._given[run.id] = (run.project, secret, now + LIVES_S)
            return given[1]

    def retire(self, run_id: str) -> None:
        """The run has ended: its tokens, if it had any, let nobody in any more."""
        with self._lock:
            given = self._given.pop(run_id, None)
        if given is None:
            return
        try:
            for token in self._store.tokens(given[0]):
                if token.name == driver_of(run_id) and token.revoked_at is None:
                    self._store.revoke_token(given[0], token.id, self._clock.now())
        except EvertrainError as error:
            log.warning("the token of sweep %s was not revoked, and expires by itself: %s", run_id, error)
        self._forget()
