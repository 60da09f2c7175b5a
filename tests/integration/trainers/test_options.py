"""What the options of `train:` do, in real two-rank trainings."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.integration.trainers import odd_tasks
from tests.integration.trainers.gangs import Gang, again, digits_launch, run_gang
from tests.integration.trainers.odd_tasks import SIZE, SPOILT
from trainers.contract import Done, EpochEnded, ExitCode, Failed, Launch, Manifest, Sealed, Step
from trainers.data.sampler import Sampler

SIX_STEPS = {"steps": 6, "epochs": None}


def odd_launch(root: Path, make: Any, **train: Any) -> Launch:
    """A run of one of `odd_tasks`, in batches of 16 of its 64 samples."""
    launch = digits_launch(
        root, train={"global_batch": 16, **train}, model={}, parallelism={"zero": 2}, checkpoint={"every_steps": 1}
    )
    return replace(launch, kind="entrypoint", target=f"{odd_tasks.__name__}:{make.__name__}")


def text_launch(root: Path, *, zero: int, **train: Any) -> Launch:
    launch = digits_launch(
        root,
        data={"source": "text://pydoc_topics", "split": [0.98, 0.01, 0.01]},
        model={"layers": 2, "width": 32, "context": 32, "dropout": 0.1},
        train={**SIX_STEPS, "global_batch": 16, **train},
        parallelism={"zero": zero},
    )
    return replace(launch, target="text_transformer")


def manifest(gang: Gang) -> Manifest:
    return Manifest.from_json((Path(gang.of(Sealed)[-1].checkpoint) / "manifest.json").read_text())


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[int, float | None]:
    """Losses of six steps of text_transformer without any option."""
    return run_gang(text_launch(tmp_path_factory.mktemp("plain"), zero=0)).losses()


@pytest.mark.parametrize(("optimizer", "lr"), [("lion", 3e-3), ("muon", 1e-2)])
def test_lion_and_muon_learn_alike_at_every_zero_stage(
    optimizer: str, lr: float, tmp_path: Path, plain: dict[int, float | None]
) -> None:
    def trained(zero: int) -> dict[int, float | None]:
        gang = run_gang(text_launch(tmp_path / str(zero), zero=zero, optimizer=optimizer, lr=lr, steps=10))
        assert gang.codes == [0, 0], gang.of(Failed)
        return gang.losses()

    reference = trained(0)
    first, last = reference[1], reference[10]
    assert first == plain[1]
    assert first is not None
    assert last is not None
    assert last < first - 0.5
    for zero in (1, 2, 3):
        assert trained(zero) == pytest.approx(reference, rel=1e-4)


@pytest.mark.parametrize("zero", [0, 2, 3])
def test_activation_checkpointing_changes_no_loss(zero: int, tmp_path: Path, plain: dict[int, float | None]) -> None:
    gang = run_gang(text_launch(tmp_path, zero=zero, activation_checkpointing=True))
    assert gang.codes == [0, 0], gang.of(Failed)
    assert gang.losses() == pytest.approx(plain, rel=1e-5)


def test_activation_checkpointing_of_a_model_without_blocks_is_refused(tmp_path: Path) -> None:
    gang = run_gang(digits_launch(tmp_path, train={"activation_checkpointing": True}), world_size=1)
    assert gang.codes == [ExitCode.BAD_CONFIG]
    assert "Cnn has no nn.ModuleList" in gang.one(Failed).message


@pytest.mark.parametrize("zero", [1, 2])
def test_fp16_trains_with_a_loss_scale(zero: int, tmp_path: Path) -> None:
    # By sgd, whose steps are as long as the gradient: Adam's would be the same at any scale.
    six_steps = {**SIX_STEPS, "optimizer": "sgd", "lr": 0.05}
    launch = digits_launch(
        tmp_path, train={**six_steps, "precision": "fp16", "loss_scale": 1024}, parallelism={"zero": zero}
    )
    launch = replace(launch, kind="entrypoint", target=f"{odd_tasks.__name__}:half_precision_digits")
    gang = run_gang(launch)
    assert gang.codes == [0, 0], gang.of(Failed)
    reference = run_gang(digits_launch(tmp_path / "fp32", train=six_steps, parallelism={"zero": zero})).losses()
    assert gang.losses() != reference
    assert gang.losses() == pytest.approx(reference, rel=0.01)


def test_fp16_is_refused_where_nothing_computes_it(tmp_path: Path) -> None:
    gang = run_gang(digits_launch(tmp_path, train={"precision": "fp16"}), world_size=1)
    if gang.codes == [0]:
        pytest.skip("this CPU computes fp16")
    assert gang.codes == [ExitCode.BAD_CONFIG]
    assert gang.one(Failed).message.startswith("train.precision: got 'fp16': this cpu has no arithmetic for it")


def test_compiling_keeps_the_losses(tmp_path: Path) -> None:
    train = {"global_batch": 16, "steps": 4, "epochs": None}
    compiled = run_gang(odd_launch(tmp_path / "compiled", odd_tasks.traced_line, **train, compile=True), world_size=1)
    eager = run_gang(odd_launch(tmp_path / "eager", odd_tasks.line, **train), world_size=1)
    assert compiled.codes == [0], compiled.of(Failed)
    assert compiled.losses() == pytest.approx(eager.losses(), rel=1e-4)


def test_averaged_weights_are_evaluated_and_tested(tmp_path: Path) -> None:
    """The last epoch's weights differ from their average, and both are in the seal."""
    train = {"epochs": 2, "lr": 1e-2}
    raw = run_gang(digits_launch(tmp_path / "raw", train=train))
    averaged = run_gang(digits_launch(tmp_path / "averaged", train={**train, "ema": 0.99}))
    assert averaged.losses() == raw.losses()
    assert averaged.of(EpochEnded)[-1].metrics["val_loss"] != raw.of(EpochEnded)[-1].metrics["val_loss"]
    best = min(averaged.of(EpochEnded), key=lambda each: each.metrics["val_loss"])
    assert averaged.one(Done).checkpoint == next(
        each.checkpoint for each in averaged.of(Sealed) if each.step == best.step
    )
    assert averaged.one(Done).metrics["test_loss"] < 2.0


