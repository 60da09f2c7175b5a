"""The dashboards, as Grafana's JSON.

    python -m deploy.grafana.dashboards     # writes deploy/grafana/*.json, which are committed

A dashboard answers one question, and says which. Units come from the names of the metrics.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SCHEMA = 39  # of Grafana 10.4 and 11
WIDTH, HEIGHT = 24, 8
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
_UNITS = {"seconds": "s", "bytes": "bytes", "ratio": "percentunit"}


@dataclass(frozen=True)
class Query:
    expr: str
    legend: str = "__auto"
    exemplars: bool = False


@dataclass(frozen=True)
class Panel:
    title: str
    queries: Sequence[Query]
    unit: str = ""  # default: that of the first query's metric
    kind: str = "timeseries"
    width: int = 8
    stacked: bool = False


@dataclass(frozen=True)
class Variable:
    """`query` as Grafana's Prometheus data source takes it. `regex` gives each value a text of its own."""

    name: str
    query: str
    regex: str = ""
    all_values: bool = False


@dataclass(frozen=True)
class Dashboard:
    uid: str
    title: str
    question: str
    variables: Sequence[Variable]
    panels: Sequence[Panel] = field(default_factory=tuple)


CLUSTER = Variable("cluster", "label_values(evertrain_cluster_up, cluster)", all_values=True)
PROJECT = Variable("project", "label_values(evertrain_run_info, project)", all_values=True)
RUN = Variable(
    "run",
    'query_result(evertrain_run_info{project=~"$project", kind!="sweep"})',
    '/name="(?<text>[^"]+)".*,run="(?<value>[^"]+)"/',
)
SWEEP = Variable(
    "sweep",
    'query_result(evertrain_sweep_room{project=~"$project"})',
    '/name="(?<text>[^"]+)".*,sweep="(?<value>[^"]+)"/',
)
MODEL = Variable("model", 'label_values(evertrain_monitor_status{project=~"$project"}, model)')
WATCHED = '{project=~"$project", model="$model"}'


def quantiles(histogram: str) -> list[Query]:
    """The median and the slow end of the last hour; an exemplar leads to its run."""
    buckets = f"sum by (le) (increase({histogram}_bucket[1h]))"
    return [Query(f"histogram_quantile({share}, {buckets})", f"{share:.0%}", exemplars=True) for share in (0.5, 0.95)]


def of_cluster(expr: str) -> str:
    """Series of runs with the label `cluster`, of the clusters chosen."""
    return f'{expr} * on (run) group_left (cluster) evertrain_run_info{{cluster=~"$cluster"}}'


FLEET = Dashboard(
    "evertrain-fleet",
    "Evertrain: fleet",
    "Is everything that we have at work, and is it well?",
    (CLUSTER, PROJECT),
    (
        Panel("Runs by state", [Query("sum by (state) (evertrain_runs)", "{{state}}")], kind="stat"),
        Panel(
            "Agents attached",
            [Query('evertrain_cluster_up{cluster=~"$cluster"}', "{{cluster}}")],
            kind="stat",
        ),
        Panel(
            "Alerts that fire or are about to",
            [
                Query(
                    'count by (alertname, alertstate) (ALERTS{alertname=~"Evertrain.+"})',
                    "{{alertname}} {{alertstate}}",
                )
            ],
            kind="stat",
        ),
        Panel(
            "CPU cores held",
            [Query('cluster:evertrain_cpus:used_ratio{cluster=~"$cluster"}', "{{cluster}}")],
            unit="percentunit",
        ),
        Panel(
            "GPUs held",
            [
                Query(
                    'evertrain_cluster_gpus{cluster=~"$cluster"} - evertrain_cluster_free_gpus{cluster=~"$cluster"}',
                    "{{cluster}}",
                )
            ],
        ),
        Panel(
            "Workers at work",
            [Query(f"sum by (cluster) ({of_cluster('evertrain_run_workers')})", "{{cluster}}")],
        ),
        Panel(
            "Where worker-seconds go",
            [
                Query(
                    'sum by (class) (clamp_min(delta(evertrain_run_time_seconds{project=~"$project"}'
                    "[$__rate_interval]), 0))",
                    "{{class}}",
                )
            ],
            unit="s",
            width=12,
            stacked=True,
        ),
        Panel(
            "Failures, by kind",
            [Query('sum by (kind) (evertrain_run_failures_total{project=~"$project"})', "{{kind}}")],
            width=12,
        ),
        Panel("From a placement to the first step", quantiles("evertrain_start_seconds"), "s"),
        Panel("From a failure to the next step", quantiles("evertrain_recovery_seconds"), "s"),
        Panel("Sealing a checkpoint", quantiles("evertrain_checkpoint_seconds"), "s"),
        Panel(
            "Runs that hold workers",
            [Query(of_cluster('evertrain_run_workers{project=~"$project"}'))],
            kind="table",
            width=16,
        ),
        Panel(
            "Free on the server's disk",
            [Query("evertrain_disk_free_bytes / evertrain_disk_size_bytes", "{{instance}}")],
            unit="percentunit",
        ),
    ),
)

