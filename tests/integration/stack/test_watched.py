"""A real run on the whole stack, watched by Debian's Prometheus, Alertmanager, and what the dashboards ask."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer

from tests.integration.stack.conftest import PATIENCE_S, Stack, kind, long_digits
from tests.integration.stack.test_sweeps import sweep_file
from tests.integration.watchers import DEPLOY, Prometheus, alertmanager, prometheus

PAUSED_BY_ALERT = "paused-by-alert"
PAUSING = {
    "alert": "StepsEnough",
    "expr": f'evertrain_run_step{{name="{PAUSED_BY_ALERT}"}} >= 1',
    "labels": {"evertrain_action": "pause"},
    "annotations": {"summary": "it has done {{ $value }} steps"},
}
RULES = {"groups": [{"name": "test", "rules": [PAUSING]}]}


@pytest.fixture(scope="module")
def watched(stack: Stack) -> Iterator[Prometheus]:
    """The stack's server, scraped every second; alerts go through Alertmanager to its webhook."""
    token, port = stack.state.server_dir / "admin.token", stack.state.http_port
    with (
        tempfile.TemporaryDirectory(prefix="evw-") as directory,
        alertmanager(Path(directory), port, token) as url,
        prometheus(Path(directory), port, alertmanager_port=int(url.rpartition(":")[2]), rules=RULES) as started,
    ):
        yield started


def committed() -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted((DEPLOY / "grafana").glob("*.json"))]


def variables(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    return [each for each in dashboard["templating"]["list"] if each["type"] == "query"]


@dataclass(frozen=True)
class Asked:
    """One expression of a dashboard, with its variables filled in."""

    where: str
    expr: str
    regex: str = ""


def asked(values: dict[str, str]) -> list[Asked]:
    found = []
    for dashboard in committed():
        for variable in variables(dashboard):
            words = variable["query"]["query"]
            plain = re.sub(r"^label_values\((.*), \w+\)$|^query_result\((.*)\)$", lambda m: m[1] or m[2], words)
            found.append(Asked(f"{dashboard['title']}: ${variable['name']}", plain, variable["regex"]))
        for panel in dashboard["panels"]:
            for target in panel["targets"]:
                found.append(Asked(f"{dashboard['title']}: {panel['title']}", target["expr"]))
    return [Asked(each.where, _filled(each.expr, values), each.regex) for each in found]


def _filled(expr: str, values: dict[str, str]) -> str:
    filled = re.sub(r"\$(\w+)", lambda match: values[match[1]], expr)
    assert "$" not in filled, filled
    return filled


def has_data(series: Sequence[dict[str, Any]]) -> bool:
    return any(not math.isnan(float(value)) for each in series for _, value in each["values"])


def until_none_is_left(waiting: list[Asked], answers: Callable[[Asked], bool], history: Callable[[], str]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while waiting := [each for each in waiting if not answers(each)]:
        missing = [f"{each.where}: no data for {each.expr}" for each in waiting]
        assert time.monotonic() < deadline, "\n".join([*missing, history()])
        time.sleep(0.5)


def put_on_watch(stack: Stack) -> str:
    """A model whose live rows have moved, and whose answers are wrong now and then."""
    watched: dict[str, Any] = {
        "name": "watched-model",
        "recipe": "tabular",
        "data": {"source": "sklearn://breast_cancer", "split": [0.6, 0.2, 0.2]},
        "train": {"epochs": 1, "global_batch": 16, "lr": 2e-3},
        "resources": {"workers": 1},
        "monitor": {"window": {"by": "count", "rows": 300}},
    }
    run = stack.client.wait(stack.client.submit(watched).id)
    assert run.state == "SUCCEEDED", run.reason
    data = load_breast_cancer()
    names = [each.replace(" ", "_") for each in data.feature_names.tolist()]
    rows = data.data[np.random.default_rng(0).integers(0, len(data.data), 300)] * 1.3
    live: dict[str, Any] = dict(zip(names, rows.T.copy(), strict=True))
    live |= {"(prediction)": [0, 1] * 150, "(label)": [0, 1, 1] * 100, "(confidence)": [0.9, 0.6] * 150}
    for seq in (1, 2):
        stack.client.observe(run.name, live, source="pod", seq=seq)
    return run.name


def test_every_expression_of_the_dashboards_has_data_once_a_run_and_a_sweep_were_scraped(
    stack: Stack, watched: Prometheus
) -> None:
    began = time.time() - 1
    client = stack.client
    model = put_on_watch(stack)
    run = client.submit(long_digits("watched", checkpoint={"every": "1s"}))
    sealed = stack.until(run.id, kind("checkpoint_sealed"))
    started = stack.until(run.id, kind("ranks_started"))
    os.kill(int(started.data["pids"][1]), signal.SIGKILL)
    stack.until(run.id, kind("training"), after=sealed.seq)  # else what comes now may take its place for good
    sweep = client.submit(sweep_file("watched-sweep", epochs=1, trials=100))
    waiter = client.submit(long_digits("waiter", resources={"workers": 4}))
    values = {
        "run": run.id,
        "sweep": sweep.id,
        "model": model,
        "project": ".*",
        "cluster": ".*",
        "__rate_interval": "5s",
    }
    try:
        until_none_is_left(
            asked(values),
            lambda each: has_data(watched.range(each.expr, began, time.time())),
            lambda: "\n".join(f"{each.at:.1f} {each.kind}: {each.message}" for each in client.events(run.id)),
        )
    finally:
        for each in (waiter, sweep, run):
            client.cancel(each.id)
            client.wait(each.id)


def test_a_variable_of_runs_takes_id_and_name_from_what_prometheus_answers(stack: Stack, watched: Prometheus) -> None:
    """As Grafana writes a series: its labels in order, its value, its time."""
    for dashboard in committed():
        for variable in variables(dashboard):
            if variable["regex"]:
                names = (
                    '{cluster="local", instance="a", job="evertrain", kind="run", name="digits", project="default", '
                )
                text = f'{names}queue="default", {variable["name"]}="run-1"}} 1 1700000000000'.replace(", ", ",")
                plain = variable["regex"].strip("/").replace("(?<", "(?P<")
                found = re.search(plain, text)
                assert found is not None
                assert found.groupdict() == {"text": "digits", "value": "run-1"}


def test_a_run_is_paused_by_the_alert_of_a_rule_and_goes_on_when_resumed(stack: Stack, watched: Prometheus) -> None:
    run = stack.client.submit(long_digits(PAUSED_BY_ALERT))
    paused = stack.until(run.id, lambda event: event.kind == "queued")
    assert "paused by first-admin: alert StepsEnough: it has done" in paused.message
    assert stack.client.get(run.id).reason.code == "paused"
    stack.client.resume(run.id)
    restored = stack.until(run.id, kind("restored"), after=paused.seq)
    assert int(restored.data["step"]) > 0
    stack.until(run.id, kind("training"), after=restored.seq)
    stack.client.cancel(run.id)
    stack.client.wait(run.id)