def test_averaged_weights_with_zero_3_are_refused(tmp_path: Path) -> None:
    gang = run_gang(digits_launch(tmp_path, train={"ema": 0.99}, parallelism={"zero": 3}), world_size=1)
    assert gang.codes == [ExitCode.BAD_CONFIG]
    assert "parallelism.zero 3 must be at most 2" in gang.one(Failed).message


def test_a_plateau_lowers_the_learning_rate_at_the_end_of_epochs(tmp_path: Path) -> None:
    """A metric that cannot improve: accuracy that should fall while the model learns."""
    schedule = {"type": "plateau", "factor": 0.1, "patience": 1}
    stopping = {"metric": "val_accuracy", "mode": "min", "patience": 9}
    gang = run_gang(
        digits_launch(tmp_path, train={"epochs": 3, "lr": 2e-3, "schedule": schedule, "early_stopping": stopping})
    )
    rates = {each.epoch: each.learning_rate for each in gang.of(Step)}
    assert rates == pytest.approx({0: 2e-3, 1: 2e-3, 2: 2e-4})


def test_a_range_test_finds_a_rate_and_leaves_the_run_as_it_was(tmp_path: Path) -> None:
    auto = run_gang(digits_launch(tmp_path / "auto", train={**SIX_STEPS, "lr": "auto"}))
    assert auto.codes == [0, 0], auto.of(Failed)
    test = manifest(auto).extra["automatic"]["range_test"]
    assert 1e-4 < test["chosen"] < 1.0
    assert len(test["lr"]) == len(test["loss"]) >= 20
    said = run_gang(digits_launch(tmp_path / "said", train={**SIX_STEPS, "lr": test["chosen"]}))
    assert said.losses() == auto.losses()


def test_a_range_test_is_not_made_again_after_a_restart(tmp_path: Path) -> None:
    launch = digits_launch(tmp_path, train={**SIX_STEPS, "lr": "auto"}, checkpoint={"every_steps": 2})

    def kill(gang: Gang, rank: int, message: Any) -> None:
        if rank == 0 and isinstance(message, Step) and message.step == 3:
            gang.kill(0)

    first = run_gang(launch, watch=kill)
    assert first.codes != [0, 0]
    note = Path(first.of(Sealed)[-1].checkpoint) / "manifest.json"
    noted = json.loads(note.read_text())
    chosen = noted["extra"]["automatic"]["range_test"]
    chosen["loss"][0] = 77.0  # another test would not find that
    note.write_text(json.dumps(noted))
    second = run_gang(again(launch))
    assert manifest(second).extra["automatic"]["range_test"] == chosen
    assert second.of(Step)[-1].learning_rate == pytest.approx(chosen["chosen"])


def test_the_largest_micro_batch_that_can_be_allocated_is_found(tmp_path: Path) -> None:
    """Each rank's share is 8 samples; five are too many, so its largest divisor below is four."""
    gang = run_gang(odd_launch(tmp_path, odd_tasks.hungry, steps=2, epochs=None, micro_batch="auto"))
    assert gang.codes == [0, 0], gang.of(Failed)
    assert manifest(gang).extra["automatic"] == {"micro_batch": 4}
    assert gang.of(Step)[-1].samples == 32


