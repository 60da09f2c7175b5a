"""A Prometheus that watches the demo's server: where Debian's is installed."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from orchestrator.cli.supervisor import free_port

END_S = 10.0


class Prometheus:
    """Scrapes once a second."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/api/v1/query?"

    def ask(self, query: str) -> dict[str, float]:
        """Each series that answers, by its labels in words; none while it does not answer itself."""
        url = self._url + urllib.parse.urlencode({"query": query})
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                found = json.load(answer)["data"]["result"]
        except (urllib.error.URLError, TimeoutError):
            return {}
        return {_labels(each["metric"]): float(each["value"][1]) for each in found}


def _labels(metric: dict[str, str]) -> str:
    shown = ", ".join(f'{name}="{value}"' for name, value in sorted(metric.items()) if name in ("feature", "status"))
    return f"{metric.get('__name__', '')}{{{shown}}}"


@contextlib.contextmanager
def watching(http_port: int, home: Path) -> Iterator[Prometheus | None]:
    """None where no Prometheus is installed (apt-get install prometheus)."""
    program = shutil.which("prometheus")
    if program is None:
        yield None
        return
    port, directory = free_port(), home / "prometheus"
    directory.mkdir()
    target = f"{{job_name: evertrain, static_configs: [{{targets: ['127.0.0.1:{http_port}']}}]}}"
    config = directory / "prometheus.yml"
    config.write_text(f"global: {{scrape_interval: 1s}}\nscrape_configs: [{target}]\n")
    options = (f"--config.file={config}", f"--storage.tsdb.path={directory}", f"--web.listen-address=127.0.0.1:{port}")
    with (directory / "log").open("w") as log:
        process = subprocess.Popen([program, *options], stdout=log, stderr=log)
    try:
        yield Prometheus(port)
    finally:
        process.terminate()
        process.wait(END_S)
