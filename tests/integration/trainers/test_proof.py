"""A run's result beside the champion, as real ranks compare them, and what the judge makes of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from orchestrator.drift.proving import Policy, judge, read_outcomes
from tests.integration.trainers.gangs import Gang, digits_launch, run_gang
from tests.tiny_llama import write_tiny_llama
from trainers.contract import Done
from trainers.data.sources import read_labelled
from trainers.shadow import main

LINE = """
import torch
from trainers.data.loader import Splits, Tensors


class Line:
    judged_by, judged_mode, notes = "val_error", "min", {}

    def __init__(self):
        x = torch.linspace(-1, 1, 600).unsqueeze(1)
        self.splits = Splits(*(Tensors({"x": x[part::3], "y": 2 * x[part::3] + 1}) for part in range(3)))

    def model(self):
        return torch.nn.Linear(1, 1)

    def loss(self, model, batch):
        return (model(batch["x"]) - batch["y"]).square().mean()

    def measure(self, model, batch):
        return {"error": (model(batch["x"]) - batch["y"]).abs().squeeze(1)}


def make_task(settings):
    return Line()
"""


def train(root: Path, data: dict[str, Any], steps: int, *, world_size: int = 2, **config: Any) -> Gang:
    root.mkdir(parents=True, exist_ok=True)
    settings = {"epochs": None, "steps": steps, **config.pop("train", {})}
    gang = run_gang(digits_launch(root, data=data, train=settings, **config), world_size=world_size)
    assert gang.codes == [0] * world_size
    return gang


def against(champion: Gang) -> dict[str, Any]:
    return {"champion": 1, "checkpoint": champion.one(Done).checkpoint}


def proof_of(challenger: Gang) -> dict[str, Any]:
    proof: dict[str, Any] = challenger.one(Done).facts["proof"]
    return proof


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    """Digits as they are and inverted, prepared: their levels differ, and with them what each preparation fitted."""
    root = tmp_path_factory.mktemp("worlds")
    digits = read_labelled("sklearn://digits")
    np.savez(root / "before.npz", x=digits.inputs, y=digits.targets)
    np.savez(root / "after.npz", x=2.0 * digits.inputs.max() - digits.inputs, y=digits.targets)
    rest = {"label": "y", "prepared": str(root / "prepared")}
    before, after = ({"source": str(root / f"{name}.npz"), **rest} for name in ("before", "after"))
    return before, after


@pytest.fixture(scope="module")
def champion(worlds: tuple[dict[str, Any], dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Gang:
    return train(tmp_path_factory.mktemp("champion"), worlds[0], 40, world_size=1)


def test_both_are_asked_about_the_new_rows_and_the_old_ones_each_as_it_prepares_them(
    champion: Gang, worlds: tuple[dict[str, Any], dict[str, Any]], tmp_path: Path
) -> None:
    challenger = train(tmp_path, worlds[1], 40, proof=against(champion))

    proof = proof_of(challenger)
    outcomes = read_outcomes(proof)
    recent, reference = outcomes.parts["recent"], outcomes.parts["reference"]
    assert (outcomes.champion, recent.source) == (1, f"{worlds[1]['source']}, test part")
    accuracy = {name: [each.mean() for each in part.values["accuracy"]] for name, part in outcomes.parts.items()}
    # Each on its own rows is what it was when it was trained: order, preparation and weights are the same.
    assert accuracy["recent"][1] == pytest.approx(challenger.one(Done).metrics["test_accuracy"], abs=1e-9)
    assert accuracy["reference"][0] == pytest.approx(champion.one(Done).metrics["test_accuracy"], abs=1e-9)
    assert recent.values["loss"][1].mean() == pytest.approx(challenger.one(Done).metrics["test_loss"], rel=1e-4)
    words, codes = recent.slices["label"]
    assert sorted(words) == [str(digit) for digit in range(10)]
    assert len(codes) == recent.rows == recent.of
    assert reference.rows == pytest.approx(0.15 * 1797, abs=60)
    assert set(outcomes.latency) == {1, 64}
    judgement = judge(json.loads(json.dumps(proof)), Policy(reference_loss=None, slower=None, calibration_loss=None))
    assert judgement.promote, judgement.words


def test_a_challenger_that_is_the_champion_is_not_promoted(
    champion: Gang, worlds: tuple[dict[str, Any], dict[str, Any]], tmp_path: Path
) -> None:
    begun = {"checkpoint": champion.one(Done).checkpoint}
    still = {"lr": 1e-12, "optimizer": "sgd"}
    same = train(tmp_path, worlds[0], 1, world_size=1, train=still, init_from=begun, proof=against(champion))

    judgement = judge(proof_of(same), Policy())

    assert not judgement.promote
    assert "there is no gain" in judgement.words


def test_a_champion_that_cannot_be_read_costs_the_proof_and_not_the_run(tmp_path: Path) -> None:
    gone = {"champion": 4, "checkpoint": str(tmp_path / "attempt-0001/incarnation-0001/step-000000000001")}
    gang = train(tmp_path, {"source": "sklearn://digits"}, 1, proof=gone)

    proof = proof_of(gang)

    assert proof["champion"] == 4
    assert proof["problem"].startswith("not compared: ")
    assert not judge(proof, Policy()).promote


def test_a_users_own_task_is_compared_by_what_it_measures(tmp_path: Path) -> None:
    (tmp_path / "line.py").write_text(LINE)

    def launch(root: Path, steps: int, **config: Any) -> Gang:
        begun = digits_launch(
            root, data={"source": "none"}, train={"epochs": None, "steps": steps, "lr": 0.05}, model={}, **config
        )
        own = replace(begun, kind="entrypoint", target="line:make_task", code_dir=str(tmp_path))
        root.mkdir()
        return run_gang(own, world_size=1)

    champion = launch(tmp_path / "one", 3)
    challenger = launch(tmp_path / "two", 60, proof=against(champion))

    judgement = judge(proof_of(challenger), Policy(margin=0.5, slower=None))

    assert (judgement.metric, judgement.promote) == ("error", True), judgement.words


@pytest.mark.parametrize(
    ("family", "metric"), [("digits_gan", "energy"), ("hf_causal_lm", "loss"), ("cartpole_ppo", "return")]
)
def test_what_tells_no_classes_apart_is_compared_by_its_own_metric(family: str, metric: str, tmp_path: Path) -> None:
    """A generator, whose discriminator is no part of it, a language model of Hugging Face's, and a policy in episodes that
    no training saw: on held-out rows both say what was measured of them when they were trained.
    """

    def launch(root: Path, steps: int, **config: Any) -> Gang:
        train = {"epochs": None, "steps": steps, "lr": 1e-2 if steps > 1 else 1e-9, "global_batch": 32}
        sections: dict[str, Any] = {"parallelism": {"zero": 1}, **config}
        if family == "hf_causal_lm":
            pytest.importorskip("transformers")
            sections |= {"model": {"config": str(write_tiny_llama(tmp_path / "llama")), "context": 32}}
            sections |= {"data": {"source": "text://pydoc_topics", "split": [0.98, 0.01, 0.01]}}
        elif family == "cartpole_ppo":
            sections |= {"model": {"environments": 8, "horizon": 32, "episodes": 20}}
            sections |= {"data": {"source": "gymnasium://CartPole-v1"}}
        else:
            sections |= {"model": {"width": 32, "noise": 4}}
        root.mkdir()
        gang = run_gang(replace(digits_launch(root, train=train, **sections), target=family), world_size=1)
        assert gang.codes == [0]
        return gang

    champion = launch(tmp_path / "one", 1)
    challenger = launch(tmp_path / "two", 40, proof=against(champion))

    proof = proof_of(challenger)
    means = [values.mean() for values in read_outcomes(proof).parts["recent"].values[metric]]
    assert means == pytest.approx(
        [each.one(Done).metrics[f"test_{metric}"] for each in (champion, challenger)], rel=1e-4
    )
    assert judge(proof, Policy()).metric == metric


def test_what_a_version_would_have_said_of_live_rows_is_recorded_beside_what_was_said(
    champion: Gang, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digits = read_labelled("sklearn://digits")
    said = (digits.targets + (np.arange(1797) < 100)) % 10  # wrong in the first hundred
    np.savez(tmp_path / "live.npz", **{"x": digits.inputs, "(prediction)": said, "y": digits.targets})
    checkpoint = str(champion.one(Done).checkpoint)

    assert main([checkpoint, "--rows", str(tmp_path / "live.npz"), "--to", str(tmp_path / "said.parquet")]) == 0

    counts = json.loads(capsys.readouterr().out)
    answers = pq.read_table(tmp_path / "said.parquet").to_pydict()
    assert (counts["rows"], counts["served"], counts["labelled"]) == (1797, 1797, 1797)
    assert counts["served_right"] == 1697
    assert counts["right"] / 1797 == pytest.approx(champion.one(Done).metrics["test_accuracy"], abs=0.05)
    same = sum(mine == theirs for mine, theirs in zip(answers["(prediction)"], answers["(served)"], strict=True))
    assert counts["agree"] == same
    assert all(0.1 <= each <= 1 for each in answers["(confidence)"])

    np.savez(tmp_path / "blind.npz", y=digits.targets)
    assert main([checkpoint, "--rows", str(tmp_path / "blind.npz"), "--to", str(tmp_path / "said.parquet")]) != 0
    assert "lack x, which the model takes" in capsys.readouterr().err
