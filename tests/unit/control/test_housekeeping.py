from __future__ import annotations

import asyncio
import os
from pathlib import Path

from orchestrator.adapters.bundles import DiskBundleStore
from orchestrator.adapters.memory_observations import MemoryObservationStore
from orchestrator.adapters.observations import DiskObservationStore
from orchestrator.adapters.snapshots import ParquetSnapshots
from orchestrator.control.housekeeping import DAY_S, Housekeeping
from orchestrator.control.snapshot_pruning import SnapshotPruning
from orchestrator.core import lifecycle
from orchestrator.core.alerts import Alert, Firing, Outcome
from orchestrator.core.records import LogLine
from orchestrator.main import build, serve
from orchestrator.ports import Change, Observed
from orchestrator.settings import Settings
from orchestrator.store import MemoryStore
from orchestrator.telemetry.logs import DiskLogStore
from tests.builders import submission
from tests.unit.control.plane import HandClock

NOW = 1000 * DAY_S


def housekeeping(store: MemoryStore, root: Path) -> tuple[Housekeeping, DiskLogStore, DiskBundleStore]:
    logs, bundles = DiskLogStore(root / "logs"), DiskBundleStore(root / "bundles")
    clock = HandClock(wall=NOW)
    keeper = Housekeeping(
        store=store,
        logs=logs,
        bundles=bundles,
        observations=DiskObservationStore(root / "observations"),
        snapshots=SnapshotPruning(store, ParquetSnapshots(MemoryObservationStore(), str(root)), clock, 90),
        clock=clock,
        log_keep_days=90,
        bundle_keep_days=30,
        observation_keep_days=30,
    )
    return keeper, logs, bundles


def write_log(logs: DiskLogStore, root: Path, run_id: str, days_ago: float) -> Path:
    logs.append([LogLine(run_id, 1, 1, 0, 1.0, "a line", "host", 1)])
    for path in (root / "logs" / run_id).iterdir():
        os.utime(path, (NOW - days_ago * DAY_S,) * 2)
    return root / "logs" / run_id


def age(root: Path, sha256: str, days_ago: float) -> None:
    os.utime(root / "bundles" / sha256[:2] / sha256, (NOW - days_ago * DAY_S,) * 2)


def submit(store: MemoryStore, run_id: str, code: str | None = None) -> None:
    spec = {"name": run_id, "recipe": "digits_cnn", "code": code}
    store.submit([submission(run_id=run_id, name=run_id, spec=spec)])


def end(store: MemoryStore, run_id: str) -> None:
    run = store.run("*", run_id)
    cancelled = lifecycle.cancel(run, by="a test", message="", now=2.0)
    assert isinstance(cancelled, lifecycle.Transition)
    assert store.apply([Change(cancelled.run)])[0] is not None


def test_only_old_logs_of_ended_runs_go(tmp_path: Path) -> None:
    store = MemoryStore()
    keeper, logs, _ = housekeeping(store, tmp_path)
    for run_id in ("run-waits", "run-old", "run-young"):
        submit(store, run_id)
    for run_id in ("run-old", "run-young"):
        end(store, run_id)
    waits = write_log(logs, tmp_path, "run-waits", 200)
    old = write_log(logs, tmp_path, "run-old", 91)
    young = write_log(logs, tmp_path, "run-young", 89)

    keeper.one_pass()

    assert [path.exists() for path in (waits, old, young)] == [True, False, True]


def test_only_old_bundles_that_no_unfinished_run_needs_go(tmp_path: Path) -> None:
    store = MemoryStore()
    keeper, _, bundles = housekeeping(store, tmp_path)
    needed, done, young = (bundles.put("default", data) for data in (b"needed", b"done", b"young"))
    submit(store, "run-waits", f"bundle:{needed}")
    submit(store, "run-done", f"bundle:{done}")
    end(store, "run-done")
    for sha256, days_ago in ((needed, 200), (done, 31), (young, 29)):
        age(tmp_path, sha256, days_ago)

    keeper.one_pass()

    kept = [path.name for path in (tmp_path / "bundles").glob("??/*") if path.is_file()]
    assert sorted(kept) == sorted([needed, young])


def test_alerts_go_a_month_after_they_were_last_told(tmp_path: Path) -> None:
    store = MemoryStore()
    keeper, _, _ = housekeeping(store, tmp_path)
    told = {days: Alert("default", "LossRises", f"{days}", 1.0, True, {}) for days in (29, 31)}
    store.keep_firings([Firing(each, 1.0, NOW - days * DAY_S, Outcome.NOTED, "noted") for days, each in told.items()])
    keeper.one_pass()
    assert set(store.firings(each.key for each in told.values())) == {told[29].key}


def test_a_bundle_that_is_used_again_is_young_again(tmp_path: Path) -> None:
    _, _, bundles = housekeeping(MemoryStore(), tmp_path)
    put, got, left = (bundles.put("default", data) for data in (b"put", b"got", b"left"))
    for each in (put, got, left):
        age(tmp_path, each, 31)
    bundles.put("default", b"put")
    bundles.get("default", got)

    removed = bundles.prune(NOW - 30 * DAY_S, keep=())

    assert removed == [left]


def test_only_old_live_traffic_goes(tmp_path: Path) -> None:
    keeper, _, _ = housekeeping(MemoryStore(), tmp_path)
    observations = DiskObservationStore(tmp_path / "observations")
    for model, days_ago in (("old", 31), ("young", 29)):
        observations.append("default", model, [Observed(0, 1.0, "replica", 1, "rows", 1, 10, b"rows")])
        (file,) = (tmp_path / "observations" / "default" / model).iterdir()
        os.utime(file, (NOW - days_ago * DAY_S,) * 2)

    keeper.one_pass()

    again = DiskObservationStore(tmp_path / "observations")
    assert [again.rows("default", model) for model in ("old", "young")] == [0, 10]


async def test_a_server_keeps_house_by_itself(tmp_path: Path) -> None:
    logs = DiskLogStore(tmp_path / "logs")
    logs.append([LogLine("run-of-long-ago", 1, 1, 0, 1.0, "a line", "host", 1)])
    directory = tmp_path / "logs" / "run-of-long-ago"
    for path in directory.iterdir():
        os.utime(path, (0.0, 0.0))
    settings = Settings(data_dir=tmp_path, grpc_port=0, http_port=0)
    stop = asyncio.Event()
    serving = asyncio.create_task(serve(build(settings, MemoryStore(), HandClock(NOW)), stop))
    async with asyncio.timeout(20):
        while directory.exists() and not serving.done():
            await asyncio.sleep(0.01)
    stop.set()
    await serving
    assert not directory.exists()
