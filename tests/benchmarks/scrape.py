"""A scrape of a large fleet: seconds for /metrics at 100,000 live series.

    python -m tests.benchmarks.scrape [--quick]

The server is the one that the tests of the API use (SQLite, the real HTTP side), with as many running gangs as have 100,000
series together, each with progress, a checkpoint and the metrics of an epoch. The peer is prometheus-client's own writer over
as many gauges with the same labels; it is asked in turn with ours. Both answer in OpenMetrics, as Prometheus asks for.
"""

from __future__ import annotations

import statistics
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.openmetrics.exposition import generate_latest

from orchestrator import spec
from orchestrator.core import lifecycle
from orchestrator.core.ledger import Ledger, TimeClass
from orchestrator.core.observations import FirstStep, Happening, IncarnationStarted, Observation, Progress
from orchestrator.core.runs import Run
from tests.benchmarks.harness import Figure, arguments, median, report
from tests.builders import BUDGETS, SHARES, submission
from tests.integration.api.http_side import Http
from tests.integration.api.stack import SPEC, Stack

SERIES = 100_000
OF_A_RUN = 36
BATCH = 500
ACCEPT = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"


def running(stack: Stack, number: int) -> list[Run]:
    """So many gangs that train, in the store and on the board."""
    document, runs = spec.dump(spec.parse(SPEC)), []
    for start in range(0, number, BATCH):
        drafts = [
            submission(run_id=f"run-{each:06}", name=f"training-{each}", spec=document, submitted_at=time.time() - 60)
            for each in range(start, min(start + BATCH, number))
        ]
        found = [each.run for each in stack.store.submit(drafts)]
        found = _moved(stack, found, lambda run: lifecycle.place(run, "local", SHARES, time.time()))
        for what in (IncarnationStarted(1, 2), FirstStep(1, 1)):
            found = _moved(stack, found, lambda run, what=what: _heard(run, what))  # type: ignore[misc]
        runs += found
    return runs


def _moved(stack: Stack, runs: list[Run], how: Callable[[Run], lifecycle.Transition | lifecycle.Ignored]) -> list[Run]:
    made = [how(each) for each in runs]
    stored = stack.records.apply([each for each in made if isinstance(each, lifecycle.Transition)])
    return [each for each in stored if each is not None]


def _heard(run: Run, what: Happening) -> lifecycle.Transition | lifecycle.Ignored:
    return lifecycle.observe(run, Observation(run.id, 1, 0, time.time(), what), budgets=BUDGETS, now=time.time())


def train(http: Http, runs: list[Run]) -> None:
    """What agents have said of them."""
    ledger = Ledger({TimeClass.TRAINING: 50 * 10**9, TimeClass.CHECKPOINT: 10**9})
    for run in runs:
        http.metrics.sealed(run.id, 2**20, time.time())
        http.metrics.progress(
            Progress(
                run_id=run.id,
                attempt=1,
                incarnation=1,
                phase="training",
                at=time.time(),
                step=100,
                total_steps=1000,
                loss=0.123456789,
                samples_per_s=512.5,
                step_s=0.25,
                metrics={"val_loss": 0.4, "val_accuracy": 0.9},
                ledger=ledger,
            )
        )


def scrape(http: Http) -> tuple[float, float, bytes]:
    """Seconds, seconds of CPU (the server is in this process), and the body."""
    request = urllib.request.Request(f"http://127.0.0.1:{http.server.port}/metrics", headers={"accept": ACCEPT})
    began, cpu_began = time.perf_counter(), time.process_time()
    with urllib.request.urlopen(request, timeout=120) as answer:
        body = answer.read()
    return time.perf_counter() - began, time.process_time() - cpu_began, body


def peer(number: int) -> CollectorRegistry:
    """As many series of prometheus-client's own gauges."""
    registry = CollectorRegistry()
    for metric in range(OF_A_RUN):
        gauge = Gauge(f"evertrain_peer_{metric}", "A gauge.", ("project", "run", "name"), registry=registry)
        for each in range(number // OF_A_RUN):
            gauge.labels("default", f"run-{each:06}", f"training-{each}").set(0.123456789)
    return registry


def main() -> None:
    pairs = arguments(__doc__ or "", pairs=10).pairs
    number = SERIES // OF_A_RUN + 1
    with tempfile.TemporaryDirectory(prefix="evertrain-scrape-") as directory:
        settings = {"metrics_runs": number, "price_cpu_hour": 0.05}
        with Stack(Path(directory), **settings) as stack, Http(stack) as http:
            runs = running(stack, number)
            cold_s, cold_cpu_s, _ = scrape(http)
            train(http, runs)
            registry, ours, ours_cpu, theirs_cpu, body = peer(SERIES), [], [], [], b""
            for _ in range(pairs):
                took_s, cpu_s, body = scrape(http)
                ours.append(took_s)
                ours_cpu.append(cpu_s)
                began = time.process_time()
                generate_latest(registry)
                theirs_cpu.append(time.process_time() - began)
    series = sum(not line.startswith(b"#") for line in body.splitlines())
    ratio = statistics.median(other / own for own, other in zip(ours_cpu, theirs_cpu, strict=True))
    report(
        "scrape",
        [
            Figure("live series", series, "series", SERIES, "higher"),
            Figure("scrape", median(ours), "s", 1.5),
            Figure("scrape, slowest", max(ours), "s"),
            Figure("scrape, CPU", median(ours_cpu), "s"),
            Figure("first scrape after a restart", cold_s, "s"),
            Figure("first scrape after a restart, CPU", cold_cpu_s, "s"),
            Figure("size", len(body) / 2**20, "MiB"),
            Figure("prometheus-client's writer alone, CPU", median(theirs_cpu), "s"),
            Figure("prometheus-client over ours, CPU", ratio, "times", 1.0, "higher"),
        ],
    )


if __name__ == "__main__":
    main()
