"""Real two-rank trainings on gloo: what they compute, and how they end."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.integration.trainers.gangs import Gang, digits_launch, run_gang
from trainers.contract import Done, EpochEnded, ExitCode, Failed, Message, PhaseChanged, Sealed, Step
from trainers.data import audit
from trainers.data.preparing.sketch import Sketch

STEPS = {"steps": 6, "epochs": None}


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[int, float | None]:
    """Losses of six steps on one rank without ZeRO."""
    launch = digits_launch(tmp_path_factory.mktemp("reference"), train=STEPS, parallelism={"zero": 0})
    return run_gang(launch, world_size=1).losses()


@pytest.mark.parametrize("zero", [0, 1, 2, 3])
def test_losses_do_not_depend_on_the_zero_stage_or_the_world_size(
    zero: int, tmp_path: Path, reference: dict[int, float | None]
) -> None:
    gang = run_gang(digits_launch(tmp_path, train=STEPS, parallelism={"zero": zero}))
    assert gang.codes == [0, 0]
    assert list(gang.losses()) == [1, 2, 3, 4, 5, 6]
    assert gang.losses() == pytest.approx(reference, rel=1e-5)


def test_accumulation_keeps_the_losses(tmp_path: Path, reference: dict[int, float | None]) -> None:
    gang = run_gang(digits_launch(tmp_path, train={**STEPS, "micro_batch": 16}))
    assert gang.losses() == pytest.approx(reference, rel=1e-5)


BY_SGD = {**STEPS, "optimizer": "sgd", "lr": 0.05}
"""Its steps are as long as the gradient. Those of Adam follow its sign at first, which rounding turns where it is tiny."""


@pytest.fixture(scope="module")
def by_sgd(tmp_path_factory: pytest.TempPathFactory) -> dict[int, float | None]:
    launch = digits_launch(tmp_path_factory.mktemp("by_sgd"), train=BY_SGD, parallelism={"zero": 0})
    return run_gang(launch, world_size=1).losses()


@pytest.mark.parametrize("zero", [0, 2, 3])
def test_bf16_trains(zero: int, tmp_path: Path, by_sgd: dict[int, float | None]) -> None:
    gang = run_gang(digits_launch(tmp_path, train={**BY_SGD, "precision": "bf16"}, parallelism={"zero": zero}))
    losses = gang.losses()
    assert losses != by_sgd
    assert losses == pytest.approx(by_sgd, rel=0.03)


def test_the_whole_life_of_digits_cnn_reaches_98_percent(tmp_path: Path) -> None:
    launch = digits_launch(tmp_path, train={"epochs": 20}, model={})
    gang = run_gang(launch)
    done = gang.one(Done)
    assert done.metrics["test_accuracy"] >= 0.98
    assert [each.epoch for each in gang.of(EpochEnded)] == list(range(20))
    best = [each for each in gang.of(Sealed) if each.best]
    assert done.checkpoint == best[-1].checkpoint
    assert best[-1].metrics["val_loss"] == min(each.metrics["val_loss"] for each in gang.of(EpochEnded))
    assert gang.of(Sealed)[-1].step == done.step == 197
    assert not gang.of(Done, rank=1)
    assert not gang.of(Sealed, rank=1)


def test_text_transformer_learns_english(tmp_path: Path) -> None:
    launch = replace(
        digits_launch(
            tmp_path,
            data={"source": "text://pydoc_topics", "split": [0.98, 0.01, 0.01]},
            model={"layers": 1, "width": 32, "context": 32},
            train={"epochs": None, "steps": 60, "global_batch": 32, "lr": 1e-2, "clip": 1.0},
        ),
        target="text_transformer",
    )
    gang = run_gang(launch)
    first_loss = gang.losses()[1]
    assert first_loss is not None
    assert first_loss > 4.0  # nothing known: about the logarithm of a hundred characters
    assert gang.one(Done).metrics["test_loss"] < 3.0


def test_early_stopping_ends_the_run_and_says_why(tmp_path: Path) -> None:
    stopping = {"metric": "val_accuracy", "mode": "min", "patience": 2}
    gang = run_gang(digits_launch(tmp_path, train={"epochs": 20, "early_stopping": stopping}))
    done = gang.one(Done)
    assert done.stopped_early is not None
    assert done.stopped_early.startswith("val_accuracy has not improved for 2 epochs")
    accuracies = [each.metrics["val_accuracy"] for each in gang.of(EpochEnded)]
    assert len(accuracies) < 20
    assert min(accuracies[-2:]) >= min(accuracies)


def test_a_stop_is_in_order_after_the_same_step_everywhere(tmp_path: Path) -> None:
    def stop_at_step_5(gang: Gang, rank: int, message: Message) -> None:
        if rank == 1 and isinstance(message, Step) and message.step == 5:
            gang.kill(1, signal.SIGTERM)

    gang = run_gang(digits_launch(tmp_path, train={"epochs": 500}), watch=stop_at_step_5)
    assert gang.codes == [ExitCode.STOPPED, ExitCode.STOPPED]
    assert gang.one(Failed).step == gang.one(Failed, rank=1).step == gang.of(Sealed)[-1].step
    assert not gang.one(Failed).secondary


def test_peers_of_a_killed_rank_end_as_secondary(tmp_path: Path) -> None:
    def kill_at_step_5(gang: Gang, rank: int, message: Message) -> None:
        if rank == 0 and isinstance(message, Step) and message.step == 5:
            gang.kill(1)

    gang = run_gang(digits_launch(tmp_path, train={"epochs": 500}), watch=kill_at_step_5)
    assert gang.codes == [ExitCode.LOST_PEER, -signal.SIGKILL]
    assert gang.one(Failed).secondary


def test_a_loss_that_is_no_number_ends_every_rank_alike(tmp_path: Path) -> None:
    gang = run_gang(digits_launch(tmp_path, train={"lr": 1e30}))
    assert gang.codes == [ExitCode.BAD_LOSS, ExitCode.BAD_LOSS]
    assert "train.lr" in gang.one(Failed).message
    assert not gang.of(Sealed)


def test_missing_data_is_told_with_its_path_in_the_run_file(tmp_path: Path) -> None:
    gang = run_gang(digits_launch(tmp_path, data={"source": "/nowhere/faces.npz"}))
    assert gang.codes == [ExitCode.BAD_CONFIG, ExitCode.BAD_CONFIG]
    assert gang.one(Failed).message.startswith("data.source: got '/nowhere/faces.npz': no such file")


def test_ranks_train_on_prepared_data_which_the_first_of_them_makes(tmp_path: Path) -> None:
    data = {
        "source": "sklearn://digits",
        "split_by": {"stratify": "target"},
        "steps": {"augment": {"shift": 1}},
        "prepared": str(tmp_path / "prepared"),
    }
    gang = run_gang(digits_launch(tmp_path, data=data, model={"width": 16}, train={"epochs": 10}))
    assert gang.codes == [0, 0], gang.of(Failed)
    (prepared,) = (each for each in (tmp_path / "prepared").iterdir() if each.is_dir())
    assert gang.one(Done).metrics["test_accuracy"] >= 0.85
    (line,) = audit.audit(json.loads(manifest_of(gang))["cursor"]).epochs[-1:]
    assert (line.number, line.exactly_once) == (9, True)
    assert json.loads(manifest_of(gang))["extra"]["notes"]["prepared"] == prepared.name


def manifest_of(gang: Gang) -> str:
    """Of the last checkpoint."""
    return Path(gang.of(Sealed)[-1].checkpoint, "manifest.json").read_text()


def test_data_that_break_a_rule_end_the_ranks_before_they_train_and_are_named(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    for number in range(8):
        (tmp_path / "cat" / f"{number}.png").write_bytes(b"no image")
    data = {"source": str(tmp_path / "cat"), "clean": {"nulls": "refuse"}, "prepared": str(tmp_path / "prepared")}
    gang = run_gang(digits_launch(tmp_path, data={**data, "label": "label"}))
    assert gang.codes == [ExitCode.BAD_CONFIG, ExitCode.BAD_CONFIG]
    assert "must be an image that can be decoded: 8 rows" in gang.one(Failed).message
    assert str(tmp_path / "cat" / "0.png") in gang.one(Failed).message
    assert not gang.of(Step)


def test_steps_done_before_are_told_as_recomputing(tmp_path: Path) -> None:
    gang = run_gang(replace(digits_launch(tmp_path, train=STEPS), furthest_step=3), world_size=1)
    changes = [each.phase for each in gang.of(PhaseChanged)]
    at = {each.phase: each.at_ns for each in reversed(gang.of(PhaseChanged))}
    done_at = {each.step: each.at_ns for each in gang.of(Step)}
    assert changes[:4] == ["starting", "restoring", "recomputing", "training"]
    assert done_at[3] <= at["training"] <= done_at[4]


ENTRYPOINT = """
import torch
from trainers.data.loader import Splits, Tensors

