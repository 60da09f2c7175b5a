"""Data are made ready while no gang is placed: what is told of it, what it may fail by, and who may go away meanwhile."""

from __future__ import annotations

import fcntl
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image

from orchestrator.core import observations as seen
from orchestrator.core.runs import ReasonCode
from tests.integration.cluster.conftest import Stage
from tests.integration.cluster.recording_server import Key
from trainers.config import Data, section
from trainers.data.prepare import key_of, prepare
from trainers.data.reading.tables import fragments

ROWS = 200


def images(directory: Path, pieces: int = 1) -> str:
    """A parquet file of noise in two classes. Several pieces are prepared by a Ray Data job, whose workers take seconds."""
    random = np.random.default_rng(0)
    bodies = []
    for pixels in random.integers(0, 255, (ROWS, 8, 8), dtype=np.uint8):
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "png")
        bodies.append(stream.getvalue())
    table = pa.table({"image": bodies, "label": [number % 2 for number in range(ROWS)]})
    path = directory / "images.parquet"
    pyarrow.parquet.write_table(table, path, row_group_size=ROWS // pieces)
    return str(path)


def training(source: str, prepared: Path, **data: Any) -> dict[str, Any]:
    return {
        "name": "prepared",
        "recipe": "digits_cnn",
        "data": {"source": source, "prepared": str(prepared), **data},
        "model": {"width": 4},
        "train": {"steps": 2, "global_batch": 16, "lr": 0.01},
        "resources": {"workers": 1, "cpu": 1},
    }


def preparing(stage: Stage, key: Key) -> list[str]:
    told = stage.server.heard(key, seen.Waiting)
    return [each.reason.message for each in told if each.reason.code == ReasonCode.PREPARING_DATA]


@contextmanager
def held(source: str, prepared: Path) -> Iterator[None]:
    """As if another process were preparing the same data."""
    data = section(Data, {"source": source, "prepared": str(prepared)}, "data")
    prepared.mkdir()
    with open(prepared / f".{key_of(data, fragments(source), prepared)}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def test_a_ray_data_job_prepares_before_the_gang_is_placed_and_the_next_run_finds_what_it_made(
    stage: Stage, tmp_path: Path
) -> None:
    spec = training(images(tmp_path, pieces=2), tmp_path / "out")
    first = stage.run(spec)
    assert stage.server.wait_ended(first).outcome == "succeeded"
    kinds = [type(each.what) for each in stage.server.observations[first]]
    assert kinds.index(seen.Waiting) < kinds.index(seen.Placed)
    host = stage.server.nodes[0].host
    doing = ["waiting for Ray to take 2 pieces", "checking every row", "looking at the training part"]
    (made,) = (tmp_path / "out").glob("*/manifest.json")
    ready = f"the data are ready on {host}, in {made.parent}: report.html there shows them"
    words = [f"preparing data on {host}: {each}" for each in [*doing, "writing the arrays"]]
    assert preparing(stage, first) == [*words, ready]
    phases = [each.phase for each in stage.server.progress[first] if not each.incarnation]
    assert any("2 of 2 pieces" in each for each in phases)
    alone = prepare(section(Data, {"source": spec["data"]["source"], "prepared": str(tmp_path / "alone")}, "data"))
    for path in (alone.directory / "train").iterdir():
        assert path.read_bytes() == (made.parent / "train" / path.name).read_bytes()

    second = stage.run(spec)
    assert stage.server.wait_ended(second).outcome == "succeeded"
    assert preparing(stage, second) == [ready]
    assert list((tmp_path / "out").glob("*/manifest.json")) == [made]


def test_data_that_break_a_rule_end_the_run_with_the_rows_and_nothing_is_placed(stage: Stage, tmp_path: Path) -> None:
    spec = training(images(tmp_path), tmp_path / "out", columns={"label": {"max": 0}})
    key = stage.run(spec, shares=(stage.share(1),))
    refused = stage.server.wait_heard(key, seen.Unplaceable)
    assert (refused.final, refused.reason.code) == (True, ReasonCode.NOT_RETRIABLE)
    assert "data.columns.label.max: label must be at most 0: 100 rows, the first 1" in refused.reason.message
    assert "images.parquet rows 1, 3, 5, 7, 9" in refused.reason.message
    assert not stage.server.heard(key, seen.Placed)
    assert not list((tmp_path / "out").glob("*/manifest.json"))


def test_an_agent_that_dies_meanwhile_changes_nothing(stage: Stage, tmp_path: Path) -> None:
    source = images(tmp_path)
    with held(source, tmp_path / "out"):
        key = stage.run(training(source, tmp_path / "out"))
        stage.server.wait("a word of it", lambda: preparing(stage, key))
        (process,) = stage.ranks()
        stage.agent.kill()
        count = len(stage.server.hellos)
        stage.agent = stage.start_agent()
        stage.wait_attached(count + 1)
        stage.server.wait("the new agent's word", lambda: len(preparing(stage, key)) == 2)
        assert stage.ranks() == [process], "it went on, and the new agent has joined it"
    assert "another process prepares the same data" in preparing(stage, key)[-1]
    assert stage.server.wait_ended(key).outcome == "succeeded"


@pytest.mark.parametrize("kind", ["cancel", "preempt"])
def test_a_run_is_stopped_meanwhile_without_having_been_placed(stage: Stage, tmp_path: Path, kind: str) -> None:
    source = images(tmp_path)
    with held(source, tmp_path / "out"):
        key = stage.run(training(source, tmp_path / "out"))
        stage.server.wait("a word of it", lambda: preparing(stage, key))
        stage.server.stop(key, kind)
        ended = stage.server.wait_ended(key)
        assert ended.outcome == {"cancel": "cancelled", "preempt": "preempted"}[kind]
        assert ended.ledger.total_ns == 0
        stage.server.forget(key)
        stage.server.wait("no process is left", lambda: not stage.ranks())
    assert not stage.server.heard(key, seen.Placed)


def test_time_spent_preparing_counts_against_the_runs_deadline(stage: Stage, tmp_path: Path) -> None:
    source = images(tmp_path)
    with held(source, tmp_path / "out"):
        key = stage.run(training(source, tmp_path / "out"), remaining_s=1.0)
        ended = stage.server.wait_ended(key)
    assert (ended.outcome, ended.reason.message) == ("deadline", "max_duration has passed")
    assert not stage.server.heard(key, seen.Placed)


def test_a_preparation_that_is_killed_is_a_failure_within_the_runs_budget(stage: Stage, tmp_path: Path) -> None:
    source = images(tmp_path)
    with held(source, tmp_path / "out"):
        key = stage.run(training(source, tmp_path / "out"))
        stage.server.wait("a word of it", lambda: preparing(stage, key))
        (process,) = stage.ranks()
        process.kill()
        ended = stage.server.wait_ended(key)
    assert ended.outcome == "lost"
    assert ended.failure is not None
    assert ended.failure.kind == "killed"
    assert "The preparation of data on" in ended.failure.message
    assert "SIGKILL" in ended.failure.message
