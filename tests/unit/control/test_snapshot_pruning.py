"""The data of retrainings: kept while anything needs them, removed later, told of ever after."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapters.snapshots import ParquetSnapshots
from orchestrator.control.ancestry import ancestry
from orchestrator.control.snapshot_pruning import DAY_S, SnapshotPruning
from orchestrator.core.decisions import DecisionRecord, Standing
from orchestrator.core.snapshots import has_rows, judge
from tests.unit.control.test_retraining import proof
from tests.unit.control.watched import Watching

KEEP_DAYS = 90.0


@pytest.fixture
async def watching(tmp_path: Path) -> Watching:
    made = Watching(tmp_path)
    await made.begin({"cooldown": None})
    return made


def prune(watching: Watching) -> int:
    snapshots = ParquetSnapshots(watching.observations, str(watching.root))
    pruning = SnapshotPruning(watching.store, snapshots, watching.clock, KEEP_DAYS)
    return pruning.one_pass(watching.store.unfinished())


async def retrained(watching: Watching, turn: int, **facts: Any) -> DecisionRecord:
    watching.serve(turn)
    record = watching.drift(f"drift/v1/{turn}")
    watching.passes()
    await watching.train(watching.run_of(record), facts=facts)
    watching.passes(1)
    watching.clock.forward(DAY_S * 2)  # its probation is over
    watching.passes(1)
    return watching.now(record)


def rows_of(record: DecisionRecord) -> Path:
    return Path(record.data["url"], "rows.parquet")


async def test_data_of_what_serves_and_of_what_a_rollback_brings_back_stay_and_others_go_when_they_are_old(
    watching: Watching, caplog: pytest.LogCaptureFixture
) -> None:
    better = proof(challenger=0.9, champion=0.6)
    records = [await retrained(watching, 1, proof=better)]
    kept = await retrained(watching, 2)
    for turn in (3, 4):
        record = await retrained(watching, turn, proof=better | {"champion": records[-1].version})
        records.append(record)
    assert [each.standing for each in records] == [Standing.PROMOTED] * 3, [each.told for each in records]
    assert kept.standing is Standing.KEPT
    assert prune(watching) == 0, "they are young"
    watching.clock.forward(KEEP_DAYS * DAY_S)
    with caplog.at_level(logging.INFO):
        assert prune(watching) == 2
    assert [rows_of(each).exists() for each in (*records, kept)] == [False, True, True, False]
    assert "the snapshot of flights #1 was removed: no version that serves" in caplog.text
    assert prune(watching) == 0


async def test_what_a_pruned_snapshot_was_is_told_by_decision_version_and_lineage(watching: Watching) -> None:
    record = await retrained(watching, 1)
    watching.clock.forward(KEEP_DAYS * DAY_S)
    assert prune(watching) == 1
    told = watching.now(record)
    assert (told.data["rows"], told.standing) == (8, Standing.KEPT)
    assert "a rollback" in told.data["pruned"]["why"]
    fact = watching.store.facts("default", "flights", 2)["retraining"]
    assert fact["data"]["pruned"] == told.data["pruned"]
    (version, *_) = watching.store.models("default", "flights")
    assert f"{record.data['url']} (pruned at 1970-0" in ancestry(watching.store, version)[0].data


async def test_data_of_an_open_decision_and_of_a_run_that_reads_them_stay_however_old(watching: Watching) -> None:
    watching.serve(1)
    training = watching.drift()
    watching.passes()
    watching.clock.forward(2 * KEEP_DAYS * DAY_S)
    assert prune(watching) == 0
    await watching.train(watching.run_of(training))
    watching.passes()
    reader = watching.plane.submit("reader", recipe="tabular", data={"source": training_url(watching, training)})
    watching.clock.forward(2 * KEEP_DAYS * DAY_S)
    assert prune(watching) == 0
    watching.plane.commands.cancel("default", reader.id, by="ada")
    assert prune(watching) == 1


def training_url(watching: Watching, record: DecisionRecord) -> str:
    return str(watching.now(record).data["url"])


async def test_data_of_versions_that_stand_by_to_be_recalled_stay_as_many_as_the_run_file_says(tmp_path: Path) -> None:
    watching = Watching(tmp_path)
    await watching.begin({"cooldown": None, "recall": {"versions": 3}})
    records = [await retrained(watching, turn) for turn in (1, 2, 3)]
    assert [each.version for each in records] == [2, 3, 4], "version 1 serves all the time"
    watching.clock.forward(KEEP_DAYS * DAY_S)
    watching.store.put_monitor(replace(watching.monitor, settings={"retrain": {"mode": "of later days"}}))
    assert prune(watching) == 0, "who stands by is not known"
    watching.store.put_monitor(replace(watching.monitor, settings={"retrain": {"recall": {"versions": 3}}}))
    assert prune(watching) == 1
    assert [has_rows(watching.now(each)) for each in records] == [False, True, True]
    watching.store.put_monitor(replace(watching.monitor, settings={"retrain": {}}))
    assert prune(watching) == 2


async def test_every_verdict_has_its_reason(watching: Watching) -> None:
    record = replace(await retrained(watching, 1), ended_at=0.0)
    url = record.data["url"]
    assert judge(replace(record, standing=Standing.TRAINING), {}, 10.0, 1.0).words == "decision flights #1 is training"
    assert judge(record, {url: "version 2 is champion"}, 10.0, 1.0).words == "version 2 is champion"
    assert judge(record, {}, 10.0, 2 * DAY_S).words == "its retraining ended less than 2 days ago"
    assert not judge(record, {}, 10.0, 1.0).keep
