"""What `deploy/` ships for Prometheus and Alertmanager, judged by their own programs."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import yaml

from orchestrator.telemetry.metrics import TABLE
from tests.integration.watchers import DEPLOY, program

RULES = DEPLOY / "prometheus"


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def rules(file: str) -> list[dict[str, str]]:
    groups = yaml.safe_load((RULES / file).read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_the_configuration_is_what_prometheus_takes() -> None:
    promtool = program("promtool", "prometheus")
    run(promtool, "check", "config", str(RULES / "prometheus.yml"))
    run(promtool, "check", "rules", str(RULES / "recording.yml"), str(RULES / "alerts.yml"))


def test_each_alert_fires_where_it_must_and_only_there() -> None:
    run(program("promtool", "prometheus"), "test", "rules", str(RULES / "rules_test.yml"))


def test_every_alert_and_every_recording_has_a_case() -> None:
    text = (RULES / "rules_test.yml").read_text()
    assert [each["alert"] for each in rules("alerts.yml") if f"alertname: {each['alert']}" not in text] == []
    assert [each["record"] for each in rules("recording.yml") if each["record"] not in text] == []


def test_rules_speak_of_metrics_that_are_exported() -> None:
    made = {rule["record"] for rule in rules("recording.yml")}
    known = {each.name for each in TABLE} | {f"{each.name}_{part}" for each in TABLE for part in ("count", "bucket")}
    for rule in rules("alerts.yml") + rules("recording.yml"):
        asked = {word for word in re.findall(r"[\w:]*evertrain_[\w:]+", rule["expr"]) if word not in made}
        assert asked - known - {"evertrain_run_"} == set(), rule  # the last: a regular expression over names


def test_the_configuration_is_what_alertmanager_takes(tmp_path: Path) -> None:
    run(program("amtool", "prometheus-alertmanager"), "check-config", str(DEPLOY / "alertmanager" / "alertmanager.yml"))