RUN_PAGE = Dashboard(
    "evertrain-run",
    "Evertrain: run",
    "How is this run doing, and where does its time go?",
    (PROJECT, RUN),
    (
        Panel("State", [Query('evertrain_run_state{run="$run"} == 1', "{{state}}")], kind="stat"),
        Panel("What it is", [Query('evertrain_run_info{run="$run"}')], kind="table", width=16),
        Panel("Done", [Query('evertrain_run_progress_ratio{run="$run"}', "done")], kind="stat"),
        Panel("Workers", [Query('evertrain_run_workers{run="$run"}', "workers")], kind="stat"),
        Panel("Cost", [Query('evertrain_run_cost{run="$run"}', "cost")], kind="stat"),
        Panel("Steps", [Query('evertrain_run_step{run="$run"}', "done")]),
        Panel("Loss", [Query('evertrain_run_loss{run="$run"}', "training loss")]),
        Panel("Measured after each epoch", [Query('evertrain_run_metric{run="$run"}', "{{metric}}")]),
        Panel("Samples a second", [Query('evertrain_run_samples_per_second{run="$run"}', "all ranks")]),
        Panel("Duration of a step", [Query('evertrain_run_step_seconds{run="$run"}', "mean of the latest")]),
        Panel(
            "Since the last sign of progress",
            [Query('time() - evertrain_run_progress_timestamp_seconds{run="$run"}', "slowest rank")],
            unit="s",
        ),
        Panel(
            "Where its worker-seconds went",
            [Query('evertrain_run_time_seconds{run="$run"}', "{{class}}")],
            stacked=True,
        ),
        Panel(
            "Goodput",
            [
                Query('evertrain_run_goodput_ratio{run="$run"}', "since its submission"),
                Query('run:evertrain_goodput:ratio_30m{run="$run"}', "while it held workers, the last half hour"),
            ],
        ),
        Panel("Restarts, by budget", [Query('evertrain_run_restarts_total{run="$run"}', "{{budget}}")]),
        Panel("Failures, by kind", [Query('evertrain_run_failures_total{run="$run"}', "{{kind}}")]),
        Panel(
            "Age of the newest checkpoint",
            [Query('time() - evertrain_run_checkpoint_timestamp_seconds{run="$run"}', "age")],
            unit="s",
        ),
        Panel(
            "Duration of a step, of the ranks that EVERTRAIN_METRICS_RANKS asks for",
            [Query('evertrain_rank_step_seconds{run="$run"}', "rank {{rank}}")],
        ),
        Panel(
            "Since the last sign of progress, of the same ranks",
            [Query('evertrain_rank_silent_seconds{run="$run"}', "rank {{rank}}")],
        ),
        Panel("Size of the newest checkpoint", [Query('evertrain_run_checkpoint_bytes{run="$run"}', "size")]),
    ),
)

