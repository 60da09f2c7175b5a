"""What /metrics shows, gathered at each scrape: whatever the server was not told of as it happened."""

from __future__ import annotations

import contextlib
import logging
import shutil

from orchestrator.api.auth import EVERY_PROJECT, allows, bearer
from orchestrator.api.certificate import Certificate
from orchestrator.api.parts import Parts
from orchestrator.control.alerts import Alerts
from orchestrator.control.capacity import views
from orchestrator.core.records import Role
from orchestrator.errors import Denied, NotFound
from orchestrator.telemetry.exposition import OPENMETRICS_TYPE, PLAIN_TYPE, wants_openmetrics
from orchestrator.telemetry.metrics import MONITORS_SHOWN, SWEEPS_SHOWN, Metrics, ServerView

log = logging.getLogger(__name__)

READ_ONE_BY_ONE = 50


class Scraper:
    """Blocks."""

    def __init__(self, parts: Parts, metrics: Metrics, alerts: Alerts, certificate: Certificate | None) -> None:
        self._parts, self._metrics, self._alerts = parts, metrics, alerts
        self._certificate = certificate

    def scrape(self, authorization: str | None, accept: str) -> tuple[bytes, str]:
        """The text and its content type. Raises Unauthenticated, Denied, Unavailable."""
        parts, metrics = self._parts, self._metrics
        if not parts.settings.open_metrics:
            self._check(authorization)
        metrics.state_counts(parts.store.count_by_state())
        metrics.queue(parts.board.queue_view())
        metrics.sweeps(parts.sweeps.living(SWEEPS_SHOWN))
        metrics.monitors(parts.monitors.watched(EVERY_PROJECT, MONITORS_SHOWN))
        self._clusters()
        self._runs()
        metrics.server(self._server())
        in_openmetrics = wants_openmetrics(accept)
        return metrics.render(in_openmetrics=in_openmetrics), OPENMETRICS_TYPE if in_openmetrics else PLAIN_TYPE

    def _check(self, authorization: str | None) -> None:
        token = self._parts.authenticator.authenticate(bearer(authorization)).token
        if not allows(Role.VIEWER, token.role) or token.project != EVERY_PROJECT:
            raise Denied(f"/metrics shows every project: token {token.name!r} must be a viewer of all ('*')")

    def _clusters(self) -> None:
        fleet = self._parts.fleet
        known = fleet.clusters.all()
        seen = {each.name: each.last_seen_at for each in known}
        shown = views(known, self._parts.board, fleet.connected)
        self._metrics.clusters([(each, seen[each.name]) for each in shown])

    def _runs(self) -> None:
        """What began before this process did, or ended without a word from its cluster, is only in the store."""
        parts, metrics = self._parts, self._metrics
        shown, held = metrics.living(), {each.run_id: None for each in parts.board.holdings()}
        unseen = [run_id for run_id in held if run_id not in shown]
        wanted = [*(shown - held.keys()), *unseen[: metrics.room()]]
        # After a restart they may be thousands: what the store has decoded for the board is not read again one by one.
        at_once = {each.id: each for each in parts.store.unfinished()} if len(wanted) > READ_ONE_BY_ONE else {}
        for run_id in wanted:
            with contextlib.suppress(NotFound):
                metrics.track(at_once.get(run_id) or parts.store.run("*", run_id))
                for newest in parts.store.checkpoints(run_id, limit=1):
                    metrics.sealed(run_id, newest.size_bytes, newest.sealed_at)

    def _server(self) -> ServerView:
        disk = shutil.disk_usage(self._parts.settings.data_dir)
        counts = {outcome.value: number for outcome, number in self._alerts.counts().items()}
        expires_at = None if self._certificate is None else self._certificate.current().expires_at
        return ServerView(disk.total, disk.free, expires_at, counts, self._alerts.heard_at)
