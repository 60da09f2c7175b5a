"""What has been kept long enough goes: logs of ended runs, code that no run needs any more, live traffic, the data of old
retrainings, old alerts."""

from __future__ import annotations

import asyncio
import logging

from orchestrator.control.snapshot_pruning import SnapshotPruning
from orchestrator.errors import EvertrainError
from orchestrator.ports import Clock, Prunable, Store

log = logging.getLogger(__name__)

EVERY_S = 3600.0
DAY_S = 86400.0
ALERTS_KEEP_S = 30 * DAY_S  # after they were last told: one that goes on firing is never forgotten


class Housekeeping:
    """Whatever belongs to a run that has not ended is kept, however old."""

    def __init__(
        self,
        *,
        store: Store,
        logs: Prunable,
        bundles: Prunable,
        observations: Prunable,
        snapshots: SnapshotPruning,
        clock: Clock,
        log_keep_days: float,
        bundle_keep_days: float,
        observation_keep_days: float,
    ) -> None:
        self._store, self._logs, self._bundles, self._clock = store, logs, bundles, clock
        self._observations, self._snapshots = observations, snapshots
        self._log_keep_s, self._bundle_keep_s = log_keep_days * DAY_S, bundle_keep_days * DAY_S
        self._observation_keep_s = observation_keep_days * DAY_S

    async def run(self) -> None:
        """Until cancelled. A pass that fails is logged, and the next one does its work."""
        while True:
            try:
                await asyncio.to_thread(self.one_pass)
            except EvertrainError as error:
                log.error("housekeeping failed, trying again in %g s: %s", EVERY_S, error)
            await asyncio.sleep(EVERY_S)

    def one_pass(self) -> None:
        """Blocks. Raises Unavailable, StorageFailed."""
        now = self._clock.now()
        unfinished = self._store.unfinished()
        logs = self._logs.prune(now - self._log_keep_s, {run.id for run in unfinished})
        needed = {str(run.spec.get("code") or "").removeprefix("bundle:") for run in unfinished}
        bundles = self._bundles.prune(now - self._bundle_keep_s, needed)
        self._store.forget_firings(now - ALERTS_KEEP_S)
        observed = self._observations.prune(now - self._observation_keep_s, ())
        snapshots = self._snapshots.one_pass(unfinished)
        if logs or bundles or observed or snapshots:
            log.info(
                "housekeeping: removed the logs of %d runs, %d code bundles, %d files of live traffic and %d snapshots",
                len(logs),
                len(bundles),
                len(observed),
                snapshots,
            )
