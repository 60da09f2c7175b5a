from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families

from orchestrator import spec
from orchestrator.control.board import QueueView
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
    Placed,
    Progress,
    RankProgress,
)
from orchestrator.core.runs import Incarnation, Lineage, Reason, ReasonCode, Run, Spent
from orchestrator.core.scheduling.admission import ClusterView
from orchestrator.core.sweeps import Sweep, Trial, TrialState
from orchestrator.settings import Settings
from orchestrator.telemetry.metrics import MONITORS_SHOWN, TABLE, Metrics, ServerView
from orchestrator.telemetry.series import FEATURES_SHOWN, METRICS_SHOWN
from tests.builders import SHARES, attempt_ended, changed, failure, hear, node, queued_run

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


def cluster(connected: bool = True) -> ClusterView:
    nodes = (node("a", cpu=4, gpu=1), replace(node("b", cpu=8, gpu=1), free_cpu=2.0, free_gpu=0.0))
    return ClusterView("local", "*", connected, False, nodes)


def failed_once() -> Run:
    """It lost a rank, and trains again."""
    again = Reason(ReasonCode.RESTARTING_IN_PLACE, "again")
    run = hear(training(), IncarnationFailed(1, failure(), True, again, Spent(1), 7))
    return hear(hear(run, IncarnationStarted(2, 2)), FirstStep(2, 8, 1.5))


def everything() -> Exporter:
    """All that can be seen of one server, at once."""
    exporter, run = Exporter(price_cpu_hour=3.6), failed_once()
    exporter.metrics.track(run)
    for what in (CheckpointSealed(1, "/seal", 10, 4096, 0.1, 0.4), FirstStep(1, 10, 1.5)):
        exporter.metrics.observe(run, said(run, what))
    account = Ledger({TimeClass.TRAINING: 10**9})
    rank = RankProgress(1, step=7, step_s=0.5, silent_s=0.25)
    metrics = {"val_loss": 0.4}
    exporter.metrics.progress(progress(run, loss=0.5, total_steps=100, metrics=metrics, ledger=account, ranks=(rank,)))
    exporter.metrics.sweeps([sweep()])
    exporter.metrics.monitors([watched()])
    exporter.metrics.clusters([(cluster(), 990.0)])
    exporter.metrics.queue(QueueView({ReasonCode.WAITING_FOR_CAPACITY: 3}, 1, 400.0))
    exporter.metrics.server(ServerView(10**10, 10**9, 2000.0, {"paused": 1}, 995.0))
    return exporter


def test_names_follow_the_rules() -> None:
    for each in TABLE:
        assert re.fullmatch(r"evertrain_[a-z_]+", each.name)
        assert each.help.endswith(".")
        assert (each.kind == "counter") == each.name.endswith("_total")
        assert not each.name.endswith(("_ms", "_mb", "_percent", "_count"))
        assert (each.kind == "histogram") == bool(each.buckets)
        assert list(each.buckets) == sorted(each.buckets)
        words = each.name.removesuffix("_total").split("_")
        assert each.unit == (words[-1] if {"seconds", "bytes", "ratio"} & {words[-1]} else "")
    assert len({each.name for each in TABLE}) == len(TABLE)


def test_everything_in_the_table_is_exported_with_its_labels_and_nothing_else() -> None:
    found: dict[str, set[tuple[str, ...]]] = {}
    for name, labels in everything().samples():
        plain = tuple(key for key, _ in labels if key != "le")
        found.setdefault(re.sub(r"_(bucket|count|sum)$", "", name), set()).add(plain)
    assert found == {each.name: {tuple(sorted(each.labels))} for each in TABLE}


def test_both_formats_are_what_their_parsers_take_and_say_the_same() -> None:
    exporter = everything()
    text = exporter.metrics.render(in_openmetrics=True).decode()
    families = list(openmetrics_families(text))
    told = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }
    assert told == exporter.samples()
    units = {family.name: family.unit for family in families}
    assert units == {each.name.removesuffix("_total"): each.unit for each in TABLE}


def test_a_bucket_leads_to_the_run_that_was_measured() -> None:
    families = openmetrics_families(everything().metrics.render(in_openmetrics=True).decode())
    found = {
        (family.name, tuple(sorted(sample.exemplar.labels.items())), sample.exemplar.value)
        for family in families
        for sample in family.samples
        if sample.exemplar is not None
    }
    assert ("evertrain_recovery_seconds", (("project", "default"), ("run", "run-1")), 1.5) in found


@pytest.mark.parametrize("odd", ['quoted "name"', "back\\slash", "two\nlines", "naïve, {braces}=1"])
def test_labels_hold_whatever_people_write(exporter: Exporter, odd: str) -> None:
    exporter.metrics.track(replace(placed(), name=odd))
    assert {dict(labels).get("name") for _, labels in exporter.samples()} == {None, odd}
    families = openmetrics_families(exporter.metrics.render(in_openmetrics=True).decode())
    assert any(sample.labels.get("name") == odd for family in families for sample in family.samples)


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_is_told_as_such(exporter: Exporter, loss: float) -> None:
    run = training()
    exporter.metrics.track(run)
    exporter.metrics.progress(progress(run, loss=loss))
    assert repr(exporter.value("evertrain_run_loss")) == repr(loss)


