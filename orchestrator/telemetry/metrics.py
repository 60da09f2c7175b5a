"""Every metric that the server exports, in one table, and the values behind it.

Names end in what they count: `_seconds`, `_bytes`, `_ratio`, counters in `_total`. Only runs that were given an attempt have
series of their own, at most `metrics_runs` at a time; those of a finished run go `metrics_grace_s` after its end. Whatever is
labelled otherwise is labelled by a closed set (states, budgets, time classes) or is cut at a fixed number. What leads from a
number to its run: the labels `project`, `run` and `name`, and of a histogram's bucket its exemplar.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Histogram, disable_created_metrics

from orchestrator.control.board import QueueView
from orchestrator.core.monitors import Watched
from orchestrator.core.observations import CheckpointSealed, FirstStep, Observation, Placed, Progress
from orchestrator.core.runs import STATE_NAMES, ReasonCode, Run
from orchestrator.core.scheduling.admission import BLOCK_AFTER_S, ClusterView
from orchestrator.core.sweeps import Sweep
from orchestrator.settings import Settings
from orchestrator.telemetry.exposition import Exported, Family, labelled, render
from orchestrator.telemetry.series import RunSeries, Value, of_cluster, of_monitor, of_sweep

SWEEPS_SHOWN = 100  # living sweeps with series of their own
CLUSTERS_SHOWN = 100
MONITORS_SHOWN = 100

_RUN = ("project", "run", "name")
_RANK = (*_RUN, "rank")
_SWEEP = ("project", "sweep", "name")
_CLUSTER = ("project", "cluster")
_MONITOR = ("project", "model")
_RECOVERY_S = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_SEAL_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 180.0, 600.0)
_STALL_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0)
_QUEUE_S = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 4 * 3600.0, 12 * 3600.0, 86400.0, 3 * 86400.0)
_START_S = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0, 300.0, 900.0)

TABLE: tuple[Exported, ...] = (
    # ---- the server
    Exported("evertrain_disk_free_bytes", "gauge", "Free on the disk of the server's data directory."),
    Exported("evertrain_disk_size_bytes", "gauge", "Size of the disk of the server's data directory."),
    Exported(
        "evertrain_certificate_expiry_timestamp_seconds",
        "gauge",
        "When the server's TLS certificate expires; absent without one.",
    ),
    Exported("evertrain_alerts_total", "counter", "Alerts taken at /alerts, by what was done.", ("outcome",)),
    Exported("evertrain_alerts_heard_timestamp_seconds", "gauge", "When /alerts was last posted to; absent: never."),
    # ---- clusters
    Exported("evertrain_cluster_up", "gauge", "1 while the cluster's agent is attached, else 0.", _CLUSTER),
    Exported("evertrain_cluster_seen_timestamp_seconds", "gauge", "When its agent was last heard of.", _CLUSTER),
    Exported("evertrain_cluster_draining", "gauge", "1 while nothing more is placed there.", _CLUSTER),
    Exported("evertrain_cluster_nodes", "gauge", "Living nodes.", _CLUSTER),
    Exported("evertrain_cluster_cpus", "gauge", "CPU cores of all nodes.", _CLUSTER),
    Exported("evertrain_cluster_free_cpus", "gauge", "CPU cores that nobody holds.", _CLUSTER),
    Exported("evertrain_cluster_gpus", "gauge", "GPUs of all nodes.", _CLUSTER),
    Exported("evertrain_cluster_free_gpus", "gauge", "GPUs that nobody holds.", _CLUSTER),
    Exported("evertrain_cluster_memory_bytes", "gauge", "Memory of all nodes.", _CLUSTER),
    Exported("evertrain_cluster_free_memory_bytes", "gauge", "Memory that nobody has asked for.", _CLUSTER),
    # ---- all runs
    Exported("evertrain_runs", "gauge", "Runs by state.", ("state",)),
    Exported("evertrain_queue_depth", "gauge", "Runs that wait for a place."),
    Exported("evertrain_queue_reasons", "gauge", "Runs that wait for a place, by what they wait for.", ("reason",)),
    Exported("evertrain_queue_longest_seconds", "gauge", "How long the run has waited that has waited longest."),
    Exported(
        "evertrain_queue_overdue",
        "gauge",
        f"Gangs that have waited {BLOCK_AFTER_S:g} s or more, so that nothing may pass them any more.",
    ),
    Exported("evertrain_queue_seconds", "histogram", "From submission to the first placement.", (), _QUEUE_S),
    Exported("evertrain_start_seconds", "histogram", "From a placement to its first optimizer step.", (), _START_S),
    Exported("evertrain_recovery_seconds", "histogram", "From a failure to the next optimizer step.", (), _RECOVERY_S),
    Exported(
        "evertrain_checkpoint_seconds",
        "histogram",
        "From a checkpoint's first byte to its committed manifest.",
        (),
        _SEAL_S,
    ),
    Exported(
        "evertrain_checkpoint_stall_seconds", "histogram", "How long training waited for a checkpoint.", (), _STALL_S
    ),
    # ---- a run
    Exported(
        "evertrain_run_info",
        "gauge",
        "1, with what the run belongs to; join it by `run`.",
        (*_RUN, "cluster", "queue", "kind", "sweep"),
    ),
    Exported("evertrain_run_state", "gauge", "1 for the state that the run is in, 0 for the others.", (*_RUN, "state")),
    Exported("evertrain_run_started_timestamp_seconds", "gauge", "When its newest attempt was placed.", _RUN),
    Exported("evertrain_run_workers", "gauge", "Workers that the run holds.", _RUN),
    Exported("evertrain_run_step", "gauge", "Optimizer steps done since the run's beginning.", _RUN),
    Exported("evertrain_run_step_seconds", "gauge", "Mean duration of the latest optimizer steps.", _RUN),
    Exported("evertrain_run_samples_per_second", "gauge", "Samples consumed a second by all ranks.", _RUN),
    Exported("evertrain_run_progress_ratio", "gauge", "Steps done of all that it will do.", _RUN),
    Exported(
        "evertrain_run_progress_timestamp_seconds",
        "gauge",
        "When its slowest rank last gave a sign of progress.",
        _RUN,
    ),
    Exported("evertrain_run_loss", "gauge", "Latest training loss.", _RUN),
    Exported("evertrain_run_metric", "gauge", "What it measured at the end of the last epoch.", (*_RUN, "metric")),
    Exported("evertrain_run_restarts_total", "counter", "Restarts by the budget that they used.", (*_RUN, "budget")),
    Exported("evertrain_run_failures_total", "counter", "Failures by kind; absent: none.", (*_RUN, "kind")),
    Exported(
        "evertrain_run_time_seconds",
        "gauge",  # not a counter: time counts as starting until a coordinator has accounted for it
        "Worker-seconds since submission by class of the goodput ledger; they add up to all there were.",
        (*_RUN, "class"),
    ),
    Exported("evertrain_run_goodput_ratio", "gauge", "Share of all worker-seconds that trained something new.", _RUN),
    Exported("evertrain_run_cost", "gauge", "What it has cost, in the server's currency; absent without prices.", _RUN),
    Exported("evertrain_run_checkpoint_bytes", "gauge", "Size of the newest sealed checkpoint.", _RUN),
    Exported("evertrain_run_checkpoint_timestamp_seconds", "gauge", "When the newest checkpoint was sealed.", _RUN),
    Exported(
        "evertrain_run_checkpoint_interval_seconds",
        "gauge",
        "Time between checkpoints by the run file; absent where it counts steps.",
        _RUN,
    ),
    # ---- a rank, where EVERTRAIN_METRICS_RANKS asks for them
    Exported("evertrain_rank_step", "gauge", "Optimizer steps that the rank has done.", _RANK),
    Exported("evertrain_rank_step_seconds", "gauge", "Mean duration of the rank's latest steps.", _RANK),
    Exported("evertrain_rank_silent_seconds", "gauge", "Since the rank's last sign of progress.", _RANK),
    # ---- sweeps
    Exported("evertrain_sweep_trials", "gauge", "Trials of a living sweep by state.", (*_SWEEP, "state")),
    Exported("evertrain_sweep_best", "gauge", "The best value of the sweep's metric so far.", _SWEEP),
    Exported("evertrain_sweep_concurrency", "gauge", "Trials that hold workers now.", _SWEEP),
    Exported("evertrain_sweep_room", "gauge", "Trials that the clusters have room for.", _SWEEP),
    Exported("evertrain_sweep_cost", "gauge", "What all trials have cost, in the server's currency.", _SWEEP),
    Exported("evertrain_sweep_trial_cost", "gauge", "Mean cost of the trials that have ended.", _SWEEP),
    Exported(
        "evertrain_trial_start_seconds",
        "histogram",
        "From a trial's submission to its first optimizer step.",
        (),
        _START_S,
    ),
    # ---- monitors
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
    Exported("evertrain_monitor_judged_timestamp_seconds", "gauge", "When the newest judgement was made.", _MONITOR),
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
    Exported(
        "evertrain_drift_together_effect",
        "gauge",
        "How far features or an embedding have moved as a whole: c2st, a classifier's AUC less a half; mmd, discrepancy.",
        (*_MONITOR, "of", "test"),
    ),
)


@dataclass(frozen=True)
class ServerView:
    """The server itself, as of now."""

    disk_size_bytes: int
    disk_free_bytes: int
    certificate_expires_at: float | None
    alerts: Mapping[str, int]  # by outcome
    alerts_heard_at: float | None


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
        self._max_runs, self._prices = settings.metrics_runs, settings.prices
        self._lock = threading.Lock()
        self._series: dict[str, RunSeries] = {}
        self._ended: deque[tuple[int, str]] = deque()  # in the order of their ends
        self._states: Mapping[str, int] = {}
        self._sweeps: Sequence[Sweep] = ()
        self._monitors: Sequence[Watched] = ()
        self._clusters: Sequence[tuple[ClusterView, float]] = ()
        self._queue: QueueView | None = None
        self._server: ServerView | None = None
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a series more for each histogram, of which nobody asks
        self._registry = CollectorRegistry(auto_describe=False)
        self._histograms = {
            each.name: Histogram(each.name, each.help, unit=each.unit, registry=self._registry, buckets=each.buckets)
            for each in TABLE
            if each.kind == "histogram"
        }

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

    def clusters(self, known: Sequence[tuple[ClusterView, float]]) -> None:
        """Each with the time when it was last heard of. The series of all others go."""
        with self._lock:
            self._clusters = tuple(known[:CLUSTERS_SHOWN])

    def queue(self, view: QueueView) -> None:
        with self._lock:
            self._queue = view

    def server(self, view: ServerView) -> None:
        with self._lock:
            self._server = view

    def track(self, run: Run) -> None:
        """Take in a run as the store has it now; one that never had an attempt has no series."""
        if not run.attempts:
            return
        now_ns = self._monotonic_ns()
        with self._lock:
            series = self._series.get(run.id)
            if series is None:
                series = self._series[run.id] = RunSeries.of(run)
            series.run = run
            if run.terminal and not series.ended:
                series.ended = True
                self._ended.append((now_ns, run.id))
            self._tidy(now_ns)

    def living(self) -> set[str]:
        """Ids of the runs with series that had not ended when they were last taken in."""
        with self._lock:
            return {run_id for run_id, each in self._series.items() if not each.ended}

    def room(self) -> int:
        """How many more living runs may have series."""
        return max(0, self._max_runs - len(self.living()))

    def observe(self, run: Run, observation: Observation) -> None:
        """Count what a cluster said, once, and the run that it made."""
        self.track(run)
        first = observation.attempt == 1
        match observation.what:
            case Placed() if first:
                self._measure("evertrain_queue_seconds", run, run.queued_ns / 1e9)
            case FirstStep() if run.kind == "sweep":
                pass  # its driver is there: nothing trains in it
            case FirstStep(recovery_s=float(seconds)):
                self._measure("evertrain_recovery_seconds", run, seconds)
            case FirstStep(incarnation=number):
                if (recovery_s := _recovery_s(run, number)) is not None:  # of an attempt that was lost
                    self._measure("evertrain_recovery_seconds", run, recovery_s)
                self._measure("evertrain_start_seconds", run, observation.at - run.attempts[-1].started_at)
                if run.kind == "trial" and first:
                    self._measure("evertrain_trial_start_seconds", run, observation.at - run.submitted_at)
            case CheckpointSealed() as sealed:
                self._measure("evertrain_checkpoint_seconds", run, sealed.seconds)
                self._measure("evertrain_checkpoint_stall_seconds", run, sealed.stall_s)
                self.sealed(run.id, sealed.size_bytes, observation.at)
            case _:
                pass

    def sealed(self, run_id: str, size_bytes: int, at: float) -> None:
        """Its newest checkpoint."""
        with self._lock:
            if (series := self._series.get(run_id)) is not None:
                series.sealed = size_bytes, at

    def progress(self, progress: Progress) -> None:
        """Of a run that was tracked before; of others nobody knows the name."""
        with self._lock:
            series = self._series.get(progress.run_id)
            if series is not None:
                series.progress = progress

    def render(self, *, in_openmetrics: bool = False) -> bytes:
        """In Prometheus' plain text format, or in OpenMetrics, which alone carries exemplars."""
        return render(self._families(), self._registry, in_openmetrics=in_openmetrics)

    def _measure(self, histogram: str, run: Run, seconds: float) -> None:
        """Never negative: clocks of several machines may differ, and a wall clock may be moved."""
        self._histograms[histogram].observe(max(0.0, seconds), exemplar={"project": run.project, "run": run.id})

    def _families(self) -> Iterable[Family]:
        now_ns, now = self._monotonic_ns(), self._now()
        with self._lock:
            self._tidy(now_ns)
            states, runs, sweeps = dict(self._states), list(self._series.values()), self._sweeps
            monitors, clusters, queue, server = self._monitors, self._clusters, self._queue, self._server
        families = {each.name: Family(each) for each in TABLE if each.kind != "histogram"}
        if server is not None:
            _put(families, "", _of_server(server))
        for cluster, seen_at in clusters:
            _put(families, labelled(_CLUSTER, (cluster.project, cluster.name)), of_cluster(cluster, seen_at))
        _put(families, "", _of_all(states, queue))
        for run in runs:
            _put(families, run.labels, run.values(now, self._prices))
        for sweep in sweeps:
            _put(families, labelled(_SWEEP, (sweep.project, sweep.id, sweep.name)), of_sweep(sweep))
        for watched in monitors:
            _put(families, labelled(_MONITOR, (watched.project, watched.model)), of_monitor(watched))
        return families.values()

    def _tidy(self, now_ns: int) -> None:
        while self._ended and now_ns - self._ended[0][0] > self._grace_ns:
            self._series.pop(self._ended.popleft()[1], None)
        excess = len(self._series) - self._max_runs
        if excess > 0:
            # Those that ended go first, then those placed the longest time ago. Not those last heard of: with more living
            # runs than series every word of one would take the series of another.
            order = sorted(self._series.values(), key=RunSeries.stays)
            for each in order[:excess]:
                del self._series[each.run.id]


