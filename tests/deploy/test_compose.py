"""The compose file: valid, hardened, and every file that it mounts is one that the real program loads."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import compose_spec
import pytest
import yaml

from tests.contract import postgres_server
from tests.deploy import dockerfile

DEPLOY = Path(__file__).parents[2] / "deploy"
COMPOSE: Mapping[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: Mapping[str, Any] = COMPOSE["services"]
RAY = ("ray-head", "agent", "ray-worker", "ray-worker-gpu")


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("compose") / "secrets"
    subprocess.run(["sh", str(DEPLOY / "secrets.sh"), str(directory)], check=True, capture_output=True)
    return directory


def test_it_is_valid_by_the_compose_specification() -> None:
    compose_spec.PyCompose.from_yaml(yaml.safe_dump(dict(COMPOSE))).to_spec()


@pytest.mark.parametrize(
    ("key", "value"),
    [("imag", "x"), ("read_only", "maybe"), ("depends_on", {"postgres": {"condition": "service_well"}})],
)
def test_that_check_finds_what_is_wrong(key: str, value: Any) -> None:
    wrong = {**COMPOSE, "services": {**SERVICES, "server": {**SERVICES["server"], key: value}}}
    with pytest.raises(ValueError, match=key):
        compose_spec.PyCompose.from_yaml(yaml.safe_dump(wrong)).to_spec()


def test_every_service_runs_hardened() -> None:
    for name, service in SERVICES.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not service.get("privileged"), name


def test_images_are_pinned_and_ours_are_targets_of_the_dockerfile() -> None:
    targets = dockerfile.stages(dockerfile.TEXT).keys()
    for name, service in SERVICES.items():
        assert re.search(r":[^/:]+$", service["image"]), name
        assert not service["image"].endswith(":latest"), name
        if "build" in service:
            assert service["build"]["target"] in targets, name


def test_ports_are_published_on_loopback_alone_and_none_of_ray() -> None:
    for name, service in SERVICES.items():
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), name
        assert not (name in RAY and service.get("ports")), name


def test_no_secret_stands_in_the_environment_or_on_a_command_line(secrets: Path) -> None:
    values = [path.read_text().strip() for path in secrets.iterdir() if path.name not in ("s3-user",)]
    text = (DEPLOY / "compose.yaml").read_text()
    assert not any(value in text for value in values)
    for name, service in SERVICES.items():
        for key in service.get("environment", {}):
            if re.search("PASSWORD|TOKEN|SECRET|CREDENTIAL|STORE_URL|ROOT_USER", key):
                assert key.endswith(("_FILE", "_PATH", "_DIR")), f"{name}: {key}"


def test_every_secret_is_made_once_and_closed_to_others(secrets: Path) -> None:
    wanted = {Path(each["file"]).name for each in COMPOSE["secrets"].values()}
    made = {path.name: path.read_text() for path in secrets.iterdir()}
    assert wanted <= made.keys()
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o700
    subprocess.run(["sh", str(DEPLOY / "secrets.sh"), str(secrets)], check=True, capture_output=True)
    assert {path.name: path.read_text() for path in secrets.iterdir()} == made
    assert made["postgres-password"].strip() in made["store-url"]
    assert made["s3-password"].strip() in made["aws-credentials"]
    assert len({text for name, text in made.items() if name.endswith(".token")}) == 4


def test_what_a_service_reads_is_what_it_was_given() -> None:
    for name, service in SERVICES.items():
        given = {
            Path(each["target"]) if isinstance(each, dict) else Path("/run/secrets") / each
            for each in service.get("secrets", ())
        }
        words = [*map(str, service.get("command") or ()), *map(str, (service.get("environment") or {}).values())]
        read = {Path(path) for word in words for path in re.findall(r"/run/secrets/[\w.-]+", word)}
        assert read <= given, name


def test_everything_that_is_mounted_exists() -> None:
    for name, service in SERVICES.items():
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            if source.startswith("."):
                assert (DEPLOY / source).exists(), f"{name}: {source}"
            else:
                assert source in COMPOSE["volumes"], f"{name}: {source}"


def test_the_agent_shares_what_a_driver_of_ray_must_share() -> None:
    agent, head = SERVICES["agent"], SERVICES["ray-head"]
    assert {agent[each] for each in ("network_mode", "pid", "ipc")} == {"service:ray-head"}
    assert head["ipc"] == "shareable", "the default, private, lets nobody join"
    assert agent["volumes"] == head["volumes"] == ["ray-head:/tmp"]
    pytest.importorskip("ray")
    from orchestrator.cluster.agent import parse

    parse(agent["command"][1:])


def networks(name: str) -> set[str]:
    """The networks that a service is on, by its own name or as the guest of another one."""
    service = SERVICES[name]
    if "network_mode" in service:
        return networks(service["network_mode"].removeprefix("service:"))
    return set(service["networks"])


def test_who_runs_foreign_code_reaches_neither_the_record_nor_the_monitoring() -> None:
    for name in RAY:
        assert networks(name) == {"cluster"}, name
    for name in ("prometheus", "alertmanager", "grafana"):
        assert networks(name) == {"monitoring"}, name
    assert networks("postgres") == {"database"}
    assert networks("server") == {"cluster", "database", "monitoring"}


def test_the_server_reaches_the_storage_as_the_ranks_do() -> None:
    server, head = SERVICES["server"], SERVICES["ray-head"]
    for key in ("AWS_ENDPOINT_URL", "AWS_SHARED_CREDENTIALS_FILE", "AWS_DEFAULT_REGION"):
        assert server["environment"][key] == head["environment"][key]
    assert "aws-credentials" in server["secrets"]
    assert networks("storage") <= networks("server")
    assert server["environment"]["EVERTRAIN_STORAGE"].startswith("s3://")
    assert "s3" in server["build"]["args"]["EVERTRAIN_EXTRAS"].split(",")


@pytest.mark.parametrize("program", ["prometheus", "alertmanager"])
def test_monitoring_is_told_what_it_is_told_elsewhere_but_for_where_the_server_is(program: str) -> None:
    def told(name: str) -> Any:
        text = (DEPLOY / program / name).read_text().replace("server:7461", "127.0.0.1:7461")
        configuration = yaml.safe_load(text)
        for job in configuration.get("scrape_configs", ()):
            job.pop("authorization", None)
        return configuration

    assert told("compose.yml") == told(f"{program}.yml")
    assert f"--config.file=/etc/{program}/compose.yml" in SERVICES[program]["command"]


def test_every_setting_of_the_server_is_one_that_it_knows() -> None:
    from orchestrator.settings import Settings

    names = SERVICES["server"]["environment"]
    ours = [key.removeprefix("EVERTRAIN_").lower() for key in names if key.startswith("EVERTRAIN_")]
    assert set(ours) <= set(Settings.model_fields)


def test_profiles_start_a_cluster_each() -> None:
    def started(profile: str) -> set[str]:
        return {name for name, each in SERVICES.items() if profile in each.get("profiles", [profile])}

    assert started("cpu") - started("gpu") == {"ray-worker"}
    assert started("gpu") - started("cpu") == {"ray-worker-gpu"}
    for profile in ("cpu", "gpu"):
        for name in started(profile):
            assert set(SERVICES[name].get("depends_on", ())) <= started(profile), name


# ---- by the real programs -------------------------------------------------------------------------------------------


def needs(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"needs {program} (deploy/system-packages.sh test)")
    return found


@pytest.mark.parametrize("name", ["prometheus.yml", "compose.yml"])
def test_prometheus_loads_its_configuration(name: str, secrets: Path, tmp_path: Path) -> None:
    for path in (DEPLOY / "prometheus").glob("*.yml"):
        text = path.read_text().replace("/etc/evertrain/prometheus.token", str(secrets / "viewer.token"))
        (tmp_path / path.name).write_text(text)
    done = subprocess.run(
        [needs("promtool"), "check", "config", str(tmp_path / name)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr + done.stdout


@pytest.mark.parametrize("name", ["alertmanager.yml", "compose.yml"])
def test_alertmanager_loads_its_configuration(name: str) -> None:
    done = subprocess.run(
        [needs("amtool"), "check-config", str(DEPLOY / "alertmanager" / name)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr + done.stdout


def test_postgresql_loads_its_configuration(tmp_path: Path) -> None:
    programs = postgres_server.binaries()
    if programs is None:
        pytest.skip("needs PostgreSQL (deploy/system-packages.sh test)")
    shutil.copy(DEPLOY / "postgres" / "postgresql.conf", tmp_path)
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        for path in (tmp_path, *tmp_path.iterdir(), *tmp_path.parents[:-2]):
            path.chmod(path.stat().st_mode | 0o005)
    shown = {
        name: subprocess.run(
            [*postgres_server.as_owner(), str(programs / "postgres"), "-C", name, "-D", str(tmp_path)],
            capture_output=True,
            text=True,
        )
        for name in ("synchronous_commit", "max_connections")
    }
    assert {name: each.stdout.strip() for name, each in shown.items()} == {
        "synchronous_commit": "on",
        "max_connections": "50",
    }, [each.stderr for each in shown.values()]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[int]:
    """Redis as the service's own command line starts it, with paths and port of this machine."""
    needs("redis-server")
    port = free_port()
    text = (DEPLOY / "redis" / "redis.conf").read_text()
    (tmp_path / "redis.conf").write_text(text.replace("/data", str(tmp_path)).replace("port 6379", f"port {port}"))
    (tmp_path / "password").write_text("not-for-everybody\n")
    shell, line = SERVICES["redis"]["entrypoint"], SERVICES["redis"]["command"][0].replace("$$", "$")
    line = line.replace("/etc/redis/redis.conf", str(tmp_path / "redis.conf"))
    line = line.replace("/run/secrets/redis-password", str(tmp_path / "password"))
    process = subprocess.Popen([*shell, line], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
    yield port
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def ask_redis(port: int, *words: str, password: str = "") -> str:
    environment = {**os.environ, "REDISCLI_AUTH": password} if password else dict(os.environ)
    command = ["redis-cli", "-p", str(port), *words]
    return subprocess.run(command, capture_output=True, text=True, env=environment).stdout.strip()


def test_redis_starts_with_its_configuration_and_lets_nobody_in_without_the_password(redis: int) -> None:
    deadline = time.monotonic() + 30
    while "PONG" not in ask_redis(redis, "ping", password="not-for-everybody"):
        assert time.monotonic() < deadline
    assert ask_redis(redis, "ping").startswith("NOAUTH")
    assert ask_redis(redis, "config", "get", "appendonly", password="not-for-everybody") == "appendonly\nyes"


def test_the_chart_starts_redis_by_the_same_line() -> None:
    template = (DEPLOY.parent / "helm" / "evertrain" / "templates" / "redis.yaml").read_text()
    line = (
        SERVICES["redis"]["command"][0]
        .replace("$$", "$")
        .replace("/run/secrets/redis-password", "/etc/redis-secret/password")
    )
    assert line in template