def lines(exporter: Exporter) -> int:
    return exporter.metrics.render().count(b"\n")


def test_ten_thousand_finished_runs_leave_the_number_of_series_where_it_was() -> None:
    exporter = Exporter(metrics_runs=200)
    run = training(0)
    exporter.metrics.track(run)
    exporter.metrics.observe(run, said(run, CheckpointSealed(1, "/seal", 10, 4096, 0.1, 0.4)))
    before, most = lines(exporter), 0
    for number in range(1, 10_001):
        exporter.at_s += 0.5
        run = training(number)
        exporter.metrics.observe(run, said(run, FirstStep(1, 1)))
        exporter.metrics.progress(progress(run, metrics={f"metric_{number}": 1.0}))
        exporter.metrics.observe(ended_of(run), said(run, attempt_ended("succeeded")))
        if number % 2_500 == 0:
            most = max(most, lines(exporter))
    assert most < 200 * (before + METRICS_SHOWN), "at most as many runs as there may be"
    exporter.at_s += 61
    assert lines(exporter) == before


def test_of_what_a_run_measures_only_some_has_series(exporter: Exporter) -> None:
    run = training()
    exporter.metrics.track(run)
    exporter.metrics.progress(progress(run, metrics={f"metric_{number:03}": 1.0 for number in range(500)}))
    assert sum(name == "evertrain_run_metric" for name, _ in exporter.samples()) == METRICS_SHOWN


def test_a_run_says_what_it_belongs_to_when_it_last_moved_and_what_it_costs() -> None:
    exporter, run = Exporter(price_cpu_hour=3600.0), failed_once()
    exporter.metrics.track(run)
    exporter.metrics.progress(progress(run, step=25, total_steps=100, silent_s=4.0, metrics={"val_loss": 0.4}))
    exporter.at_s = 1010.0
    info = {"cluster": "local", "queue": "default", "kind": "run", "sweep": "", "run": "run-1"}
    assert exporter.value("evertrain_run_info", **info) == 1
    assert exporter.value("evertrain_run_workers") == 2
    assert exporter.value("evertrain_run_started_timestamp_seconds") == 1000
    assert exporter.value("evertrain_run_progress_timestamp_seconds") == 996
    assert exporter.value("evertrain_run_progress_ratio") == 0.25
    assert exporter.value("evertrain_run_metric", metric="val_loss") == 0.4
    assert exporter.value("evertrain_run_failures_total", kind="application") == 1
    assert exporter.value("evertrain_run_cost") == pytest.approx(2 * 10.0), "waiting in the queue is free"
    assert exporter.value("evertrain_run_checkpoint_interval_seconds") == 60


def test_ranks_have_series_only_where_their_progress_was_asked_for(exporter: Exporter) -> None:
    run = training()
    exporter.metrics.track(run)
    exporter.metrics.progress(progress(run, step=7))
    assert exporter.value("evertrain_rank_step") is None
    ranks = (RankProgress(0, 7, 0.25, 0.0), RankProgress(1, 6, 0.5, 4.0))
    exporter.metrics.progress(progress(run, step=7, ranks=ranks))
    assert exporter.value("evertrain_rank_step", run="run-1", rank="1") == 6
    assert exporter.value("evertrain_rank_step_seconds", rank="1") == 0.5
    assert exporter.value("evertrain_rank_silent_seconds", rank="1") == 4.0


def test_without_prices_nothing_has_a_cost(exporter: Exporter) -> None:
    exporter.metrics.track(training())
    assert exporter.value("evertrain_run_cost") is None


def test_a_cluster_whose_agent_is_away_tells_only_that(exporter: Exporter) -> None:
    exporter.metrics.clusters([(cluster(), 990.0)])
    assert exporter.value("evertrain_cluster_up", cluster="local", project="*") == 1
    assert exporter.value("evertrain_cluster_cpus") == 12
    assert exporter.value("evertrain_cluster_free_cpus") == 6
    assert exporter.value("evertrain_cluster_free_gpus") == 1
    exporter.metrics.clusters([(cluster(connected=False), 990.0)])
    assert exporter.value("evertrain_cluster_up", cluster="local") == 0
    assert exporter.value("evertrain_cluster_seen_timestamp_seconds") == 990
    assert exporter.value("evertrain_cluster_cpus") is None


def test_the_wait_for_the_first_placement_is_measured_once(exporter: Exporter) -> None:
    run = placed()
    for attempt in (1, 2):
        exporter.metrics.observe(run, Observation(run.id, attempt, 0, 1000.5, Placed(SHARES, 0.5)))
    assert exporter.value("evertrain_queue_seconds_count") == 1
    assert exporter.value("evertrain_queue_seconds_sum") == 10.0


