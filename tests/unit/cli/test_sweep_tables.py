"""How sweeps are shown and exported."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet
from rich.console import Console, RenderableType

from orchestrator.cli import sweep_tables
from orchestrator.cli.sweep import _write
from orchestrator.core.sweeps import Stage, Sweep, Trial, TrialState

NOW = 1100.0


def trial(number: int, *values: float, **changes: Any) -> Trial:
    point = {"train.lr": 0.1 * (number + 1), "train.clip": None if number else "auto"}
    known = {"submitted_at": 1000.0, "started_at": 1002.5, "ended_at": 1010.0, "run_id": f"run-{number}"}
    return Trial(
        number, point, curve=tuple(enumerate(values, 1)), **{"state": TrialState.COMPLETED, **known, **changes}
    )


TRIALS = (
    trial(0, 0.5, 0.7, seconds={"training": 4.0}, cost=0.5),
    trial(1, 0.9),
    trial(2, state=TrialState.INFEASIBLE, reason="no such batch", started_at=None),
    trial(3, 0.6, state=TrialState.RUNNING, ended_at=None),
)
SPACE = {"train.lr": {"log": [0.001, 1.0]}, "train.clip": {"choice": [1, "auto"], "when": {"a.b": 1}}}
SWEEP = Sweep("run-s", "p", "digits", "RUNNING", "it searches", "m", "max", "tpe", "asha", 8, SPACE, TRIALS, 2, "USD")


def drawn(what: RenderableType) -> str:
    console = Console(width=240, record=True, file=io.StringIO())
    console.print(what)
    return console.export_text()


def test_trials_are_ranked_by_their_best_and_those_without_a_value_come_last() -> None:
    assert [each.number for each in sweep_tables.ranked(SWEEP)] == [1, 0, 3, 2]


def test_a_description_tells_space_progress_and_best() -> None:
    text = drawn(sweep_tables.description(SWEEP, NOW))
    for words in (
        "m (max) by tpe, scheduler asha",
        "train.lr log [0.001, 1.0]",
        "when {'a.b': 1}",
        "4 of 8: 1 running, 2 completed, 1 infeasible",
        "trial 1: m 0.9 with train.lr=0.2",
        "0.5 USD",
        "no such batch",
    ):
        assert words in text
    assert sweep_tables.progress_line(SWEEP, NOW).startswith(
        "trials 3/8  1 running  1 infeasible  best m 0.9 (trial 1)"
    )


def test_an_export_has_a_row_a_trial_with_point_value_and_times(tmp_path: Path) -> None:
    rows = sweep_tables.rows(SWEEP)
    _write(tmp_path / "t.csv", rows)
    _write(tmp_path / "t.parquet", rows)
    with (tmp_path / "t.csv").open() as file:
        read = list(csv.DictReader(file))
    assert [each["trial"] for each in read] == ["0", "1", "2", "3"]
    assert (read[0]["m"], read[0]["start_s"], read[0]["training_s"], read[0]["cost"]) == ("0.7", "2.5", "4.0", "0.5")
    assert (read[2]["m"], read[2]["state"], read[2]["reason"]) == ("", "infeasible", "no such batch")
    table = pyarrow.parquet.read_table(tmp_path / "t.parquet").to_pylist()
    assert table[0]["train.lr"] == 0.1
    assert table[3]["took_s"] is None


DESCENDANT = trial(
    4, 0.2, 0.8, generation=2, stages=(Stage({}), Stage({}, "/a/run-1/x", 3, 1), Stage({}, "/a/run-0/x", 5, 0))
)


def test_a_trial_that_went_on_from_others_says_from_whom_and_others_have_no_such_column() -> None:
    changed = replace(SWEEP, trials=(*TRIALS, DESCENDANT))
    text = drawn(sweep_tables.description(changed, NOW))
    assert "GENERATION" in text
    assert "2: from trial 1 at report 2, from trial 0 at report 4" in text
    assert "GENERATION" not in drawn(sweep_tables.description(SWEEP, NOW))
    assert [(row["generation"], row["parent"]) for row in sweep_tables.rows(changed)][-2:] == [(0, None), (2, 0)]
