"""The residual network on real digits, on two ranks."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.trainers.gangs import digits_launch, run_gang
from tests.shared_data import shared_data
from trainers.contract import Done, Sealed

LONG_S = 600.0  # most that a machine with other things to do may take for what takes a quiet one half a minute


@pytest.mark.timeout(LONG_S)
def test_mnist_reaches_97_percent(tmp_path: Path) -> None:
    images = shared_data("mnist-10k-images-idx3-ubyte.gz")
    shared_data("mnist-10k-labels-idx1-ubyte.gz")
    launch = digits_launch(
        tmp_path,
        data={"source": str(images), "split": [0.8, 0.0, 0.2]},
        model={"width": 16},
        train={"epochs": 4, "global_batch": 32, "lr": 5e-3, "schedule": {"type": "cosine"}},
    )
    gang = run_gang(launch, patience_s=LONG_S)
    done = gang.one(Done)
    assert done.metrics["test_accuracy"] >= 0.97
    assert done.checkpoint == gang.of(Sealed)[-1].checkpoint  # with no validation part, the last weights are the result
    assert done.note == "val_loss was not measured: kept are the last weights"


@pytest.mark.parametrize("zero", [0, 2])
def test_batch_norm_over_all_ranks_keeps_the_losses_of_one(zero: int, tmp_path: Path) -> None:
    def losses(world_size: int) -> dict[int, float | None]:
        launch = digits_launch(
            tmp_path / str(world_size),
            model={"width": 8, "norm": "batch"},
            train={"steps": 6, "epochs": None},
            parallelism={"zero": zero},
        )
        gang = run_gang(launch, world_size)
        assert set(gang.codes) == {0}
        return {**gang.losses(), 0: gang.one(Done).metrics["test_loss"]}

    assert losses(2) == pytest.approx(losses(1), rel=1e-4)
