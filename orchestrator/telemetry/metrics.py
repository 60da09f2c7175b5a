"""Every metric that the server exports, in one table, and the values behind it.

Only runs that were given an attempt have series of their own, at most `metrics_runs` at a time; those of a finished run go
`metrics_grace_s` after its end. Whatever is labelled otherwise is labelled by a closed set: states, budgets, time classes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from orchestrator import spec
from orchestrator.core import lifecycle
from orchestrator.core.ledger import Ledger, TimeClass
from orchestrator.core.monitors import Watched
from orchestrator.core.observations import CheckpointSealed, FirstStep, Observation, Progress
from orchestrator.core.runs import STATE_NAMES, Run, Running
from orchestrator.core.sweeps import Sweep, TrialState
from orchestrator.settings import Settings

CONTENT_TYPE = CONTENT_TYPE_LATEST

SWEEPS_SHOWN = 100  # living sweeps with series of their own
MONITORS_SHOWN = 100
FEATURES_SHOWN = 10  # of each monitor
_STATUSES = ("waiting", "paused", "blind", "too_few", "stable", "suspected", "data_fault", "drift")
_DISTANCES = ("ks", "chi_squared")

_RUN = ("project", "run", "name")
_SWEEP = ("project", "sweep", "name")
_MONITOR = ("project", "model")
_SECONDS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0)


@dataclass(frozen=True)
class Exported:
    name: str
    kind: Literal["gauge", "counter", "histogram"]
    help: str
    labels: tuple[str, ...] = ()


TABLE: tuple[Exported, ...] = (
    Exported("evertrain_runs", "gauge", "Runs by state.", ("state",)),
    Exported("evertrain_queue_depth", "gauge", "Runs that wait for a place."),
    Exported("evertrain_run_state", "gauge", "1 for the state that the run is in, 0 for the others.", (*_RUN, "state")),
    Exported("evertrain_run_step", "gauge", "Optimizer steps done since the run's beginning.", _RUN),
    Exported("evertrain_run_step_seconds", "gauge", "Mean duration of the latest optimizer steps.", _RUN),
    Exported("evertrain_run_samples_per_second", "gauge", "Samples consumed a second by all ranks.", _RUN),
    Exported("evertrain_run_loss", "gauge", "Latest training loss.", _RUN),
    Exported("evertrain_run_restarts_total", "counter", "Restarts by the budget that they used.", (*_RUN, "budget")),
    Exported(
        "evertrain_run_time_seconds",
        "gauge",  # not a counter: time counts as starting until a coordinator has accounted for it
        "Worker-seconds since submission by class of the goodput ledger; they add up to all there were.",
        (*_RUN, "class"),
    ),
    Exported("evertrain_run_goodput_ratio", "gauge", "Share of all worker-seconds that trained something new.", _RUN),
    Exported("evertrain_run_checkpoint_bytes", "gauge", "Size of the newest sealed checkpoint.", _RUN),
    Exported("evertrain_recovery_seconds", "histogram", "From a failure to the next optimizer step."),
    Exported("evertrain_checkpoint_seconds", "histogram", "From a checkpoint's first byte to its committed manifest."),
    Exported("evertrain_checkpoint_stall_seconds", "histogram", "How long training waited for a checkpoint."),
    Exported("evertrain_sweep_trials", "gauge", "Trials of a living sweep by state.", (*_SWEEP, "state")),
    Exported("evertrain_sweep_best", "gauge", "The best value of the sweep's metric so far.", _SWEEP),
    Exported("evertrain_sweep_concurrency", "gauge", "Trials that hold workers now.", _SWEEP),
    Exported("evertrain_sweep_room", "gauge", "Trials that the clusters have room for.", _SWEEP),
    Exported("evertrain_sweep_cost", "gauge", "What all trials have cost, in the server's currency.", _SWEEP),
    Exported("evertrain_sweep_trial_cost", "gauge", "Mean cost of the trials that have ended.", _SWEEP),
    Exported("evertrain_trial_start_seconds", "histogram", "From a trial's submission to its first optimizer step."),
    Exported(
        "evertrain_monitor_status",
        "gauge",
        "1 for what the monitor's newest window was judged to be, 0 for the others.",
        (*_MONITOR, "status"),
    ),
    Exported("evertrain_monitor_severity", "gauge", "Of the newest judgement: 0 none to 3 major.", _MONITOR),
    Exported(
        "evertrain_monitor_reference_version", "gauge", "The version that live data are judged against.", _MONITOR
    ),
    Exported(
        "evertrain_monitor_judged_at_seconds", "gauge", "When the newest judgement was made, Unix time.", _MONITOR
    ),
    Exported("evertrain_monitor_rows_total", "counter", "Rows that were taken in.", _MONITOR),
    Exported("evertrain_monitor_labels_total", "counter", "Labels that were joined with an answer.", _MONITOR),
    Exported(
        "evertrain_monitor_left_out_total",
        "counter",
        "Rows, labels, values and batches that could not be judged, by why.",
        (*_MONITOR, "reason"),
    ),
    Exported("evertrain_monitor_behind_rows", "gauge", "Rows that wait to be judged.", _MONITOR),
    Exported(
        "evertrain_monitor_error_ratio", "gauge", "Wrong answers among the labels of the newest window.", _MONITOR
    ),
    Exported(
        "evertrain_monitor_estimated_accuracy_ratio",
        "gauge",
        "Right answers in the newest window, as the model's confidence has it.",
        _MONITOR,
    ),
    Exported(
        "evertrain_drift_effect",
        "gauge",
        "Distance of a feature's distribution from the reference's, of the features that differ most.",
        (*_MONITOR, "feature"),
    ),
)
_BY_NAME = {each.name: each for each in TABLE}


@dataclass
class _Series:
    """What the series of one run are computed from."""

    run: Run
    ended_ns: int | None = None
    progress: Progress | None = None
    checkpoint_bytes: int | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        return self.run.project, self.run.id, self.run.name

    @property
    def current(self) -> Progress | None:
        """What was last said of the attempt that trains now: a run that waits or recovers has no speed and no loss."""
        attempt, progress = self.run.attempt, self.progress
        if progress is None or attempt is None or progress.attempt != attempt.number:
            return None
        return progress if isinstance(self.run.state, Running) else None

    def stays(self) -> tuple[bool, float, str]:
        """Sorts by what is dropped first where there are too many."""
        return self.ended_ns is None, self.run.attempts[-1].started_at, self.run.id


class Metrics:
    """Safe from several threads; nothing here blocks."""

    def __init__(
        self,
        settings: Settings,
        *,
        now: Callable[[], float] = time.time,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._now, self._monotonic_ns = now, monotonic_ns
        self._grace_ns = int(settings.metrics_grace_s * 1e9)
        self._max_runs = settings.metrics_runs
        self._lock = threading.Lock()
        self._series: dict[str, _Series] = {}
        self._states: Mapping[str, int] = {}
        self._sweeps: Sequence[Sweep] = ()
        self._monitors: Sequence[Watched] = ()
        self._registry = CollectorRegistry(auto_describe=False)
        self._histograms = {
            each.name: Histogram(each.name, each.help, registry=self._registry, buckets=_SECONDS)
            for each in TABLE
            if each.kind == "histogram"
        }
        self._registry.register(_Collector(self))

    def state_counts(self, counts: Mapping[str, int]) -> None:
        """How many runs are in each state."""
        with self._lock:
            self._states = dict(counts)

    def sweeps(self, living: Sequence[Sweep]) -> None:
        """The sweeps that have series from now on; those of all others go."""
        with self._lock:
            self._sweeps = tuple(living[:SWEEPS_SHOWN])

    def monitors(self, watched: Sequence[Watched]) -> None:
        """The monitors that have series from now on."""
        with self._lock:
            self._monitors = tuple(watched[:MONITORS_SHOWN])

    def track(self, run: Run) -> None:
        """Take in a run as the store has it now; one that never had an attempt has no series."""
        if not run.attempts:
            return
        now_ns = self._monotonic_ns()
        with self._lock:
            series = self._series.setdefault(run.id, _Series(run))
            series.run = run
            if run.terminal and series.ended_ns is None:
                series.ended_ns = now_ns
            self._tidy(now_ns)

    def living(self) -> set[str]:
        """Ids of the runs with series that had not ended when they were last taken in."""
        with self._lock:
            return {run_id for run_id, each in self._series.items() if each.ended_ns is None}

    def room(self) -> int:
        """How many more living runs may have series."""
        return max(0, self._max_runs - len(self.living()))

    def observe(self, run: Run, observation: Observation) -> None:
        """Count what a cluster said, once, and the run that it made."""
        self.track(run)
        match observation.what:
            case FirstStep(recovery_s=float(seconds)):
                self._histograms["evertrain_recovery_seconds"].observe(seconds)
            case FirstStep() if run.kind == "trial" and observation.attempt == 1:
                waited_s = max(0.0, observation.at - run.submitted_at)
                self._histograms["evertrain_trial_start_seconds"].observe(waited_s)
            case CheckpointSealed() as sealed:
                self._histograms["evertrain_checkpoint_seconds"].observe(sealed.seconds)
                self._histograms["evertrain_checkpoint_stall_seconds"].observe(sealed.stall_s)
                with self._lock:
                    if run.id in self._series:
                        self._series[run.id].checkpoint_bytes = sealed.size_bytes
            case _:
                pass

    def progress(self, progress: Progress) -> None:
        """Of a run that was tracked before; of others nobody knows the name."""
        with self._lock:
            series = self._series.get(progress.run_id)
            if series is not None:
                series.progress = progress

    def render(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Family]:
        now_ns, now = self._monotonic_ns(), self._now()
        with self._lock:
            self._tidy(now_ns)
            states, series, sweeps = dict(self._states), list(self._series.values()), self._sweeps
            monitors = self._monitors
        families = {each.name: _family(each) for each in TABLE if each.kind != "histogram"}
        for state in STATE_NAMES:
            families["evertrain_runs"].add_metric((state,), states.get(state, 0))
        families["evertrain_queue_depth"].add_metric((), states.get("QUEUED", 0))
        for each in series:
            for name, extra, value in _values(each, now):
                families[name].add_metric((*each.labels, *extra), value)
        for sweep in sweeps:
            for name, extra, value in _of_a_sweep(sweep):
                families[name].add_metric((sweep.project, sweep.id, sweep.name, *extra), value)
        for watched in monitors:
            for name, extra, value in _of_a_monitor(watched):
                families[name].add_metric((watched.project, watched.model, *extra), value)
        yield from families.values()

    def _tidy(self, now_ns: int) -> None:
        over = [
            run_id
            for run_id, each in self._series.items()
            if each.ended_ns is not None and now_ns - each.ended_ns > self._grace_ns
        ]
        for run_id in over:
            del self._series[run_id]
        excess = len(self._series) - self._max_runs
        if excess > 0:
            # Those that ended go first, then those placed the longest time ago. Not those last heard of: with more living
            # runs than series every word of one would take the series of another.
            order = sorted(self._series.values(), key=_Series.stays)
            for each in order[:excess]:
                del self._series[each.run.id]


class _Collector(Collector):
    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Family]:
        return self._metrics.collect()


def _family(exported: Exported) -> GaugeMetricFamily | CounterMetricFamily:
    make = CounterMetricFamily if exported.kind == "counter" else GaugeMetricFamily
    return make(exported.name, exported.help, labels=exported.labels)


def _values(series: _Series, now: float) -> Iterator[tuple[str, tuple[str, ...], float]]:
    """(metric, labels beyond the run's own, value)"""
    run, progress = series.run, series.progress
    for state in STATE_NAMES:
        yield "evertrain_run_state", (state,), float(run.state.kind == state)
    for budget in ("application", "infrastructure", "preemption"):
        yield "evertrain_run_restarts_total", (budget,), getattr(run.spent, budget)
    ledger = _ledger(run, progress, now)
    for time_class in TimeClass:
        yield "evertrain_run_time_seconds", (time_class.value,), ledger.seconds(time_class)
    if ledger.goodput is not None:
        yield "evertrain_run_goodput_ratio", (), ledger.goodput
    if series.checkpoint_bytes is not None:
        yield "evertrain_run_checkpoint_bytes", (), series.checkpoint_bytes
    now_training = series.current
    if now_training is None:
        return
    yield "evertrain_run_step", (), now_training.step
    yield "evertrain_run_step_seconds", (), now_training.step_s
    yield "evertrain_run_samples_per_second", (), now_training.samples_per_s
    if now_training.loss is not None:
        yield "evertrain_run_loss", (), now_training.loss


def _of_a_sweep(sweep: Sweep) -> Iterator[tuple[str, tuple[str, ...], float]]:
    for state, number in sweep.counts.items():
        yield "evertrain_sweep_trials", (state.value,), number
    yield "evertrain_sweep_concurrency", (), sweep.counts[TrialState.RUNNING]
    yield "evertrain_sweep_room", (), sweep.room
    best = sweep.best
    if best is not None and (value := best.best(sweep.mode)) is not None:
        yield "evertrain_sweep_best", (), value
    if sweep.cost is not None:
        yield "evertrain_sweep_cost", (), sweep.cost
    costs = [each.cost for each in sweep.trials if each.cost is not None and not each.live]
    if costs:
        yield "evertrain_sweep_trial_cost", (), sum(costs) / len(costs)


def _of_a_monitor(watched: Watched) -> Iterator[tuple[str, tuple[str, ...], float]]:
    figures, newest = watched.figures, watched.newest
    for status in _STATUSES:
        yield "evertrain_monitor_status", (status,), float(watched.status == status)
    yield "evertrain_monitor_reference_version", (), watched.reference
    yield "evertrain_monitor_rows_total", (), figures.rows
    yield "evertrain_monitor_labels_total", (), figures.labels
    yield "evertrain_monitor_behind_rows", (), figures.behind_rows
    for reason in ("unknown_labels", "late_rows", "other_versions", "wrong_kind", "malformed"):
        yield "evertrain_monitor_left_out_total", (reason,), getattr(figures, reason)
    if newest is None:
        return
    yield "evertrain_monitor_severity", (), newest.severity
    yield "evertrain_monitor_judged_at_seconds", (), newest.at
    performance = newest.evidence.get("performance", {})
    for name, key in (("error", "error_rate"), ("estimated_accuracy", "estimated_accuracy")):
        if key in performance:
            yield f"evertrain_monitor_{name}_ratio", (), performance[key]
    for each in newest.evidence.get("features", ())[:FEATURES_SHOWN]:
        distances = [each["tests"][name][0] for name in _DISTANCES if name in each["tests"]]
        yield "evertrain_drift_effect", (each["feature"],), max(distances, default=0.0)


def _ledger(run: Run, progress: Progress | None, now: float) -> Ledger:
    workers = spec.stored_shape(run.spec).workers
    current = run.attempt.number if run.attempt else None
    live = progress.ledger if progress is not None and progress.attempt == current else None
    return lifecycle.ledger(run, workers=workers, now=now, live=live)
