"""The chart as the real helm renders it; each set of values once a session."""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.helm_program import helm

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "evertrain"
VALUES = tuple(sorted(path.name.removesuffix("-values.yaml") for path in (CHART / "ci").glob("*-values.yaml")))
RELEASE = "evertrain"
NAMESPACE = "ml"

Object = Mapping[str, Any]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(helm()), *words], capture_output=True, text=True, timeout=120)


@functools.cache
def rendered(values: str, *more: str, release: str = RELEASE) -> tuple[Object, ...]:
    """Every object of the chart with the values of `ci/`, hooks too."""
    file = CHART / "ci" / f"{values}-values.yaml"
    done = run("template", release, str(CHART), "--namespace", NAMESPACE, "--values", str(file), *more)
    assert done.returncode == 0, done.stderr
    return tuple(each for each in yaml.safe_load_all(done.stdout) if each)


def of_kind(values: str, kind: str) -> list[Object]:
    return [each for each in rendered(values) if each["kind"] == kind]


def one(values: str, kind: str, name: str = "") -> Object:
    found = [each for each in of_kind(values, kind) if not name or each["metadata"]["name"] == name]
    assert len(found) == 1, f"{kind} {name}: {[each['metadata']['name'] for each in found]}"
    return found[0]


def pods(values: str) -> Iterator[tuple[str, Mapping[str, str], Object]]:
    """(name, labels, pod spec) of every pod that comes of the rendered objects, those that KubeRay makes with its labels."""
    for each in rendered(values):
        name = f"{each['kind']}/{each['metadata']['name']}"
        match each["kind"]:
            case "Pod":
                yield name, each["metadata"]["labels"], each["spec"]
            case "StatefulSet" | "Deployment":
                template = each["spec"]["template"]
                yield name, template["metadata"]["labels"], template["spec"]
            case "RayCluster":
                cluster = {"ray.io/cluster": each["metadata"]["name"]}
                for group in (each["spec"]["headGroupSpec"], *each["spec"]["workerGroupSpecs"]):
                    template = group["template"]
                    who = group.get("groupName", "head")
                    yield f"{name}/{who}", {**template["metadata"]["labels"], **cluster}, template["spec"]
            case _:
                pass


def containers_of(pod: Object) -> Mapping[str, Object]:
    """By name, sidecars too."""
    return {each["name"]: each for each in (*pod.get("initContainers", ()), *pod["containers"])}


def containers(values: str) -> Iterator[tuple[str, Object]]:
    for name, _, pod in pods(values):
        for own, container in containers_of(pod).items():
            yield f"{name}/{own}", container


def head(values: str) -> Object:
    """The pod spec of the Ray cluster's head."""
    found: Object = one(values, "RayCluster")["spec"]["headGroupSpec"]["template"]["spec"]
    return found


def server(values: str) -> Object:
    """The pod spec of the server."""
    found = [spec for name, _, spec in pods(values) if name.endswith("-server")]
    assert len(found) == 1, values
    return found[0]


def environment(container: Object) -> dict[str, Any]:
    """Values by name; of what comes from elsewhere, the reference."""
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container["env"]}


def mounts(container: Object) -> dict[str, Object]:
    """Mounts of a container by their path."""
    return {each["mountPath"]: each for each in container["volumeMounts"]}
