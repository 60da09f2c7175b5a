"""A model whose world turns around is trained again by a small sweep, proven, promoted, and taken back when it fails live."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from orchestrator.protocol.decisions import DecisionView
from tests.integration.stack.conftest import PATIENCE_S, Stack
from tests.integration.stack.test_monitors import eventually

ROWS = 900


def world(seed: int, sign: int) -> dict[str, Any]:
    """Rows whose label is that of the sign of one of two columns, or the other way around."""
    columns = np.random.default_rng(seed).normal(size=(2, ROWS)).astype(np.float64)
    return {"height": columns[0], "width": columns[1], "label": np.where(sign * columns[0] > 0, "up", "down")}


def run_file(source: Path) -> dict[str, Any]:
    """The sweep's best trial is ended by the target, long before its last epoch: it is measured by one run more."""
    search = {
        "metric": "val_accuracy",
        "mode": "max",
        "trials": 3,
        "max_concurrent": 1,
        "stop": {"target": 0.9},
        "space": {"train.epochs": {"choice": [1000]}, "train.lr": {"choice": [0.02, 0.01, 0.03]}},
    }
    return {
        "name": "turning",
        "recipe": "tabular",
        "data": {"source": str(source), "label": "label", "split": [0.6, 0.2, 0.2]},
        "train": {"epochs": 5, "global_batch": 32, "lr": 0.02},
        "resources": {"workers": 1, "cpu": 1},
        "priority": 60,
        "monitor": {
            "retrain": {
                "mode": "auto",
                "triggers": [{"alert": "Never"}],
                "cooldown": None,
                "priority": 40,
                "search": search,
            },
            "promote": {"reference_loss": None, "slice_loss": None, "calibration_loss": None, "slower": None},
        },
    }


def serve(stack: Stack, seq: int, version: int, sign: int, right: bool) -> None:
    rows = world(seq, sign)
    labels = rows.pop("label")
    answers = labels if right else np.where(labels == "up", "down", "up")
    stack.client.observe(
        "turning", {**rows, "(prediction)": answers, "(label)": labels}, source="pod", seq=seq, version=version
    )


def decided(stack: Stack, number: int, wanted: Callable[[DecisionView], bool]) -> DecisionView:
    """The decision once it is as wanted; the drift that the monitor sees as well is refused, and another one."""
    deadline = time.monotonic() + 2 * PATIENCE_S
    while not wanted(found := next(each for each in stack.client.decisions("turning") if each.number == number)):
        assert found.standing != "failed", found.told
        assert time.monotonic() < deadline, found
        time.sleep(0.2)
    return found


def test_a_model_is_retrained_by_a_small_sweep_promoted_by_proof_and_taken_back_by_its_live_labels(
    stack: Stack, tmp_path: Path
) -> None:
    pd.DataFrame(world(0, 1)).to_parquet(tmp_path / "first.parquet")
    first = stack.client.wait(stack.client.submit(run_file(tmp_path / "first.parquet")).id)
    assert first.state == "SUCCEEDED", first.reason
    serve(stack, 1, version=1, sign=-1, right=False)
    asked = stack.client.retrain("turning", reason="it has turned", idempotency_key="turned")

    promoted = decided(stack, asked.number, lambda each: each.standing not in ("accepted", "training"))

    assert promoted.standing == "probation", promoted.told
    (sweep,) = [each for each in stack.client.list(kind="sweep") if each.name == "turning"]
    assert (sweep.priority, stack.client.sweep(sweep.id).best is not None) == (40, True)
    measuring = stack.client.get(promoted.run)
    assert any(f"run {measuring.id} measures it" in each for each in promoted.told), promoted.told
    assert stack.client.model("turning", "champion").version == promoted.version
    assert stack.client.facts("turning", str(promoted.version))["proof"]["champion"] == 1

    serve(stack, 2, version=promoted.version, sign=1, right=False)  # it turns back, and nobody expected that
    taken = decided(stack, asked.number, lambda each: each.standing != "probation")

    assert taken.standing == "rolled_back", taken.told
    assert "falls short in its probation" in taken.told[-1]
    moves = stack.client.alias_history("turning", alias="champion")
    assert [(each.before, each.version) for each in moves] == [(promoted.version, 1), (1, promoted.version), (0, 1)]
    by_hand = stack.client.promote("turning", "1", alias="trusted", reason="it stays")
    eventually(lambda: f"default/turning/moves/{by_hand.number}" in stack.receiver.told("turning"))
    events = [each["event"] for each in stack.receiver.told("turning").values()]
    assert events.count("retraining.probation") == events.count("retraining.rolled_back") == 1
    assert [each for each in events if each.startswith("model.")] == ["model.promoted"], "only that by hand"


def test_a_retraining_that_fails_is_told_and_is_not_tried_again_before_its_time(stack: Stack, tmp_path: Path) -> None:
    """Its data do not hold to what the run file asks of them, and each pass of the server sees that it is due."""
    pd.DataFrame(world(0, 1)).to_parquet(tmp_path / "first.parquet")
    scarce = run_file(tmp_path / "first.parquet") | {"name": "scarce"}
    scarce["data"] |= {"checks": {"rows": ROWS // 2}}
    retrain = {"mode": "auto", "triggers": [{"rows": 100}], "minimum_rows": 100, "cooldown": "1h"}
    scarce["monitor"] = {"retrain": retrain, "promote": {"minimum": 20}}
    first = stack.client.wait(stack.client.submit(scarce).id)
    assert first.state == "SUCCEEDED", first.reason
    rows = {name: values[:200] for name, values in world(1, 1).items()}
    rows["(label)"] = rows.pop("label")
    stack.client.observe("scarce", rows, source="pod", seq=1, version=1)

    def standings() -> list[tuple[str, str]]:
        return [(each.standing, each.because) for each in stack.client.decisions("scarce")]

    eventually(lambda: standings() == [("waiting", "cooldown"), ("failed", "accepted")])
    failed = list(stack.client.decisions("scarce"))[-1]
    assert "rows" in failed.told[-1], failed.told
    eventually(lambda: "retraining.failed" in [each["event"] for each in stack.receiver.told("scarce").values()])
    assert {each.id for each in stack.client.list() if each.name == "scarce"} == {first.id, failed.run}
