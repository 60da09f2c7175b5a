"""deploy/compose.yaml at work without a container engine: its own commands with its own addresses, secrets, networks and
rights, in root file systems by deploy/Dockerfile. The packages in them are this environment's; PostgreSQL, Redis, Prometheus
and Alertmanager are Debian's, the storage is moto's. A run is submitted by the very container of the chart's `helm test`.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.contract import postgres_server
from tests.deploy import chart, dockerfile, engine, layers
from tests.helm_program import helm
from tests.integration.cluster.network_hosts import why_not as why_no_networks

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy"
PROGRAMS = ("redis-server", "prometheus", "prometheus-alertmanager")
STARTED = ("postgres", "redis", "storage", "server", "ray-head", "agent", "ray-worker", "prometheus", "alertmanager")
PATIENCE_S = 240.0

NOBODY = "65534:65534"
DATABASE = "/var/lib/postgresql/data"

# What the entrypoint of the image `postgres` does with an empty directory.
NEW_DATABASE = """
initdb --username=evertrain --pwfile=/run/secrets/postgres-password --auth-host=scram-sha-256 --auth-local=trust
echo 'host all all all scram-sha-256' >> "$PGDATA/pg_hba.conf"
echo 'create database evertrain' | postgres --single -D "$PGDATA" postgres
"""
NEW_BUCKET = """
import urllib.request
urllib.request.urlopen(urllib.request.Request("http://127.0.0.1:9000/evertrain", method="PUT"), timeout=5)
"""


def why_not() -> str:
    missing = [each for each in PROGRAMS if shutil.which(each) is None]
    if missing or postgres_server.binaries() is None:
        return f"needs {', '.join([*missing, 'PostgreSQL'])} (deploy/system-packages.sh test)"
    return why_no_networks() or layers.why_not()


pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())


def wait_until(what: str, reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not reached():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def project(directory: Path) -> dict[str, Any]:
    """The compose file, with moto in the place of MinIO, and one service more: the pod of `helm test`."""
    compose: dict[str, Any] = copy.deepcopy(yaml.safe_load((DEPLOY / "compose.yaml").read_text()))
    secrets = directory / "secrets"
    subprocess.run(["sh", str(DEPLOY / "secrets.sh"), str(secrets)], check=True, capture_output=True)
    for name, secret in compose["secrets"].items():
        secret["file"] = str(secrets / name)
    compose["services"]["storage"] |= {
        "entrypoint": ["moto_server"],
        "command": ["-H", "0.0.0.0", "-p", "9000"],
        "healthcheck": {"test": ["CMD", "python", "-c", NEW_BUCKET]},
    }
    hook = chart.containers_of(chart.one("minimal", "Pod")["spec"])["digits"]
    run_file = directory / "digits_cnn.yaml"
    run_file.write_text(chart.one("minimal", "ConfigMap")["data"]["digits_cnn.yaml"])
    known = {"EVERTRAIN_SERVER": "server:7460", "EVERTRAIN_TOKEN": (secrets / "admin.token").read_text().strip()}
    compose["services"]["helm-test"] = {
        "networks": ["cluster"],
        "read_only": hook["securityContext"]["readOnlyRootFilesystem"],
        "cap_drop": hook["securityContext"]["capabilities"]["drop"],
        "environment": {name: known.get(name, value) for name, value in chart.environment(hook).items()},
        "command": hook["args"],
        "volumes": [f"{run_file}:/etc/evertrain/digits_cnn.yaml:ro"],
        "tmpfs": ["/tmp"],
    }
    return compose


def images(directory: Path) -> dict[str, layers.Image]:
    venv, beside = Path(sys.prefix), directory / "installed"
    (beside / "bin").mkdir(parents=True)
    shutil.copy(DEPLOY / "image" / "entrypoint.sh", beside / "bin" / "evertrain-entrypoint")
    shutil.copy(DEPLOY / "image" / "healthy.py", beside / "bin")
    os.chmod(beside / "bin" / "evertrain-entrypoint", 0o755)
    from trainers.build_ops import build_dir

    shutil.copytree(build_dir().parent, beside / "torch_extensions")
    given = dict.fromkeys(("build-server", "build-ray-cpu"), (beside, venv))
    build = dockerfile.Build(dockerfile.TEXT, ROOT, directory, outside={"PYTHONPATH": "/src"}, caches={}, given=given)

    # At their own places, also where those lie in a directory that a service has another one of, such as /tmp.
    installed = tuple(layers.Mount(str(each), each) for each in (ROOT, venv, Path(sys.base_prefix)))

    def ours(target: str) -> layers.Image:
        image = build.image(target)
        return dataclasses.replace(
            image,
            env={**image.env, "PYTHONPATH": "/src"},
            mounts=(layers.Mount("/src", ROOT), *installed),
            opened=(venv, Path(sys.base_prefix)),
        )

    server, ray = ours("server"), ours("ray-cpu")
    programs = f"{postgres_server.binaries()}:/usr/bin:/bin"
    return {
        "server": server,
        "helm-test": server,
        **dict.fromkeys(("ray-head", "agent", "ray-worker", "storage"), ray),
        "postgres": foreign(directory, DATABASE, "postgres", PATH=programs, PGDATA=DATABASE, LANG="C.UTF-8"),
        "redis": foreign(directory, "/data", "redis"),
        "prometheus": foreign(directory, "/prometheus", NOBODY, "prometheus"),
        "alertmanager": foreign(directory, "/alertmanager", NOBODY, "prometheus-alertmanager"),
    }


def foreign(directory: Path, volume: str, user: str, *entrypoint: str, **env: str) -> layers.Image:
    """Debian's program in the place of an image's: with the directory that the image has for its user."""
    layer = directory / f"image-{volume.strip('/').replace('/', '-')}"
    (layer / volume.strip("/")).mkdir(parents=True)
    shutil.chown(layer / volume.strip("/"), int(user.partition(":")[0]) if user == NOBODY else user)
    return layers.Image(layers=(layer,), env={"PATH": "/usr/bin:/bin", **env}, user=user, entrypoint=entrypoint)


@pytest.fixture(scope="module")
def composed() -> Iterator[engine.Engine]:
    try:
        helm()
    except OSError as error:
        pytest.skip(f"needs helm: {error}")
    directory = engine.directory()
    services = engine.Engine(project(directory), DEPLOY, images(directory), directory)
    try:
        done = services.run("postgres", "sh", "-euc", NEW_DATABASE)
        assert done.returncode == 0, done.stderr
        services.up(*STARTED)
        yield services
    finally:
        services.close()
        engine.remove(directory)


def clusters(services: engine.Engine) -> list[dict[str, Any]]:
    done = services.run("helm-test", "evertrain", "cluster", "list", "-o", "json")
    return json.loads(done.stdout) if done.returncode == 0 else []


def test_the_pod_of_helm_test_sees_its_run_succeed(composed: engine.Engine) -> None:
    wait_until("head and two workers are there", lambda: any(len(each["nodes"]) == 3 for each in clusters(composed)))
    args = chart.containers_of(chart.one("minimal", "Pod")["spec"])["digits"]["args"]
    done = composed.run("helm-test", *args, timeout_s=PATIENCE_S)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def test_prometheus_finds_the_server_and_alertmanager(composed: engine.Engine) -> None:
    def asked(path: str) -> Any:
        code = f"import urllib.request as u; print(u.urlopen('http://127.0.0.1:9090/api/v1/{path}').read().decode())"
        done = composed.run("prometheus", "/usr/bin/python3", "-c", code)
        return json.loads(done.stdout)["data"] if done.returncode == 0 else {}

    wait_until(
        "the server is scraped",
        lambda: [each["health"] for each in asked("targets").get("activeTargets", ())] == ["up"],
    )
    assert [each["url"] for each in asked("alertmanagers")["activeAlertmanagers"]] == [
        "http://127.0.0.1:9093/api/v2/alerts"
    ]


def test_code_that_trains_reaches_neither_the_record_nor_prometheus(composed: engine.Engine) -> None:
    for name in ("postgres", "prometheus"):
        (address,) = {each.addresses[name] for each in composed.networks.values() if name in each.addresses}
        code = f"import socket; socket.create_connection(({address!r}, 5432), timeout=2)"
        done = composed.run("ray-worker", "python", "-c", code)
        assert re.search("Network is unreachable|No route to host|timed out", done.stderr), name


def test_workers_outlive_a_head_that_crashes_with_the_agent_and_is_started_again(composed: engine.Engine) -> None:
    def workers() -> set[str]:
        return {node["id"] for each in clusters(composed) if each["connected"] for node in each["nodes"] if node["cpu"]}

    before = workers()
    composed.crash("ray-head")
    wait_until("the agent is away", lambda: not workers())
    composed.start("ray-head")
    composed.wait_healthy("ray-head", PATIENCE_S)
    composed.start("agent")
    wait_until("the same workers", lambda: workers() == before)
    assert len(before) == 2


def test_who_is_told_to_stop_does(composed: engine.Engine) -> None:
    assert composed.containers["agent"].stop() == 0
    assert composed.containers["server"].stop() == 0