class Line:
    judged_by, judged_mode, notes = "val_error", "min", {}

    def __init__(self):
        x = torch.linspace(-1, 1, 64).unsqueeze(1)
        points = Tensors({"x": x, "y": 3 * x})
        self.splits = Splits(points, points, points)

    def model(self):
        return torch.nn.Linear(1, 1)

    def loss(self, model, batch):
        return (model(batch["x"]) - batch["y"]).square().mean()

    def measure(self, model, batch):
        return {"error": (model(batch["x"]) - batch["y"]).abs().squeeze(1)}

def make_task(settings):
    return Line()

def make_nothing(settings):
    return None
"""


def test_an_entrypoint_trains_a_task_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "fit.py").write_text(ENTRYPOINT)
    launch = digits_launch(tmp_path, train={"epochs": 60, "global_batch": 16, "lr": 0.1}, model={})
    gang = run_gang(replace(launch, kind="entrypoint", target="fit:make_task", code_dir=str(tmp_path)))
    assert gang.one(Done).metrics["test_error"] < 0.01


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("absent:make_task", "no module absent"),
        ("fit:absent", "module fit has no 'absent'"),
        ("fit:make_nothing", "must return a trainers.tasks.task.Task"),
    ],
)
def test_a_wrong_entrypoint_is_a_bad_config(target: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "fit.py").write_text(ENTRYPOINT)
    launch = replace(digits_launch(tmp_path), kind="entrypoint", target=target, code_dir=str(tmp_path))
    gang = run_gang(launch, world_size=1)
    assert gang.codes == [ExitCode.BAD_CONFIG]
    assert words in gang.one(Failed).message


def test_the_profile_of_prepared_data_is_told_with_the_result(tmp_path: Path) -> None:
    data = {"source": "sklearn://digits", "steps": {"normalize": "standard"}, "prepared": str(tmp_path / "prepared")}
    done = run_gang(digits_launch(tmp_path, data=data, train=STEPS), world_size=2).one(Done)
    assert done.note is None
    profile = done.facts["profile"]
    assert profile["rows"] == pytest.approx(0.7 * 1797, abs=60)
    assert sum(profile["label"]["values"].values()) == profile["rows"]
    told = profile["predictions"]
    assert told["part"] == "test"
    assert told["rows"] == told["label"]["count"] == told["confidence"]["count"] == pytest.approx(0.15 * 1797, abs=60)
    assert sum(told["label"]["values"].values()) == told["rows"]
    assert set(told["label"]["values"]) <= set(profile["label"]["values"])
    sketch = Sketch.from_text(told["confidence"]["sketch"])
    assert sketch.count == told["rows"]
    calibration = told["calibration"]
    assert sum(calibration["rows"]) == told["rows"]
    assert sum(calibration["right"]) / told["rows"] == pytest.approx(done.metrics["test_accuracy"])
    low, high = sketch.quantiles(np.array([0.0, 1.0]))
    assert (low, high) == (told["confidence"]["min"], told["confidence"]["max"])
    assert 0.1 <= low <= told["confidence"]["mean"] <= high <= 1
