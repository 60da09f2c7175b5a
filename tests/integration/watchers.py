"""Debian's Prometheus and Alertmanager, started with the files that `deploy/` ships, on free ports of this machine."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
_START_LIMIT_S = 60.0


def program(name: str, package: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed: apt-get install {package}")
    return found


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


def fetch(url: str, body: Any = None) -> Any:
    """The JSON at `url`; with a body, what posting it is answered with."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        text = answer.read()
    return json.loads(text) if text.strip() else None


@dataclass(frozen=True)
class Prometheus:
    url: str

    def range(self, expr: str, start: float, end: float) -> list[dict[str, Any]]:
        """Series as Prometheus tells them: {"metric": labels, "values": [[at, value], ...]}, a point a second."""
        asked = urllib.parse.urlencode({"query": expr, "start": start, "end": end, "step": "1s"})
        answer = fetch(f"{self.url}/api/v1/query_range?{asked}")
        assert answer["status"] == "success", answer
        return list(answer["data"]["result"])


@contextmanager
def prometheus(
    directory: Path, server_port: int, *, alertmanager_port: int = 9, rules: Mapping[str, Any] | None = None
) -> Iterator[Prometheus]:
    """Scrapes the server every second, with the shipped rules and those given."""
    executable = program("prometheus", "prometheus")
    port, shipped = free_port(), DEPLOY / "prometheus"
    config = yaml.safe_load((shipped / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(shipped / each) for each in config["rule_files"]]
    if rules is not None:
        (directory / "rules.yml").write_text(yaml.safe_dump(rules))
        config["rule_files"].append(str(directory / "rules.yml"))
    _aim(config["alerting"]["alertmanagers"][0]["static_configs"], alertmanager_port)
    _aim(config["scrape_configs"][0]["static_configs"], server_port)
    file = directory / "prometheus.yml"
    file.write_text(yaml.safe_dump(config))
    options = [
        f"--config.file={file}",
        f"--storage.tsdb.path={directory / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--enable-feature=exemplar-storage",
    ]
    with _running([executable, *options], directory / "prometheus.log", f"http://127.0.0.1:{port}/-/ready"):
        yield Prometheus(f"http://127.0.0.1:{port}")


@contextmanager
def alertmanager(directory: Path, server_port: int, token: Path, port: int = 0) -> Iterator[str]:
    """Posts to the server at once and again every second; answers its own URL. Its memory is in `directory`."""
    executable = program("prometheus-alertmanager", "prometheus-alertmanager")
    port = port or free_port()
    config = yaml.safe_load((DEPLOY / "alertmanager" / "alertmanager.yml").read_text())
    config["route"] |= {"group_wait": "0s", "group_interval": "1s", "repeat_interval": "1s"}
    (webhook,) = config["receivers"][0]["webhook_configs"]
    webhook["url"] = f"http://127.0.0.1:{server_port}/alerts"
    webhook["http_config"]["authorization"]["credentials_file"] = str(token)
    file = directory / "alertmanager.yml"
    file.write_text(yaml.safe_dump(config))
    options = [
        f"--config.file={file}",
        f"--storage.path={directory / 'alertmanager'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
    ]
    with _running([executable, *options], directory / "alertmanager.log", f"http://127.0.0.1:{port}/-/ready"):
        yield f"http://127.0.0.1:{port}"


def _aim(static_configs: list[dict[str, Any]], port: int) -> None:
    static_configs[0]["targets"] = [f"127.0.0.1:{port}"]


@contextmanager
def _running(command: Sequence[str], log: Path, ready: str) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + _START_LIMIT_S
        while not _answers(ready):
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"{command[0]} did not start: {log.read_text()[-2000:]}")
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
