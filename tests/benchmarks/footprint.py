"""What an idle Evertrain costs, and how soon it takes a run.

    python -m tests.benchmarks.footprint [--quick]

Server and agent are those of `evertrain up`, left alone; each pair is one spell of idling and one rendering of the chart with
every switch on. From `up` to the first accepted submission is measured once, on a cluster that was not up before.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from orchestrator import Client
from orchestrator.cli.stack_state import StackState, load_state
from tests.benchmarks.harness import Figure, arguments, median, report
from tests.benchmarks.stack import digits_run
from tests.helm_program import helm

SPELL_S, QUICK_SPELL_S = 10.0, 5.0
SETTLING_S = 15.0  # the zygote is being warmed, on the same cores
CHART = Path(__file__).parents[2] / "helm" / "evertrain"
MB = 1e6


@contextmanager
def stack(directory: Path) -> Iterator[tuple[StackState, float]]:
    """An `evertrain up` of its own, and the seconds until it had accepted a submission."""
    home = directory / "home"
    environment = {**os.environ, "EVERTRAIN_HOME": str(home), "EVERTRAIN_CONTEXT": str(home / "context")}
    evertrain = [sys.executable, "-m", "orchestrator.cli.app"]
    began_s = time.monotonic()
    subprocess.run([*evertrain, "up", "--port", "0", "--http-port", "0"], env=environment, check=True)
    try:
        state = load_state(home)
        assert state is not None, "up has returned, so its state is written"
        with Client(state.server, (state.server_dir / "admin.token").read_text().strip()) as client:
            run = client.submit(digits_run("footprint", steps=1))
            took_s = time.monotonic() - began_s
            for update in client.watch(run.id):
                if update.ended:
                    break
        yield state, took_s
    finally:
        subprocess.run([*evertrain, "down"], env=environment, check=True)


def process_of(state: StackState, part: str) -> psutil.Process:
    found = load_state(Path(state.home))
    assert found is not None
    process = found.parts[part].process
    assert process is not None, f"{part} is not running"
    return psutil.Process(process.pid)


def busy_ratio(process: psutil.Process, spell_s: float) -> float:
    """Share of one core that it took."""
    before, began_s = sum(process.cpu_times()[:2]), time.monotonic()
    time.sleep(spell_s)
    return float(sum(process.cpu_times()[:2]) - before) / (time.monotonic() - began_s)


def rendering_s() -> float:
    began_s = time.monotonic()
    values = str(CHART / "ci" / "everything-on-values.yaml")
    subprocess.run([str(helm()), "template", "x", str(CHART), "--values", values], check=True, capture_output=True)
    return time.monotonic() - began_s


def main() -> int:
    options = arguments(__doc__ or "")
    spell_s = QUICK_SPELL_S if options.quick else SPELL_S
    helm()  # fetched before anything is timed
    with tempfile.TemporaryDirectory(prefix="evb-") as directory, stack(Path(directory)) as (state, up_s):
        time.sleep(SETTLING_S)
        server, agent = process_of(state, "server"), process_of(state, "agent")
        busy, renderings = [], []
        for _ in range(options.pairs):
            busy.append(busy_ratio(server, spell_s))
            renderings.append(rendering_s())
        server_bytes, agent_bytes = server.memory_info().rss, agent.memory_info().rss
    report(
        "footprint",
        [
            Figure("idle server, resident", server_bytes / MB, "MB", 150),
            Figure("idle server, share of a core", median(busy), "ratio", 0.01),
            Figure("idle agent, resident", agent_bytes / MB, "MB", 250),
            Figure("helm template of everything-on", median(renderings), "s", 2.0),
            Figure("from up to the first accepted submission", up_s, "s", 15.0),
        ],
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
