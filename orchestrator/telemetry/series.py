"""What one run, one sweep, one monitor or one cluster looks like as series: (metric, labels beyond its own, value)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator import spec
from orchestrator.core import lifecycle, money
from orchestrator.core.ledger import TimeClass
from orchestrator.core.money import Prices
from orchestrator.core.monitors import Watched
from orchestrator.core.observations import Progress
from orchestrator.core.runs import STATE_NAMES, Run, Running
from orchestrator.core.scheduling.admission import ClusterView
from orchestrator.core.scheduling.fit import GangShape
from orchestrator.core.sweeps import Sweep, TrialState
from orchestrator.telemetry.exposition import labelled

Value = tuple[str, str, float]

FEATURES_SHOWN = 10  # of each monitor
METRICS_SHOWN = 10  # of what a run measures at the end of an epoch, under names that its task chose

_STATES = {state: labelled(("state",), (state,)) for state in STATE_NAMES}
_CLASSES = {each: labelled(("class",), (each.value,)) for each in TimeClass}
_STATUSES = {
    each: labelled(("status",), (each,))
    for each in ("waiting", "paused", "blind", "too_few", "stable", "suspected", "data_fault", "drift")
}
_LEFT_OUT = {
    each: labelled(("reason",), (each,))
    for each in ("unknown_labels", "late_rows", "other_versions", "wrong_kind", "malformed")
}
_DISTANCES = ("ks", "chi_squared")
_BUDGETS = {each: labelled(("budget",), (each,)) for each in ("application", "infrastructure", "preemption")}


@dataclass
class RunSeries:
    """What the series of one run are computed from."""

    run: Run
    shape: GangShape
    labels: str  # of every series of the run, as they are written
    ended: bool = False
    progress: Progress | None = None
    sealed: tuple[int, float] | None = None  # size and time of the newest checkpoint

    @classmethod
    def of(cls, run: Run) -> RunSeries:
        named = (run.project, run.id, run.name)
        return cls(run, spec.stored_shape(run.spec), labelled(("project", "run", "name"), named))

    @property
    def current(self) -> Progress | None:
        """What was last said of the attempt that trains now: a run that waits or recovers has no speed and no loss."""
        attempt, progress = self.run.attempt, self.progress
        if progress is None or attempt is None or progress.attempt != attempt.number:
            return None
        return progress if isinstance(self.run.state, Running) else None

    def stays(self) -> tuple[bool, float, str]:
        """Sorts by what is dropped first where there are too many."""
        return not self.ended, self.run.attempts[-1].started_at, self.run.id

    def values(self, now: float, prices: Prices) -> Iterator[Value]:
        yield "evertrain_run_info", _info(self.run), 1.0
        for state, label in _STATES.items():
            yield "evertrain_run_state", label, float(self.run.state.kind == state)
        for budget, label in _BUDGETS.items():
            yield "evertrain_run_restarts_total", label, getattr(self.run.spent, budget)
        for kind, number in _failures(self.run).items():
            yield "evertrain_run_failures_total", labelled(("kind",), (kind,)), number
        yield "evertrain_run_started_timestamp_seconds", "", self.run.attempts[-1].started_at
        if self.run.kind != "sweep":  # which holds no worker of its own, and trains and seals nothing
            yield from self._account(now, prices)
            yield from self._checkpoint()
        if (progress := self.current) is not None:
            yield from _of_training(progress)

    def _account(self, now: float, prices: Prices) -> Iterator[Value]:
        current = self.run.attempt.number if self.run.attempt else None
        if current is not None:
            yield "evertrain_run_workers", "", self.shape.workers
        live = self.progress.ledger if self.progress is not None and self.progress.attempt == current else None
        ledger = lifecycle.ledger(self.run, workers=self.shape.workers, now=now, live=live)
        for time_class, label in _CLASSES.items():
            yield "evertrain_run_time_seconds", label, ledger.seconds(time_class)
        if ledger.goodput is not None:
            yield "evertrain_run_goodput_ratio", "", ledger.goodput
        if (cost := money.cost(self.shape, prices, ledger)) is not None:
            yield "evertrain_run_cost", "", cost.amount

    def _checkpoint(self) -> Iterator[Value]:
        if self.sealed is not None:
            size_bytes, at = self.sealed
            yield "evertrain_run_checkpoint_bytes", "", size_bytes
            yield "evertrain_run_checkpoint_timestamp_seconds", "", at
        if isinstance(self.run.state, Running) and (every_s := _interval_s(self.run.spec)) is not None:
            yield "evertrain_run_checkpoint_interval_seconds", "", every_s


def _info(run: Run) -> str:
    cluster = run.attempts[-1].cluster
    sweep = run.lineage.sweep if run.lineage is not None else ""
    return labelled(("cluster", "queue", "kind", "sweep"), (cluster, run.queue, run.kind, sweep))


def _failures(run: Run) -> Mapping[str, int]:
    """Of all its incarnations, by kind."""
    return Counter(
        each.failure.kind.value for attempt in run.attempts for each in attempt.incarnations if each.failure is not None
    )


def _interval_s(document: Mapping[str, Any]) -> float | None:
    """Seconds between checkpoints, where the run file counts them so."""
    every = (document.get("checkpoint") or {}).get("every")
    return float(every) if isinstance(every, int | float) else None


def _of_training(progress: Progress) -> Iterator[Value]:
    yield "evertrain_run_step", "", progress.step
    yield "evertrain_run_step_seconds", "", progress.step_s
    yield "evertrain_run_samples_per_second", "", progress.samples_per_s
    yield "evertrain_run_progress_timestamp_seconds", "", progress.at - progress.silent_s
    if progress.total_steps:
        yield "evertrain_run_progress_ratio", "", progress.step / progress.total_steps
    if progress.loss is not None:
        yield "evertrain_run_loss", "", progress.loss
    for each in progress.ranks:
        label = labelled(("rank",), (str(each.rank),))
        yield "evertrain_rank_step", label, each.step
        yield "evertrain_rank_step_seconds", label, each.step_s
        yield "evertrain_rank_silent_seconds", label, each.silent_s
    for metric in sorted(progress.metrics)[:METRICS_SHOWN]:
        yield "evertrain_run_metric", labelled(("metric",), (metric,)), progress.metrics[metric]


def of_sweep(sweep: Sweep) -> Iterator[Value]:
    for state, number in sweep.counts.items():
        yield "evertrain_sweep_trials", labelled(("state",), (state.value,)), number
    yield "evertrain_sweep_concurrency", "", sweep.counts[TrialState.RUNNING]
    yield "evertrain_sweep_room", "", sweep.room
    best = sweep.best
    if best is not None and (value := best.best(sweep.mode)) is not None:
        yield "evertrain_sweep_best", "", value
    if sweep.cost is not None:
        yield "evertrain_sweep_cost", "", sweep.cost
    costs = [each.cost for each in sweep.trials if each.cost is not None and not each.live]
    if costs:
        yield "evertrain_sweep_trial_cost", "", sum(costs) / len(costs)


def of_monitor(watched: Watched) -> Iterator[Value]:
    figures, newest = watched.figures, watched.newest
    for status, label in _STATUSES.items():
        yield "evertrain_monitor_status", label, float(watched.status == status)
    yield "evertrain_monitor_reference_version", "", watched.reference
    yield "evertrain_monitor_rows_total", "", figures.rows
    yield "evertrain_monitor_labels_total", "", figures.labels
    yield "evertrain_monitor_behind_rows", "", figures.behind_rows
    for reason, label in _LEFT_OUT.items():
        yield "evertrain_monitor_left_out_total", label, getattr(figures, reason)
    if newest is None:
        return
    yield "evertrain_monitor_severity", "", newest.severity
    yield "evertrain_monitor_judged_timestamp_seconds", "", newest.at
    performance = newest.evidence.get("performance", {})
    for name, key in (("error", "error_rate"), ("estimated_accuracy", "estimated_accuracy")):
        if key in performance:
            yield f"evertrain_monitor_{name}_ratio", "", performance[key]
    for each in newest.evidence.get("together", ()):
        if "effect" in each:
            label = labelled(("of", "test"), (each["of"], each["test"]))
            yield "evertrain_drift_together_effect", label, each["effect"]
    for each in newest.evidence.get("features", ())[:FEATURES_SHOWN]:
        effect = max((each["tests"][name][0] for name in _DISTANCES if name in each["tests"]), default=0.0)
        yield "evertrain_drift_effect", labelled(("feature",), (each["feature"],)), effect


def of_cluster(cluster: ClusterView, seen_at: float) -> Iterator[Value]:
    """What it has is told only while its agent is attached: afterwards nobody knows."""
    yield "evertrain_cluster_up", "", float(cluster.connected)
    yield "evertrain_cluster_seen_timestamp_seconds", "", seen_at
    yield "evertrain_cluster_draining", "", float(cluster.draining)
    if not cluster.connected:
        return
    nodes = cluster.nodes
    yield "evertrain_cluster_nodes", "", len(nodes)
    yield "evertrain_cluster_cpus", "", sum(each.cpu for each in nodes)
    yield "evertrain_cluster_free_cpus", "", sum(each.free_cpu for each in nodes)
    yield "evertrain_cluster_gpus", "", sum(each.gpu for each in nodes)
    yield "evertrain_cluster_free_gpus", "", sum(each.free_gpu for each in nodes)
    yield "evertrain_cluster_memory_bytes", "", sum(each.memory for each in nodes)
    yield "evertrain_cluster_free_memory_bytes", "", sum(each.free_memory for each in nodes)
