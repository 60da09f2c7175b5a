"""The committed dashboards are what the module builds."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from deploy.grafana import dashboards
from orchestrator.telemetry.metrics import TABLE

HERE = Path(dashboards.__file__).parent


@pytest.mark.parametrize("dashboard", dashboards.DASHBOARDS, ids=lambda each: each.uid)
def test_the_committed_file_is_what_the_module_builds(dashboard: dashboards.Dashboard) -> None:
    path = HERE / f"{dashboard.uid.removeprefix('evertrain-')}.json"
    assert path.read_text() == dashboards.render(dashboard), "python -m deploy.grafana.dashboards"


def test_no_other_dashboard_is_committed() -> None:
    made = {each.uid.removeprefix("evertrain-") for each in dashboards.DASHBOARDS}
    assert {path.stem for path in HERE.glob("*.json")} == made


def test_each_dashboard_asks_one_question_and_uses_the_variables_that_it_has() -> None:
    for dashboard in dashboards.DASHBOARDS:
        assert dashboard.question.count("?") == 1
        text = json.dumps(json.loads(dashboards.render(dashboard))["panels"])
        for variable in dashboard.variables:
            later = " ".join(each.query for each in dashboard.variables)
            assert f"${variable.name}" in text + later, (dashboard.title, variable.name)


def test_every_metric_of_a_run_is_on_some_dashboard() -> None:
    text = "".join(dashboards.render(each) for each in dashboards.DASHBOARDS)
    shown = set(re.findall(r"evertrain_\w+", text))
    own = {each.name for each in TABLE if each.name.startswith(("evertrain_run_", "evertrain_sweep_"))}
    # The interval is what an alert holds the age against; the start is told by the state.
    unseen = {"evertrain_run_checkpoint_interval_seconds", "evertrain_run_started_timestamp_seconds"}
    assert own - shown == unseen


def test_panels_neither_overlap_nor_leave_the_grid() -> None:
    for dashboard in dashboards.DASHBOARDS:
        taken: set[tuple[int, int]] = set()
        for panel in json.loads(dashboards.render(dashboard))["panels"]:
            place = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert place["x"] + place["w"] <= dashboards.WIDTH
            assert not cells & taken
            taken |= cells