def test_a_clock_that_is_behind_makes_no_negative_start(exporter: Exporter) -> None:
    run = placed()
    exporter.metrics.observe(run, Observation(run.id, 1, 1, 900.0, FirstStep(1, 1)))
    assert exporter.value("evertrain_start_seconds_sum") == 0.0


def test_counts_by_state_have_every_state(exporter: Exporter) -> None:
    exporter.metrics.state_counts({"QUEUED": 7, "RUNNING": 2})
    assert exporter.value("evertrain_runs", state="QUEUED") == 7
    assert exporter.value("evertrain_runs", state="FAILED") == 0
    assert exporter.value("evertrain_queue_depth") == 7


def test_trials_that_wait_for_one_another_are_told_apart_from_the_queue(exporter: Exporter) -> None:
    waiting = {ReasonCode.WAITING_SLOT: 5, ReasonCode.WAITING_BEHIND: 2}
    exporter.metrics.queue(QueueView(waiting, 0, 1.0))
    assert exporter.value("evertrain_queue_depth") == 2
    assert exporter.value("evertrain_queue_reasons", reason="waiting_slot") == 5


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


def test_a_step_after_a_lost_attempt_is_a_recovery_and_the_start_of_another_attempt(exporter: Exporter) -> None:
    incarnation = Incarnation(1, 2, started_at=1100.0, recovery_s=70.0)
    run = placed()
    run = replace(run, attempts=(*run.attempts, replace(run.attempts[-1], number=2, incarnations=(incarnation,))))
    exporter.metrics.observe(run, said(run, FirstStep(1, 8)))
    assert exporter.value("evertrain_recovery_seconds_sum") == 70.0
    assert exporter.value("evertrain_start_seconds_count") == 1


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


def test_a_sweeps_own_run_has_no_time_no_cost_no_checkpoints_and_no_start() -> None:
    exporter = Exporter(price_cpu_hour=3.6)
    document = {**SPEC, "search": {"metric": "val_loss"}}
    queued = queued_run(run_id="run-s", submitted_at=990.0, spec=document, kind="sweep")
    run = changed(lifecycle.place(queued, "local", SHARES, 1000.0))
    run = hear(hear(run, IncarnationStarted(1, 1)), FirstStep(1, 0))
    assert run.state.kind == "RUNNING"
    for recovery_s in (None, 2.0):
        exporter.metrics.observe(run, said(run, FirstStep(1, 0, recovery_s)))
    exporter.at_s += 3600
    assert {name for name, labels in exporter.samples() if dict(labels).get("run") == "run-s"} == {
        "evertrain_run_info",
        "evertrain_run_restarts_total",
        "evertrain_run_started_timestamp_seconds",
        "evertrain_run_state",
    }
    assert exporter.value("evertrain_start_seconds_count") == exporter.value("evertrain_recovery_seconds_count") == 0


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
    jointly = [
        {"of": "all features together", "words": "", "test": "c2st", "effect": 0.2, "p": 1e-9, "n": 250, "m": 600}
    ]
    evidence = {"features": tests, "performance": performance, "together": jointly}
    judged = Judgement(4, 900.0, 800.0, 890.0, 500, "drift", 2, "drift: pixel0", evidence)
    figures = Figures(rows=2000, labels=40, late_rows=3, behind_rows=7)
    return Watched("default", model, {}, "run-1", 2, 1.0, "", "drift", "drift: pixel0", figures, judged)


def test_a_monitor_shows_what_it_judged_and_what_it_could_not(exporter: Exporter) -> None:
    exporter.metrics.monitors([watched()])
    assert exporter.value("evertrain_monitor_status", model="digits", status="drift") == 1
    assert exporter.value("evertrain_monitor_status", model="digits", status="blind") == 0
    assert exporter.value("evertrain_monitor_severity", model="digits") == 2
    assert exporter.value("evertrain_monitor_judged_timestamp_seconds", model="digits") == 900
    assert exporter.value("evertrain_monitor_rows_total", model="digits") == 2000
    assert exporter.value("evertrain_monitor_left_out_total", reason="late_rows") == 3
    assert exporter.value("evertrain_monitor_behind_rows") == 7
    assert exporter.value("evertrain_monitor_error_ratio") == 0.25
    assert exporter.value("evertrain_monitor_estimated_accuracy_ratio") == 0.9
    assert exporter.value("evertrain_drift_effect", feature="pixel1") == 0.29
    assert exporter.value("evertrain_drift_together_effect", of="all features together", test="c2st") == 0.2


def test_series_of_monitors_and_of_their_features_are_bounded(exporter: Exporter) -> None:
    exporter.metrics.monitors([watched(f"model{number}", 50) for number in range(2 * MONITORS_SHOWN)])
    effects = [key for key in exporter.samples() if key[0] == "evertrain_drift_effect"]
    assert len(effects) == MONITORS_SHOWN * FEATURES_SHOWN
    exporter.metrics.monitors([])
    assert exporter.value("evertrain_monitor_rows_total") is None