QUEUE = Dashboard(
    "evertrain-queue",
    "Evertrain: queue and cost",
    "Who waits for what, and what does it cost?",
    (CLUSTER, PROJECT),
    (
        Panel("Waiting", [Query("evertrain_queue_depth", "runs")], kind="stat"),
        Panel("Waiting beyond the bound", [Query("evertrain_queue_overdue", "gangs")], kind="stat"),
        Panel("Longest wait", [Query("evertrain_queue_longest_seconds", "longest")], kind="stat"),
        Panel("What they wait for", [Query("evertrain_queue_reasons", "{{reason}}")], width=12, stacked=True),
        Panel("From submission to the first placement", quantiles("evertrain_queue_seconds"), "s", width=12),
        Panel(
            "Workers held, by project",
            [Query('project:evertrain_run_workers:sum{project=~"$project"}', "{{project}}")],
            stacked=True,
        ),
        Panel(
            "CPU cores held",
            [Query('cluster:evertrain_cpus:used_ratio{cluster=~"$cluster"}', "{{cluster}}")],
            unit="percentunit",
        ),
        Panel(
            "Cost of the last hour, by project",
            [Query('project:evertrain_run_cost:delta1h{project=~"$project"}', "{{project}}")],
            stacked=True,
        ),
        Panel(
            "The most expensive runs",
            [Query('topk(10, evertrain_run_cost{project=~"$project"})')],
            kind="table",
            width=12,
        ),
        Panel(
            "Worker-seconds that trained nothing",
            [
                Query(
                    'topk(10, sum by (project, run, name) (evertrain_run_time_seconds{project=~"$project", '
                    'class!~"training|queued"}))'
                )
            ],
            unit="s",
            kind="table",
            width=12,
        ),
    ),
)

SWEEP_PAGE = Dashboard(
    "evertrain-sweep",
    "Evertrain: sweep",
    "Is this search worth going on with?",
    (PROJECT, SWEEP),
    (
        Panel("Best value so far", [Query('evertrain_sweep_best{sweep="$sweep"}', "best")], width=12),
        Panel("Trials", [Query('evertrain_sweep_trials{sweep="$sweep"}', "{{state}}")], width=12, stacked=True),
        Panel(
            "Trials at work, and room for more",
            [
                Query('evertrain_sweep_concurrency{sweep="$sweep"}', "at work"),
                Query('evertrain_sweep_room{sweep="$sweep"}', "room"),
            ],
        ),
        Panel(
            "Workers of its trials",
            [
                Query(
                    'evertrain_run_workers * on (run) group_left (sweep) evertrain_run_info{sweep="$sweep"}', "{{name}}"
                )
            ],
            stacked=True,
        ),
        Panel("From a trial's submission to its first step", quantiles("evertrain_trial_start_seconds"), "s"),
        Panel("Cost of all trials", [Query('evertrain_sweep_cost{sweep="$sweep"}', "cost")], width=12),
        Panel(
            "Mean cost of a trial that has ended",
            [Query('evertrain_sweep_trial_cost{sweep="$sweep"}', "cost")],
            width=12,
        ),
    ),
)

MODEL_PAGE = Dashboard(
    "evertrain-model",
    "Evertrain: model and drift",
    "Is the model that serves still the right one?",
    (PROJECT, MODEL),
    (
        Panel("Judged to be", [Query(f"evertrain_monitor_status{WATCHED} == 1", "{{status}}")], kind="stat", width=6),
        Panel("Severity, 0 to 3", [Query(f"evertrain_monitor_severity{WATCHED}", "severity")], kind="stat", width=6),
        Panel(
            "Version judged against",
            [Query(f"evertrain_monitor_reference_version{WATCHED}", "version")],
            kind="stat",
            width=6,
        ),
        Panel(
            "Since the newest judgement",
            [Query(f"time() - evertrain_monitor_judged_timestamp_seconds{WATCHED}", "age")],
            unit="s",
            kind="stat",
            width=6,
        ),
        Panel(
            "How far features have moved",
            [
                Query(f"evertrain_drift_effect{WATCHED}", "{{feature}}"),
                Query(f"evertrain_drift_together_effect{WATCHED}", "{{of}} ({{test}})"),
            ],
            width=16,
        ),
        Panel(
            "Errors, as labels and as confidence tell",
            [
                Query(f"evertrain_monitor_error_ratio{WATCHED}", "by labels"),
                Query(f"1 - evertrain_monitor_estimated_accuracy_ratio{WATCHED}", "by confidence"),
            ],
        ),
        Panel("Rows a second", [Query(f"rate(evertrain_monitor_rows_total{WATCHED}[$__rate_interval])", "rows")]),
        Panel("Labels joined", [Query(f"evertrain_monitor_labels_total{WATCHED}", "labels")]),
        Panel("Rows not yet judged", [Query(f"evertrain_monitor_behind_rows{WATCHED}", "rows")]),
        Panel(
            "Left out, by reason",
            [Query(f"increase(evertrain_monitor_left_out_total{WATCHED}[1h])", "{{reason}}")],
            width=12,
        ),
        Panel("Runs that train it", [Query('evertrain_run_info{name="$model"}')], kind="table", width=12),
    ),
)

