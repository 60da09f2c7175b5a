"""The server, put together: the one file that knows every class.

    python -m orchestrator.main server

Settings come from EVERTRAIN_* (`orchestrator.settings`). SIGTERM or SIGINT ends it in order; `kill -9` loses nothing.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import secrets
import signal
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from orchestrator.adapters.bundles import DiskBundleStore
from orchestrator.adapters.observations import DiskObservationStore
from orchestrator.adapters.snapshots import ParquetSnapshots
from orchestrator.adapters.system_clock import SystemClock
from orchestrator.adapters.webhooks import HttpWebhooks
from orchestrator.api.auth import Authenticator, adopt_tokens, ensure_first_tokens
from orchestrator.api.driver_tokens import DriverTokens
from orchestrator.api.http import HttpServer
from orchestrator.api.parts import Parts
from orchestrator.api.server import GrpcServer
from orchestrator.control.alerts import Alerts
from orchestrator.control.announcing import Announcer
from orchestrator.control.board import Board
from orchestrator.control.challengers import Challengers
from orchestrator.control.clusters import Clusters
from orchestrator.control.commands import Commands
from orchestrator.control.fleet import Fleet
from orchestrator.control.housekeeping import Housekeeping
from orchestrator.control.loop import Loop
from orchestrator.control.monitors import Monitors
from orchestrator.control.promotions import Promotions
from orchestrator.control.recalls import Recalls
from orchestrator.control.retraining import Retraining
from orchestrator.control.runs import RunRecords
from orchestrator.control.snapshot_pruning import SnapshotPruning
from orchestrator.control.startup import fill_board
from orchestrator.control.sweeps import Sweeps
from orchestrator.control.wakeups import LocalWakeups
from orchestrator.errors import EvertrainError
from orchestrator.ports import Clock, ObservationStore, SnapshotStore, Store, Wakeups
from orchestrator.settings import Settings, load_settings, write_private
from orchestrator.store.store import open_store
from orchestrator.telemetry.logging import set_up_logging
from orchestrator.telemetry.logs import DiskLogStore
from orchestrator.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

STOP_GRACE_S = 5.0
GC_THRESHOLD = 50_000  # Python's 700 has the collector walk what a batch of submissions is made of dozens of times


@dataclass(frozen=True)
class Server:
    """Everything that runs in the server's process."""

    store: Store
    parts: Parts
    loop: Loop
    housekeeping: Housekeeping
    announcer: Announcer
    grpc: GrpcServer
    http: HttpServer


def build(settings: Settings, store: Store, clock: Clock) -> Server:
    """Put the server together; nothing listens and nothing runs yet. Call it on the event loop that will serve."""
    wakeups, metrics, board = LocalWakeups(), Metrics(settings), Board(clock)
    records = RunRecords(store, board, wakeups)
    fill_board(board, store, records, clock)
    clusters = Clusters(store, clock)
    authenticator = Authenticator(store, clock, settings.token_cache_s)
    driver_tokens = DriverTokens(store, clock, authenticator.forget)
    board.when_ended(driver_tokens.retire)
    fleet = _fleet(settings, store, records, board, clusters, wakeups, clock, metrics, driver_tokens)
    bundles = DiskBundleStore(settings.data_dir / "bundles", settings.bundle_bytes)
    commands = Commands(
        store=store,
        records=records,
        board=board,
        clusters=clusters,
        bundles=bundles,
        clock=clock,
        connected=fleet.connected,
        prices=settings.prices,
    )
    sweeps = Sweeps(fleet, commands)
    loop = _loop(records, board, clusters, wakeups, fleet, sweeps)
    logs = DiskLogStore(settings.data_dir / "logs", settings.log_run_bytes)
    observations = DiskObservationStore(settings.data_dir / "observations", settings.observation_bytes)
    promotions = Promotions(store, clock)
    snapshots = ParquetSnapshots(observations, settings.storage_root)
    retraining = _retraining(settings, store, commands, observations, snapshots, promotions, wakeups, clock)
    parts = Parts(
        settings=settings,
        store=store,
        commands=commands,
        sweeps=sweeps,
        promotions=promotions,
        recalls=Recalls(store, promotions, observations, wakeups),
        board=board,
        fleet=fleet,
        logs=logs,
        bundles=bundles,
        observations=observations,
        monitors=_monitors(store, observations, retraining, wakeups, clock),
        retraining=retraining,
        wakeups=wakeups,
        clock=clock,
        authenticator=authenticator,
        executor=ThreadPoolExecutor(settings.api_threads, thread_name_prefix="api"),
        server_id=f"server-{uuid.uuid4().hex[:8]}",
    )
    announcer = Announcer(store, _webhooks(settings, clock), wakeups, clock)
    http = HttpServer(parts, metrics, Alerts(store, commands, clock, retraining.fired))
    pruning = SnapshotPruning(store, snapshots, clock, settings.snapshot_keep_days)
    housekeeping = _housekeeping(parts, logs, bundles, observations, pruning)
    return Server(store, parts, loop, housekeeping, announcer, GrpcServer(parts), http)


