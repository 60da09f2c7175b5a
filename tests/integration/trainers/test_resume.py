"""A run that is killed and resumed computes what a run that never stopped computes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.integration.trainers import odd_tasks
from tests.integration.trainers.gangs import Gang, again, digits_launch, restored_step, run_gang
from trainers.contract import Done, EpochEnded, ExitCode, Failed, Launch, Message, Restored, Sealed, Step

STEPS_AN_EPOCH = 10  # the second of them a step less


def two_epochs(root: Path, zero: int, *, every_steps: int, **train: Any) -> Launch:
    """Twenty steps with dropout, momentum and a schedule: everything that a checkpoint has to bring back."""
    schedule = {"type": "cosine", "warmup_steps": 4, "final_ratio": 0.1}
    return digits_launch(
        root,
        model={"width": 8, "dropout": 0.3},
        train={"schedule": schedule, "clip": 1.0, "micro_batch": 32, **train},
        parallelism={"zero": zero},
        checkpoint={"every_steps": every_steps},
    )


def killed_at(step: int, launch: Launch) -> Gang:
    def kill(gang: Gang, rank: int, message: Message) -> None:
        if rank == 0 and isinstance(message, Step) and message.step == step:
            gang.kill(1)

    return run_gang(launch, watch=kill)


def sealed(gang: Gang) -> dict[str, Any]:
    """Everything in the last checkpoint by its path: weights, optimizer, schedule and random state, to the last bit."""
    values: dict[str, Any] = {}
    for file in sorted(Path(gang.of(Sealed)[-1].checkpoint).glob("*.pt")):
        flatten(torch.load(file, weights_only=False), file.name, values)
    return values


def flatten(value: Any, path: str, into: dict[str, Any]) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            flatten(inner, f"{path}/{key}", into)
    elif isinstance(value, (list, tuple)):
        for index, inner in enumerate(value):
            flatten(inner, f"{path}/{index}", into)
    elif isinstance(value, torch.Tensor):
        into[path] = (value.dtype, value.shape, value.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    elif isinstance(value, (int, float, str, type(None))):
        into[path] = value


@pytest.mark.parametrize("zero", [0, 1, 2, 3])
def test_resuming_equals_no_interruption_bit_for_bit(zero: int, tmp_path: Path) -> None:
    whole = run_gang(two_epochs(tmp_path / "whole", zero, every_steps=5))
    launch = two_epochs(tmp_path / "killed", zero, every_steps=5)
    first = killed_at(7, launch)
    second = run_gang(again(launch))
    assert first.codes != [0, 0]
    assert restored_step(second) == 5
    assert second.losses() == {step: loss for step, loss in whole.losses().items() if step > 5}
    assert sealed(second) == sealed(whole)
    assert second.one(Done).metrics == pytest.approx(whole.one(Done).metrics, rel=1e-12)


PLATEAU = {
    "schedule": {"type": "plateau", "factor": 0.3, "patience": 1},
    "early_stopping": {"metric": "val_accuracy", "mode": "min", "patience": 9},  # it never improves: the rate falls
    "epochs": 3,
}


@pytest.mark.parametrize(
    ("zero", "options"),
    [
        (0, {"ema": 0.9, "schedule": {"type": "one_cycle"}}),
        (1, {"optimizer": "lion", "ema": 0.9, "precision": "bf16", **PLATEAU}),
        (2, {"optimizer": "muon", "weight_decay": 0.01, "weight_decay_on": "matrices", "ema": 0.9}),
        (3, {"optimizer": "muon", "lr": 1e-2, **PLATEAU}),
    ],
)
def test_options_are_resumed_bit_for_bit(zero: int, options: dict[str, Any], tmp_path: Path) -> None:
    whole = run_gang(two_epochs(tmp_path / "whole", zero, every_steps=5, **options))
    launch = two_epochs(tmp_path / "killed", zero, every_steps=5, **options)
    first = killed_at(22 if "epochs" in options else 7, launch)
    second = run_gang(again(launch))
    assert first.codes != [0, 0]
    assert restored_step(second) == (20 if "epochs" in options else 5)
    assert second.losses() == {step: loss for step, loss in whole.losses().items() if step > restored_step(second)}
    assert sealed(second) == sealed(whole)
    assert second.of(Step)[-1].learning_rate == whole.of(Step)[-1].learning_rate
    assert second.one(Done).metrics == pytest.approx(whole.one(Done).metrics, rel=1e-12)


@pytest.mark.parametrize("zero", [1, 2])
def test_a_dynamic_loss_scale_is_resumed_bit_for_bit(zero: int, tmp_path: Path) -> None:
    def launch_in(root: Path) -> Launch:
        launch = two_epochs(root, zero, every_steps=5, precision="fp16")
        return replace(launch, kind="entrypoint", target=f"{odd_tasks.__name__}:half_precision_digits")

    whole = run_gang(launch_in(tmp_path / "whole"))
    launch = launch_in(tmp_path / "killed")
    killed_at(12, launch)
    second = run_gang(again(launch))
    assert restored_step(second) == 10
    assert second.losses() == {step: loss for step, loss in whole.losses().items() if step > 10}
    assert sealed(second) == sealed(whole)


def test_a_resumed_epoch_reports_the_loss_of_all_its_steps(tmp_path: Path) -> None:
    whole = run_gang(two_epochs(tmp_path / "whole", 2, every_steps=4), world_size=1)
    launch = two_epochs(tmp_path / "killed", 2, every_steps=4)

    def kill(gang: Gang, rank: int, message: Message) -> None:
        if isinstance(message, Step) and message.step == 6:
            gang.kill(0)

    run_gang(launch, world_size=1, watch=kill)
    second = run_gang(again(launch), world_size=1)
    expected = whole.of(EpochEnded)[0].metrics["train_loss"]
    assert second.of(EpochEnded)[0].metrics["train_loss"] == pytest.approx(expected, rel=1e-12)


def test_early_stopping_goes_on_counting_after_a_resume(tmp_path: Path) -> None:
    stopping = {"metric": "val_accuracy", "mode": "min", "patience": 3}
    launch = two_epochs(tmp_path, 2, every_steps=9, epochs=20, early_stopping=stopping, lr=1e-3)
    killed_at(2 * STEPS_AN_EPOCH + 3, launch)
    done = run_gang(again(launch)).one(Done)
    assert done.stopped_early is not None
    assert "for 3 epochs" in done.stopped_early
    assert done.step < 20 * STEPS_AN_EPOCH


def test_a_run_killed_after_its_last_step_only_evaluates(tmp_path: Path) -> None:
    launch = two_epochs(tmp_path, 2, every_steps=9)
    first = run_gang(launch)
    second = run_gang(again(launch))
    assert restored_step(second) == 20
    assert second.of(Step) == []
    assert second.one(Done).metrics == first.one(Done).metrics
    assert second.one(Done).checkpoint == first.one(Done).checkpoint


def test_a_stopped_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    launch = two_epochs(tmp_path, 2, every_steps=100)

    def stop(gang: Gang, rank: int, message: Message) -> None:
        if rank == 0 and isinstance(message, Step) and message.step == 3:
            gang.kill(0, 15)

    first = run_gang(launch, watch=stop)
    assert first.codes == [ExitCode.STOPPED, ExitCode.STOPPED]
    assert restored_step(run_gang(again(launch))) == first.one(Failed).step


def test_a_fresh_start_says_so(tmp_path: Path) -> None:
    gang = run_gang(two_epochs(tmp_path, 2, every_steps=100), world_size=1)
    assert gang.one(Restored) == Restored(step=0, checkpoint=None)


@pytest.mark.parametrize(
    ("change", "path"),
    [({"global_batch": 64}, "train.global_batch"), ({"seed": 4}, "train.seed")],
)
def test_a_checkpoint_of_another_data_order_is_refused(change: dict[str, int], path: str, tmp_path: Path) -> None:
    launch = two_epochs(tmp_path, 0, every_steps=9)
    run_gang(launch, world_size=1)
    other = {**launch.config, "train": {**launch.config["train"], **change}}
    gang = run_gang(again(replace(launch, config=other)), world_size=1)
    assert gang.codes == [ExitCode.BAD_CONFIG]
    assert gang.one(Failed).message.startswith(path)
