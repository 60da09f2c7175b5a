"""Random variants of images belong to the sample, not to the rank or the batch."""

from __future__ import annotations

import numpy as np
import torch

from trainers.config import Augment, Train, plan_batch
from trainers.data.augment import Augmented, vary
from trainers.data.loader import Loader, Tensors
from trainers.data.sampler import Sampler, mix

IMAGES = torch.arange(64 * 2 * 5 * 5, dtype=torch.float32).view(64, 2, 5, 5) + 1
KEYS = mix(0, np.arange(64, dtype=np.uint64)).view(np.int64)


def test_a_flip_turns_about_half_of_the_images_around() -> None:
    varied = vary(IMAGES, KEYS, Augment(flip=True))
    flipped = [bool((one == other.flip(-1)).all()) for one, other in zip(varied, IMAGES, strict=True)]
    same = [bool((one == other).all()) for one, other in zip(varied, IMAGES, strict=True)]
    assert all(one != other for one, other in zip(flipped, same, strict=True))
    assert 20 < sum(flipped) < 44


def test_a_shift_moves_all_channels_of_an_image_alike_and_fills_with_nothing() -> None:
    varied = vary(IMAGES, KEYS, Augment(shift=1))
    moves = set()
    for one, other in zip(varied, IMAGES, strict=True):
        padded = torch.nn.functional.pad(other, (1, 1, 1, 1))
        (move,) = [(y, x) for y in range(3) for x in range(3) if (padded[:, y : y + 5, x : x + 5] == one).all()]
        moves.add(move)
    assert len(moves) == 9


def test_noise_is_normal_and_differs_between_samples() -> None:
    noise = (vary(IMAGES, KEYS, Augment(noise=0.5)) - IMAGES).double()
    assert abs(float(noise.mean())) < 0.05
    assert abs(float(noise.std()) - 0.5) < 0.05
    assert not torch.allclose(noise[0], noise[1], atol=1e-2)


def test_variants_are_the_same_at_every_world_size_and_new_in_every_epoch() -> None:
    examples = Augmented(Tensors({"inputs": IMAGES}), Augment(flip=True, shift=2, noise=0.1))
    sampler = Sampler(64, 16, seed=1)

    def inputs(world_size: int, consumed: int) -> torch.Tensor:
        plan = plan_batch(Train(global_batch=16), world_size)
        ranks = [Loader(plan, rank, torch.device("cpu"), torch.float32) for rank in range(world_size)]
        return torch.cat([batch["inputs"] for rank in ranks for batch in rank.training(examples, sampler, consumed)])

    assert torch.equal(inputs(1, 16), inputs(4, 16))
    order = {int(sample): place for place, sample in enumerate(sampler.stream(64, 64))}
    later = torch.cat([inputs(1, consumed) for consumed in (64, 80, 96, 112)])
    first = inputs(1, 0)
    assert not any(torch.equal(first[at], later[order[int(each)]]) for at, each in enumerate(sampler.batch(0)))


def test_evaluation_sees_images_as_they_are() -> None:
    examples = Augmented(Tensors({"inputs": IMAGES}), Augment(flip=True, shift=2))
    loader = Loader(plan_batch(Train(global_batch=64), 1), 0, torch.device("cpu"), torch.float32)
    (batch,) = loader.evaluation(examples)
    assert torch.equal(batch["inputs"], IMAGES)