def _fleet(
    settings: Settings,
    store: Store,
    records: RunRecords,
    board: Board,
    clusters: Clusters,
    wakeups: Wakeups,
    clock: Clock,
    metrics: Metrics,
    driver_tokens: DriverTokens,
) -> Fleet:
    return Fleet(
        store=store,
        records=records,
        board=board,
        clusters=clusters,
        wakeups=wakeups,
        clock=clock,
        storage=settings.storage_root,
        prices=settings.prices,
        heard=metrics.observe,
        progressed=metrics.progress,
        driver_token=driver_tokens.of,
        told_ranks=settings.metrics_ranks,
    )


def _loop(
    records: RunRecords, board: Board, clusters: Clusters, wakeups: Wakeups, fleet: Fleet, sweeps: Sweeps
) -> Loop:
    return Loop(
        records=records,
        board=board,
        clusters=clusters,
        wakeups=wakeups,
        clock=fleet.clock,
        connected=fleet.connected,
        end_orphans=sweeps.end_orphans,
    )


def _housekeeping(
    parts: Parts,
    logs: DiskLogStore,
    bundles: DiskBundleStore,
    observations: DiskObservationStore,
    snapshots: SnapshotPruning,
) -> Housekeeping:
    settings = parts.settings
    return Housekeeping(
        store=parts.store,
        logs=logs,
        bundles=bundles,
        observations=observations,
        snapshots=snapshots,
        clock=parts.clock,
        log_keep_days=settings.log_keep_days,
        bundle_keep_days=settings.bundle_keep_days,
        observation_keep_days=settings.observation_keep_days,
    )


def _retraining(
    settings: Settings,
    store: Store,
    commands: Commands,
    observations: ObservationStore,
    snapshots: SnapshotStore,
    promotions: Promotions,
    wakeups: Wakeups,
    clock: Clock,
) -> Retraining:
    return Retraining(
        store=store,
        commands=commands,
        observations=observations,
        snapshots=snapshots,
        challengers=Challengers(
            store=store,
            commands=commands,
            promotions=promotions,
            observations=observations,
            clock=clock,
            prices=settings.prices,
        ),
        wakeups=wakeups,
        clock=clock,
    )


def _monitors(
    store: Store, observations: ObservationStore, retraining: Retraining, wakeups: Wakeups, clock: Clock
) -> Monitors:
    return Monitors(store=store, observations=observations, clock=clock, wakeups=wakeups, triggered=retraining.heard)


def _webhooks(settings: Settings, clock: Clock) -> HttpWebhooks:
    """With the secret that posts are signed with, made where webhooks are told for the first time."""
    if not settings.webhook_urls:
        return HttpWebhooks((), b"", clock)
    if not settings.webhook_secret.exists():
        write_private(settings.webhook_secret, secrets.token_hex(32) + "\n")
    return HttpWebhooks(settings.webhook_urls, settings.webhook_secret.read_text().strip().encode(), clock)


async def serve(server: Server, stop: asyncio.Event) -> None:
    """Listen and schedule until `stop` is set. Raises Refused when a port is taken."""
    settings = server.parts.settings
    loops = [
        asyncio.create_task(each.run())
        for each in (
            server.loop,
            server.housekeeping,
            server.parts.monitors,
            server.parts.retraining,
            server.parts.recalls,
            server.announcer,
        )
    ]
    stopping = asyncio.create_task(stop.wait())
    try:
        await server.grpc.start()
        await server.http.start()
        log.info(
            "serving gRPC on %s:%d and HTTP on %s:%d, data in %s",
            settings.grpc_host,
            server.grpc.port,
            settings.http_host,
            server.http.port,
            settings.data_dir,
        )
        # A loop that ended by itself is a bug: better no server than one that schedules, judges, retrains or tells nothing.
        await asyncio.wait({*loops, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in (stopping, *loops):
            each.cancel()
        await server.grpc.stop(STOP_GRACE_S)
        await server.http.stop()
    if not stop.is_set():
        for ended in (each for each in loops if each.done() and not each.cancelled()):
            ended.result()


def _let_in(settings: Settings, store: Store, clock: Clock) -> None:
    """The tokens without which nobody could make another. Raises Refused for those of `tokens_dir` that cannot be used."""
    if settings.tokens_dir is not None:
        roles = adopt_tokens(store, clock, settings.tokens_dir)
        log.info("tokens for %s were taken from %s", ", ".join(roles), settings.tokens_dir)
    else:
        admin, agent = ensure_first_tokens(store, clock, settings.data_dir)
        log.info("the first tokens are in %s and %s", admin, agent)


async def _main(settings: Settings) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    clock, store = SystemClock(), open_store(settings.database_url, settings.secrets_key)
    try:
        _let_in(settings, store, clock)
        await serve(build(settings, store, clock), stop)
    finally:
        store.close()


def main() -> int:
    if sys.argv[1:] != ["server"]:
        print("usage: python -m orchestrator.main server   (settings: EVERTRAIN_* in the environment)", file=sys.stderr)
        return 2
    try:
        settings = load_settings()
        gc.set_threshold(GC_THRESHOLD)
        settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        set_up_logging(settings)
        asyncio.run(_main(settings))
    except (EvertrainError, OSError) as error:
        print(f"evertrain server: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
