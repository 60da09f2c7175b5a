"""Wrong values are refused by name; what the README says of values is what they are."""

from __future__ import annotations

import json
import re

import pytest
import yaml

from helm import readme_table
from orchestrator.settings import Settings
from tests.deploy.chart import CHART, run

pytestmark = pytest.mark.usefixtures("real_helm")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--set", "server.imag.tag=1"], ["server", "imag"]),
        (["--set", "serverr.image.tag=1"], ["serverr"]),
        (["--set", "server.service.grpcPort=70000"], ["server", "grpcPort"]),
        (["--set-string", "ray.enabled=yes"], ["ray", "enabled"]),
        (["--set", "ray.workerGroups.cpu.maxReplicas=none"], ["workerGroups", "cpu", "maxReplicas"]),
        (["--set", "ray.workerGroups.gpu.gpus=8"], ["workerGroups", "gpu", "gpus"]),
        (["--set", "ray.workerGroups.Big.maxReplicas=1"], ["workerGroups", "Big"]),
        (["--set", "redis.image.digest=sha256:1"], ["redis", "digest"]),
        (["--set", "storage.accessModes={ReadWriteSometimes}"], ["storage", "accessModes"]),
        (["--set", "storage.size=much"], ["storage", "size"]),
        (["--set", "ray.autoscaling.upscalingMode=Wild"], ["autoscaling", "upscalingMode"]),
        (["--set", "metrics.serviceMonitor.interval=often"], ["serviceMonitor", "interval"]),
        (["--set", "server.tls.certManager.enabled=true"], ["server.tls.certManager.issuerRef"]),
        (["--set", "server.ingress.enabled=true"], ["server.ingress.host"]),
        (["--set", "server.gateway.enabled=true"], ["server.gateway.parentRefs"]),
        (["--set", "server.settings.price_gpu=2"], ["server", "settings", "price_gpu"]),
        (["--set", "ray.workerGroups.cpu.replicas=9"], ["ray.workerGroups.cpu.replicas", "maxReplicas of 4"]),
    ],
)
def test_a_wrong_value_is_refused_and_its_key_is_named(words: list[str], named: list[str]) -> None:
    done = run("template", "x", str(CHART), *words)
    assert done.returncode != 0
    for name in named:
        assert name in done.stderr


def test_every_default_has_a_place_in_the_schema_and_the_schema_knows_no_more() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    free = {"affinity", "issuerRef", "requests", "limits", "settings", "nccl", "workerGroups", "global"}

    def walk(schema: dict[str, object], values: object, path: str) -> None:
        reference = str(schema.get("$ref", "")).removeprefix("#/$defs/")
        found = definitions[reference] if reference else schema
        if not isinstance(values, dict) or "properties" not in found or path.rpartition(".")[2] in free:
            return
        assert set(values) == set(found["properties"]) - {"global"}, path
        for key, value in values.items():
            walk(found["properties"][key], value, f"{path}.{key}")

    definitions = schema["$defs"]
    walk(schema, values, "values")


def test_the_settings_that_the_schema_knows_are_those_of_the_server_that_the_chart_does_not_set() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    known = schema["properties"]["server"]["properties"]["settings"]["properties"]
    text = (CHART / "templates" / "_helpers.tpl").read_text() + (CHART / "templates" / "server.yaml").read_text()
    set_here = {name.lower() for name in re.findall(r"name: EVERTRAIN_(\w+),", text)}
    assert sorted(known) == sorted(set(Settings.model_fields) - set_here - {"store_url"}), "the URL holds a password"


def test_the_readme_holds_the_table_of_the_values() -> None:
    readme, values = (CHART / "README.md").read_text(), (CHART / "values.yaml").read_text()
    assert readme == readme_table.with_table(readme, values), "run python -m helm.readme_table"


def test_every_value_has_a_sentence() -> None:
    said = {key for key, _, _ in readme_table.rows((CHART / "values.yaml").read_text())}

    def leaves(values: object, path: str) -> set[str]:
        if path in said or not isinstance(values, dict):
            return {path}
        return {leaf for key, value in values.items() for leaf in leaves(value, f"{path}.{key}".lstrip("."))}

    assert leaves(yaml.safe_load((CHART / "values.yaml").read_text()), "") == said
