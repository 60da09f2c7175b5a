"""A model that a real run registered, watched on real rows, with its server killed in between."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_breast_cancer

from orchestrator.core.monitors import Judgement
from orchestrator.errors import Unavailable
from tests.integration.stack.conftest import PATIENCE_S, Stack

FILE = """
name: tumours
recipe: tabular
data: {source: "sklearn://breast_cancer", split: [0.6, 0.2, 0.2]}
train: {epochs: 1, global_batch: 16, lr: 2e-3}
resources: {workers: 1, cpu: 1}
monitor: {window: {by: count, rows: 300}, detect: {concept: adwin}}
"""


def eventually(look: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not look():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.2)


def test_live_rows_are_judged_against_what_the_model_was_trained_on(stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(FILE)
    done = stack.evertrain("submit", str(tmp_path / "job.yaml"), "--watch")
    assert done.returncode == 0, done.stdout
    assert stack.client.monitor("tumours").reference == 1
    assert stack.client.model("tumours", "champion").version == 1
    data = load_breast_cancer()
    names = [each.replace(" ", "_") for each in data.feature_names.tolist()]
    generator = np.random.default_rng(0)

    def live(seq: int, scale: float) -> None:
        rows = data.data[generator.integers(0, len(data.data), 300)] * scale
        columns = dict(zip(names, rows.T.copy(), strict=True))
        eventually(lambda: kept(columns, seq))

    def kept(columns: dict[str, Any], seq: int) -> bool:
        """Sent again until the server that was killed is back: a batch is kept once."""
        try:
            stack.client.observe("tumours", columns, source="pod", seq=seq)
        except Unavailable:
            return False
        return True

    def judged() -> list[Judgement]:
        return list(stack.client.judgements("tumours"))

    for seq in range(1, 4):
        live(seq, 1.0)
    eventually(lambda: len(judged()) == 3)
    os.kill(stack.pid("server"), signal.SIGKILL)
    for seq in range(4, 7):
        live(seq, 1.3)
    eventually(lambda: len(judged()) == 6)
    assert [each.status for each in reversed(judged())] == ["stable"] * 3 + ["suspected", "drift", "drift"]
    described = stack.evertrain("monitor", "describe", "tumours").stdout
    assert "mean_radius: median" in described
    assert "1,800 rows" in described
    assert "errors by ADWIN" in described
    assert judged()[0].evidence["together"][0]["test"] == "c2st"