DASHBOARDS = (FLEET, RUN_PAGE, QUEUE, SWEEP_PAGE, MODEL_PAGE)


# ---- Grafana's JSON -------------------------------------------------------------------------------------------------


def render(dashboard: Dashboard) -> str:
    """As it is committed."""
    document = {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.question,
        "tags": ["evertrain"],
        "schemaVersion": SCHEMA,
        "editable": False,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "links": [
            {"type": "dashboards", "tags": ["evertrain"], "title": "Evertrain", "keepTime": True, "asDropdown": True}
        ],
        "templating": {"list": [_datasource(), *map(_variable, dashboard.variables)]},
        "panels": _placed(dashboard.panels),
    }
    return json.dumps(document, indent=1) + "\n"


def _datasource() -> dict[str, Any]:
    return {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}


def _variable(variable: Variable) -> dict[str, Any]:
    choice = {"includeAll": True, "allValue": ".*", "multi": True} if variable.all_values else {}
    return {
        "name": variable.name,
        "label": variable.name.capitalize(),
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": variable.query, "refId": variable.name},
        "regex": variable.regex,
        "refresh": 2,  # with the time range: runs come and go
        "sort": 1,
        **choice,
    }


def _placed(panels: Sequence[Panel]) -> list[dict[str, Any]]:
    """From left to right, then down."""
    placed, left, top = [], 0, 0
    for number, panel in enumerate(panels, 1):
        if left + panel.width > WIDTH:
            left, top = 0, top + HEIGHT
        place = {"x": left, "y": top, "w": panel.width, "h": HEIGHT}
        placed.append({"id": number, "gridPos": place, **_panel(panel)})
        left += panel.width
    return placed


def _panel(panel: Panel) -> dict[str, Any]:
    is_table = panel.kind == "table"
    drawn = {"stacking": {"mode": "normal"}, "fillOpacity": 30} if panel.stacked else {}
    run = "${__data.fields.run}" if is_table else "${__field.labels.run}"
    opens = {"title": "Open the run", "url": f"/d/evertrain-run?${{datasource:queryparam}}&var-run={run}"}
    defaults = {"unit": panel.unit or unit_of(panel.queries[0].expr), "custom": drawn}
    if _shows_runs(panel) and "$run" not in panel.queries[0].expr:
        defaults["links"] = [opens]
    return {
        "type": panel.kind,
        "title": panel.title,
        "datasource": DATASOURCE,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "targets": [_target(query, refid, is_table) for query, refid in zip(panel.queries, "ABCDEF", strict=False)],
    }


def _target(query: Query, refid: str, instant: bool) -> dict[str, Any]:
    return {
        "refId": refid,
        "datasource": DATASOURCE,
        "expr": query.expr,
        "legendFormat": query.legend,
        "instant": instant,
        "range": not instant,
        "format": "table" if instant else "time_series",
        "exemplar": query.exemplars,
    }


def _shows_runs(panel: Panel) -> bool:
    return panel.kind == "table" or "{{name}}" in panel.queries[0].legend


def unit_of(expr: str) -> str:
    """Grafana's name of what the first metric in `expr` counts, as its name says."""
    metric = re.search(r"evertrain_\w+", expr)
    last = metric.group().rpartition("_")[2] if metric else ""
    return _UNITS.get(last, "short")


def main() -> None:
    for dashboard in DASHBOARDS:
        path = HERE / f"{dashboard.uid.removeprefix('evertrain-')}.json"
        path.write_text(render(dashboard))
        print(path)


if __name__ == "__main__":
    main()
