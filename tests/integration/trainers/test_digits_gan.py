"""A generator of digits and its discriminator: two engines in one run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from sklearn.neural_network import MLPClassifier
from torch import nn

from tests.integration.trainers.families import gan_launch, six_steps_of_a_gan
from tests.integration.trainers.gangs import LONG_PATIENCE_S, Gang, again, restored_step, run_gang
from tests.integration.trainers.test_resume import killed_at, sealed
from trainers.config import Settings, plan_batch, read_settings
from trainers.contract import Done, Sealed
from trainers.data.loader import Loader
from trainers.data.sampler import Sampler
from trainers.data.sources import read_labelled, split_indices
from trainers.models.gan import Generator
from trainers.recipes.digits_gan import digits_gan

SAMPLES = 1000
Images = npt.NDArray[np.float32]
Classes = npt.NDArray[np.int64]


def drawn(checkpoint: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Images [n, 8, 8] within -1 and 1 by the sealed generator, and the classes that it was asked for."""
    generator = Generator(noise=32, classes=10, height=8, width_px=8, width=256)
    state = torch.load(Path(checkpoint, "mp_rank_00_model_states.pt"), weights_only=False)
    generator.load_state_dict(state["module"])
    classes = torch.arange(SAMPLES) % 10
    with torch.no_grad():
        return generator(torch.randn(SAMPLES, 32, generator=torch.Generator().manual_seed(0)), classes), classes


def spread(images: torch.Tensor) -> float:
    """Mean distance between two images."""
    flat = images.flatten(1)
    return float(torch.pdist(flat).mean())


def confident(judge: MLPClassifier, images: Images, classes: Classes) -> npt.NDArray[np.bool_]:
    """Which images [n, 8, 8] within 0 and 1 the judge takes for their class, with nine parts in ten of its belief."""
    belief = judge.predict_proba(images.reshape(-1, 64))
    taken: npt.NDArray[np.bool_] = (belief.max(axis=1) >= 0.9) & (belief.argmax(axis=1) == classes)
    return taken


def test_a_judge_of_real_digits_accepts_what_it_draws_and_nothing_collapses(tmp_path: Path) -> None:
    train = {"epochs": 26, "global_batch": 64, "lr": 2e-3, "schedule": {"type": "linear"}}
    done = run_gang(gan_launch(tmp_path, train=train), patience_s=LONG_PATIENCE_S).one(Done)
    assert done.checkpoint is not None
    images, asked = drawn(done.checkpoint)
    real = read_labelled("sklearn://digits")
    known, _, unknown = split_indices(len(real.targets), (0.7, 0.15, 0.15))
    judge = MLPClassifier((128, 128), random_state=0).fit(real.inputs[known].reshape(-1, 64), real.targets[known])
    assert confident(judge, real.inputs[unknown], real.targets[unknown]).mean() >= 0.9  # the judge knows digits
    accepted = confident(judge, (images.numpy() + 1) / 2, asked.numpy())
    print(f"accepted {accepted.mean():.3f}")
    assert accepted.mean() >= 0.8
    shares = np.bincount(asked.numpy()[accepted], minlength=10) / accepted.sum()
    assert shares.min() >= 0.05  # all ten, and none of them rare
    for digit in range(10):
        originals = torch.from_numpy(2 * real.inputs[real.targets == digit] - 1)
        assert spread(images[asked == digit]) >= 0.6 * spread(originals)


class Plain:
    """An engine of torch alone, whose gradients begin at nothing in every step."""

    def __init__(self, build: Callable[[], nn.Module], settings: Settings) -> None:
        torch.manual_seed(settings.train.seed)
        self.module = build()
        self.optimizer = torch.optim.Adam(self.module.parameters(), settings.train.lr, settings.train.betas)

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        images: torch.Tensor = self.module(*inputs)
        return images

    def backward(self, loss: torch.Tensor) -> None:
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]

    def step(self) -> None:
        self.optimizer.step()


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[int, float]:
    """Losses by step, of torch alone in this process."""
    settings = read_settings(six_steps_of_a_gan(tmp_path_factory.mktemp("reference")))
    task = digits_gan(settings)
    plan = plan_batch(settings.train, 1)
    sampler = Sampler(len(task.splits.train), plan.global_batch, settings.train.seed)
    loader = Loader(plan, 0, torch.device("cpu"), torch.float32)
    engine: Any = Plain(task.model, settings)
    helpers: Any = {name: Plain(make, settings) for name, make in task.helpers().items()}
    losses = {}
    for step in range(6):
        batches = loader.training(task.splits.train, sampler, step * plan.global_batch)
        losses[step + 1] = float(task.step(engine, helpers, batches))
    return losses


@pytest.mark.parametrize(("zero", "micro_batch"), [(0, 16), (1, 4), (2, 16), (3, 16)])
def test_losses_are_those_of_torch_alone_whatever_the_ranks_zero_and_accumulation(
    zero: int, micro_batch: int, tmp_path: Path, reference: dict[int, float]
) -> None:
    gang = run_gang(six_steps_of_a_gan(tmp_path, zero, micro_batch=micro_batch))
    assert gang.codes == [0, 0]
    assert gang.losses() == pytest.approx(reference, rel=1e-4)


@pytest.mark.parametrize("zero", [0, 2])
def test_both_engines_resume_bit_for_bit(zero: int, tmp_path: Path) -> None:
    whole = run_gang(six_steps_of_a_gan(tmp_path / "whole", zero))
    launch = six_steps_of_a_gan(tmp_path / "killed", zero)
    killed_at(5, launch)
    second = run_gang(again(launch))
    assert restored_step(second) == 4
    assert of_discriminator(second)
    assert sealed(second) == sealed(whole)


def of_discriminator(gang: Gang) -> list[str]:
    files = Path(gang.of(Sealed)[-1].checkpoint).glob("discriminator.*")
    return [each.name for each in files]