def test_a_micro_batch_stays_below_the_memory_of_a_worker(tmp_path: Path) -> None:
    """A sample takes 16 MiB several times over, and a rank has some hundred MiB beside its own: 64 are too many."""
    launch = odd_launch(tmp_path, odd_tasks.heavy, steps=1, epochs=None, micro_batch="auto", global_batch=64)
    bounded = run_gang(replace(launch, memory_bytes=1200 * 2**20), world_size=1)
    assert bounded.codes == [0], bounded.of(Failed)
    assert 2 <= manifest(bounded).extra["automatic"]["micro_batch"] <= 32


def test_a_failed_allocation_is_told_as_out_of_memory(tmp_path: Path) -> None:
    gang = run_gang(odd_launch(tmp_path, odd_tasks.hungry, steps=2, epochs=None))
    assert ExitCode.OUT_OF_MEMORY in gang.codes
    assert set(gang.codes) <= {ExitCode.OUT_OF_MEMORY, ExitCode.LOST_PEER}
    rank = gang.codes.index(ExitCode.OUT_OF_MEMORY)
    assert "lower train.micro_batch or raise resources.memory" in gang.one(Failed, rank).message


def spoilt_step(seed: int) -> tuple[int, list[int]]:
    """The step that the odd sample belongs to, and the order of its batch."""
    sampler = Sampler(SIZE, 16, seed)
    for step in range(4):
        batch = sampler.batch(16 * step).tolist()
        if SPOILT in batch:
            return step + 1, batch
    raise AssertionError("an epoch holds every sample")


def test_a_nan_loss_is_told_with_its_step_and_samples_and_keeps_the_seal_before(tmp_path: Path) -> None:
    step, batch = spoilt_step(seed=3)
    gang = run_gang(odd_launch(tmp_path, odd_tasks.spoilt_loss, micro_batch=4))
    assert gang.codes == [ExitCode.BAD_LOSS, ExitCode.BAD_LOSS]
    at = batch.index(SPOILT)
    micro_batch = sorted(batch[at // 4 * 4 : at // 4 * 4 + 4])
    words = f"the loss became nan at step {step}, on sample ids {', '.join(map(str, micro_batch))}:"
    assert all(gang.one(Failed, rank).message.startswith(words) for rank in (0, 1))
    assert [each.step for each in gang.of(Sealed)] == list(range(1, step))
    assert (Path(gang.of(Sealed)[-1].checkpoint) / "manifest.json").exists() or step == 1


@pytest.mark.parametrize("zero", [0, 2, 3])
def test_weights_that_saw_a_nan_gradient_are_never_sealed(zero: int, tmp_path: Path) -> None:
    step, batch = spoilt_step(seed=3)
    launch = odd_launch(tmp_path, odd_tasks.spoilt_gradient)
    gang = run_gang(replace(launch, config={**launch.config, "parallelism": {"zero": zero}}))
    assert gang.codes == [ExitCode.BAD_LOSS, ExitCode.BAD_LOSS]
    message = gang.one(Failed).message
    what = "the gradient of step {} was" if zero else "the weights after the update of step {} are"
    assert message.startswith(f"{what.format(step)} NaN or infinite, though its loss was a number")
    assert ", ".join(map(str, batch)) in message
    assert [each.step for each in gang.of(Sealed)] == list(range(1, step))
    assert all(math.isfinite(loss) for loss in gang.losses().values() if loss is not None)


@pytest.mark.parametrize("zero", [0, 2, 3])
def test_weights_that_overflowed_are_never_sealed(zero: int, tmp_path: Path) -> None:
    """Loss and gradient of the first step are numbers; its update is beyond what float32 holds."""
    train = {"optimizer": "sgd", "lr": 3e38, "weight_decay": 100.0}
    gang = run_gang(digits_launch(tmp_path, train=train, parallelism={"zero": zero}, checkpoint={"every_steps": 1}))
    assert gang.codes == [ExitCode.BAD_LOSS, ExitCode.BAD_LOSS]
    assert gang.one(Failed).message.startswith("the weights after the update of step 1 are NaN or infinite")
    assert not gang.of(Sealed)


def test_the_limit_of_steps_may_end_an_epoch_early(tmp_path: Path) -> None:
    """Ten steps are the first epoch; the rest of one is evaluated as one, and counts for early stopping."""
    stopping = {"metric": "val_accuracy", "mode": "min", "patience": 9}
    gang = run_gang(digits_launch(tmp_path, train={"epochs": 5, "steps": 12, "early_stopping": stopping}))
    assert [(each.epoch, each.step) for each in gang.of(EpochEnded)] == [(0, 10), (1, 12)]
    assert gang.one(Done).step == 12
    assert gang.one(Done).stopped_early is None
