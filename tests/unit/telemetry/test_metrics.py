from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from orchestrator import spec
from orchestrator.core import lifecycle
from orchestrator.core.ledger import Ledger, TimeClass
from orchestrator.core.monitors import Figures, Judgement, Watched
from orchestrator.core.observations import (
    CheckpointSealed,
    FirstStep,
    Happening,
    IncarnationFailed,
    IncarnationStarted,
    Observation,
    Progress,
)
from orchestrator.core.runs import Lineage, Reason, ReasonCode, Run, Spent
from orchestrator.core.sweeps import Sweep, Trial, TrialState
from orchestrator.settings import Settings
from orchestrator.telemetry.metrics import FEATURES_SHOWN, MONITORS_SHOWN, TABLE, Metrics
from tests.builders import SHARES, attempt_ended, changed, failure, hear, queued_run

SPEC = spec.dump(
    spec.parse('{"name": "digits", "recipe": "digits_cnn", "train": {"epochs": 1}, "resources": {"workers": 2}}')
)


class Exporter:
    """Metrics whose time is moved by hand."""

    def __init__(self, **settings: Any) -> None:
        self.at_s = 1000.0
        made = Settings(data_dir=Path("/nowhere"), metrics_grace_s=60.0, **settings)
        self.metrics = Metrics(made, now=lambda: self.at_s, monotonic_ns=lambda: int(self.at_s * 1e9))

    def samples(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        families = text_string_to_metric_families(self.metrics.render().decode())
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in families
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float | None:
        return next(
            (
                value
                for (found, has), value in self.samples().items()
                if found == name and labels.items() <= dict(has).items()
            ),
            None,
        )


@pytest.fixture
def exporter() -> Exporter:
    return Exporter()


def placed(number: int = 1) -> Run:
    queued = queued_run(run_id=f"run-{number}", submitted_at=990.0, spec=SPEC)
    return changed(lifecycle.place(queued, "local", SHARES, 1000.0))


def training(number: int = 1) -> Run:
    return hear(hear(placed(number), IncarnationStarted(1, 2)), FirstStep(1, 1))


def said(run: Run, what: Happening) -> Observation:
    return Observation(run.id, 1, 1, 1000.0, what)


def progress(run: Run, **changes: Any) -> Progress:
    return Progress(run.id, 1, 1, "training", 1000.0, **changes)


def sweep() -> Sweep:
    trials = (
        Trial(0, {}, TrialState.COMPLETED, curve=((1, 0.5), (2, 0.9)), cost=2.0),
        Trial(1, {}, TrialState.RUNNING, curve=((1, 0.7),), cost=1.0),
    )
    return Sweep("run-s", "default", "s", "RUNNING", "", "m", "max", "tpe", "asha", 4, {}, trials, room=3)


def test_names_follow_the_rules() -> None:
    for each in TABLE:
        assert re.fullmatch(r"evertrain_[a-z_]+", each.name)
        assert each.help.endswith(".")
        assert (each.kind == "counter") == each.name.endswith("_total")
        assert not each.name.endswith(("_ms", "_mb", "_percent", "_count"))
    assert len({each.name for each in TABLE}) == len(TABLE)


def test_everything_in_the_table_is_exported_and_nothing_else(exporter: Exporter) -> None:
    run = training()
    exporter.metrics.track(run)
    sealed = CheckpointSealed(1, "/seal", 10, 4096, 0.1, 0.4)
    for what in (sealed, FirstStep(1, 10, 1.5)):
        exporter.metrics.observe(run, said(run, what))
    exporter.metrics.progress(progress(run, loss=0.5, ledger=Ledger({TimeClass.TRAINING: 10**9})))
    exporter.metrics.sweeps([sweep()])
    exporter.metrics.monitors([watched()])
    found = {re.sub(r"_(bucket|count|sum|created)$", "", name) for name, _ in exporter.samples()}
    assert found == {each.name for each in TABLE}


def test_counts_by_state_have_every_state(exporter: Exporter) -> None:
    exporter.metrics.state_counts({"QUEUED": 7, "RUNNING": 2})
    assert exporter.value("evertrain_runs", state="QUEUED") == 7
    assert exporter.value("evertrain_runs", state="FAILED") == 0
    assert exporter.value("evertrain_queue_depth") == 7


def test_a_runs_state_is_one_of_zeros_and_a_one(exporter: Exporter) -> None:
    exporter.metrics.track(placed())
    values = [value for (name, _), value in exporter.samples().items() if name == "evertrain_run_state"]
    assert sorted(values) == [0.0] * 6 + [1.0]
    assert exporter.value("evertrain_run_state", state="STARTING", run="run-1") == 1


def test_progress_is_shown(exporter: Exporter) -> None:
    run = training()
    exporter.metrics.track(run)
    exporter.metrics.progress(progress(run, step=42, step_s=0.25, samples_per_s=512.0, loss=0.5))
    shown = {name: exporter.value(f"evertrain_run_{name}") for name in ("step", "step_seconds", "loss")}
    assert shown == {"step": 42, "step_seconds": 0.25, "loss": 0.5}
    assert exporter.value("evertrain_run_samples_per_second") == 512


def not_training() -> dict[str, Run]:
    run = training()
    failed = IncarnationFailed(1, failure(), True, Reason(ReasonCode.RESTARTING_IN_PLACE, "again"), Spent(1), 7)
    queued = hear(run, attempt_ended("lost"))
    again = changed(lifecycle.place(queued, "local", SHARES, 1030.0))
    second = hear(hear(again, IncarnationStarted(1, 2), now=1030.0), FirstStep(1, 8), now=1031.0)
    return {
        "recovering": hear(run, failed),
        "queued": queued,
        "starting": again,
        "of another attempt": second,
        "ended": hear(run, attempt_ended("succeeded")),
    }


@pytest.mark.parametrize("later", not_training().values(), ids=not_training().keys())
def test_a_run_that_does_not_train_has_no_speed_and_no_loss(exporter: Exporter, later: Run) -> None:
    exporter.metrics.track(training())
    exporter.metrics.progress(progress(later, step=42, step_s=0.25, samples_per_s=512.0, loss=0.5))
    assert exporter.value("evertrain_run_loss") == 0.5
    exporter.metrics.track(later)
    shown = {name for name, _ in exporter.samples()}
    names = ("step", "step_seconds", "samples_per_second", "loss")
    assert not shown & {f"evertrain_run_{name}" for name in names}
    assert "evertrain_run_state" in shown


def test_recoveries_and_checkpoints_are_counted(exporter: Exporter) -> None:
    run = placed()
    exporter.metrics.observe(run, said(run, FirstStep(1, 1)))
    exporter.metrics.observe(run, said(run, FirstStep(2, 10, 1.5)))
    exporter.metrics.observe(run, said(run, CheckpointSealed(2, "/seal", 10, 4096, 0.1, 0.4)))
    assert exporter.value("evertrain_recovery_seconds_count") == 1
    assert exporter.value("evertrain_recovery_seconds_sum") == 1.5
    assert exporter.value("evertrain_checkpoint_seconds_sum") == 0.4
    assert exporter.value("evertrain_checkpoint_stall_seconds_sum") == 0.1
    assert exporter.value("evertrain_run_checkpoint_bytes", run="run-1") == 4096


def test_the_time_classes_add_up_to_all_worker_seconds(exporter: Exporter) -> None:
    run = placed()
    exporter.metrics.track(run)
    exporter.at_s = 1010.0
    exporter.metrics.progress(progress(run, ledger=Ledger({TimeClass.TRAINING: 8 * 10**9})))
    times = [value for (name, _), value in exporter.samples().items() if name == "evertrain_run_time_seconds"]
    assert len(times) == len(TimeClass)
    assert sum(times) == pytest.approx(2 * 20.0)
    assert exporter.value("evertrain_run_goodput_ratio") == pytest.approx(8 / 40)


def test_a_finished_runs_series_go_after_a_grace(exporter: Exporter) -> None:
    run = placed()
    exporter.metrics.track(run)
    exporter.metrics.track(ended_of(run))
    exporter.at_s += 59
    assert exporter.value("evertrain_run_state", run="run-1", state="CANCELLED") == 1
    exporter.at_s += 2
    assert exporter.value("evertrain_run_state", run="run-1") is None


def ended_of(run: Run) -> Run:
    """The run as it is once its cancelled attempt has ended."""
    cancelled = changed(lifecycle.cancel(queued_run(run_id=run.id), by="ada", message="", now=1000.0))
    return replace(cancelled, attempts=run.attempts)


def test_the_grace_begins_at_the_end_and_not_at_the_last_word(exporter: Exporter) -> None:
    run = placed()
    exporter.metrics.track(ended_of(run))
    exporter.at_s += 50
    exporter.metrics.track(ended_of(run))
    exporter.at_s += 11
    assert exporter.value("evertrain_run_state", run="run-1") is None


def test_a_queued_run_has_no_series_of_its_own(exporter: Exporter) -> None:
    exporter.metrics.track(queued_run())
    exporter.metrics.progress(Progress("run-unknown", 1, 1, "training", 0.0))
    assert exporter.value("evertrain_run_state") is None


def test_the_number_of_series_is_bounded_and_ended_runs_go_first() -> None:
    exporter = Exporter(metrics_runs=3)
    exporter.metrics.track(placed(1))
    exporter.metrics.track(ended_of(placed(2)))
    exporter.metrics.track(placed(3))
    exporter.metrics.track(placed(4))
    shown = {dict(labels)["run"] for name, labels in exporter.samples() if name == "evertrain_run_state"}
    assert shown == {"run-1", "run-3", "run-4"}
    exporter.metrics.track(placed(5))
    shown = {dict(labels)["run"] for name, labels in exporter.samples() if name == "evertrain_run_state"}
    assert shown == {"run-3", "run-4", "run-5"}


def test_with_more_living_runs_than_series_a_word_of_one_does_not_take_those_of_another() -> None:
    exporter = Exporter(metrics_runs=3)
    for number in range(1, 6):
        exporter.metrics.track(placed(number))
    assert exporter.metrics.living() == {"run-3", "run-4", "run-5"}
    assert exporter.metrics.room() == 0
    for number in (1, 2, 3, 1, 2):
        exporter.metrics.track(placed(number))
        assert exporter.metrics.living() == {"run-3", "run-4", "run-5"}
    exporter.metrics.track(ended_of(placed(4)))
    assert exporter.metrics.room() == 1
    exporter.metrics.track(placed(1))
    assert exporter.metrics.living() == {"run-1", "run-3", "run-5"}


def test_a_living_sweep_has_series_and_one_that_ended_has_none(exporter: Exporter) -> None:
    exporter.metrics.sweeps([sweep()])
    assert exporter.value("evertrain_sweep_trials", sweep="run-s", state="running") == 1
    assert exporter.value("evertrain_sweep_best", sweep="run-s") == 0.9
    assert exporter.value("evertrain_sweep_room", sweep="run-s") == 3
    assert exporter.value("evertrain_sweep_cost", sweep="run-s") == 3.0
    assert exporter.value("evertrain_sweep_trial_cost", sweep="run-s") == 2.0
    exporter.metrics.sweeps([])
    assert exporter.value("evertrain_sweep_room", sweep="run-s") is None


def test_the_start_of_a_trial_is_counted_once(exporter: Exporter) -> None:
    lineage = Lineage("run-s", 0)
    queued = queued_run(run_id="run-t", submitted_at=990.0, spec=SPEC, kind="trial", lineage=lineage)
    run = changed(lifecycle.place(queued, "local", SHARES, 1000.0))
    exporter.metrics.observe(run, Observation(run.id, 1, 1, 993.0, FirstStep(1, 1)))
    exporter.metrics.observe(run, Observation(run.id, 2, 1, 999.0, FirstStep(1, 1)))
    assert exporter.value("evertrain_trial_start_seconds_count") == 1
    assert exporter.value("evertrain_trial_start_seconds_sum") == 3.0


def watched(model: str = "digits", features: int = 2) -> Watched:
    tests = [
        {"feature": f"pixel{number}", "tests": {"ks": [0.3 - number / 100, 1e-9], "psi": [0.5, 1e-9]}}
        for number in range(features)
    ]
    performance = {"labels": 40, "error_rate": 0.25, "estimated_accuracy": 0.9}
    evidence = {"features": tests, "performance": performance}
    judged = Judgement(4, 900.0, 800.0, 890.0, 500, "drift", 2, "drift: pixel0", evidence)
    figures = Figures(rows=2000, labels=40, late_rows=3, behind_rows=7)
    return Watched("default", model, {}, "run-1", 2, 1.0, "", "drift", "drift: pixel0", figures, judged)


def test_a_monitor_shows_what_it_judged_and_what_it_could_not(exporter: Exporter) -> None:
    exporter.metrics.monitors([watched()])
    assert exporter.value("evertrain_monitor_status", model="digits", status="drift") == 1
    assert exporter.value("evertrain_monitor_status", model="digits", status="blind") == 0
    assert exporter.value("evertrain_monitor_severity", model="digits") == 2
    assert exporter.value("evertrain_monitor_rows_total", model="digits") == 2000
    assert exporter.value("evertrain_monitor_left_out_total", reason="late_rows") == 3
    assert exporter.value("evertrain_monitor_behind_rows") == 7
    assert exporter.value("evertrain_monitor_error_ratio") == 0.25
    assert exporter.value("evertrain_monitor_estimated_accuracy_ratio") == 0.9
    assert exporter.value("evertrain_drift_effect", feature="pixel1") == 0.29


def test_series_of_monitors_and_of_their_features_are_bounded(exporter: Exporter) -> None:
    exporter.metrics.monitors([watched(f"model{number}", 50) for number in range(2 * MONITORS_SHOWN)])
    effects = [key for key in exporter.samples() if key[0] == "evertrain_drift_effect"]
    assert len(effects) == MONITORS_SHOWN * FEATURES_SHOWN
    exporter.metrics.monitors([])
    assert exporter.value("evertrain_monitor_rows_total") is None