def _recovery_s(run: Run, incarnation: int) -> float | None:
    return next((each.recovery_s for each in run.attempts[-1].incarnations if each.number == incarnation), None)


def _put(families: Mapping[str, Family], own: str, values: Iterator[Value]) -> None:
    """`own`: the labels that all of the values share."""
    for name, more, value in values:
        families[name].put(f"{own},{more}" if own and more else own or more, value)


def _of_server(server: ServerView) -> Iterator[Value]:
    yield "evertrain_disk_size_bytes", "", server.disk_size_bytes
    yield "evertrain_disk_free_bytes", "", server.disk_free_bytes
    if server.certificate_expires_at is not None:
        yield "evertrain_certificate_expiry_timestamp_seconds", "", server.certificate_expires_at
    for outcome, number in server.alerts.items():
        yield "evertrain_alerts_total", labelled(("outcome",), (outcome,)), number
    if server.alerts_heard_at is not None:
        yield "evertrain_alerts_heard_timestamp_seconds", "", server.alerts_heard_at


def _of_all(states: Mapping[str, int], queue: QueueView | None) -> Iterator[Value]:
    for state in STATE_NAMES:
        yield "evertrain_runs", labelled(("state",), (state,)), states.get(state, 0)
    if queue is None:
        yield "evertrain_queue_depth", "", states.get("QUEUED", 0)
        return
    yield "evertrain_queue_depth", "", queue.depth  # the paused are queued, and wait for no place
    for code in ReasonCode:
        if code in queue.reasons:
            yield "evertrain_queue_reasons", labelled(("reason",), (code.value,)), queue.reasons[code]
    yield "evertrain_queue_longest_seconds", "", queue.longest_s
    yield "evertrain_queue_overdue", "", queue.overdue
