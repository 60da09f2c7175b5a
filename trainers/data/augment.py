"""Random variants of images, drawn anew each time that a sample is seen, and the same at every world size.

All random numbers are hashes of the sample's key, as in `trainers.models.dropout`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from trainers.config import Augment
from trainers.data.loader import Batch, Examples
from trainers.data.sampler import Indices, Unsigned, mix

_FLIP, _DOWN, _RIGHT, _NOISE, _ANGLE = range(0xA06, 0xA0B)


@dataclass(frozen=True)
class Augmented:
    """Examples whose `inputs` [n, channels, height, width] are varied when they are trained on."""

    examples: Examples
    augment: Augment

    def __len__(self) -> int:
        return len(self.examples)

    def take(self, indices: Indices) -> Mapping[str, torch.Tensor]:
        return self.examples.take(indices)

    def vary(self, batch: Batch, keys: Indices) -> Batch:
        """The batch with other inputs, by the random `keys` [n] of its samples."""
        return {**batch, "inputs": vary(batch["inputs"], keys, self.augment)}


def vary(images: torch.Tensor, keys: Indices, augment: Augment) -> torch.Tensor:
    """Flip, shift and add noise, each where `augment` says so. What is shifted in is 0."""
    numbers = keys.view(np.uint64)
    if augment.flip:
        flipped = torch.from_numpy((mix(_FLIP, numbers) >> np.uint64(63)).astype(bool))
        images = torch.where(flipped.view(-1, 1, 1, 1), images.flip(-1), images)
    if augment.shift:
        span = np.uint64(2 * augment.shift + 1)
        down, right = (torch.from_numpy((mix(seed, numbers) % span).astype(np.int64)) for seed in (_DOWN, _RIGHT))
        images = _shifted(images, down, right, augment.shift)
    if augment.noise:
        counters = np.add.outer(numbers, np.arange(images[0].numel(), dtype=np.uint64))
        noise = torch.from_numpy(_normal(counters)).view(images.shape)
        images = images + augment.noise * noise.to(images.dtype)
    return images


def _shifted(images: torch.Tensor, down: torch.Tensor, right: torch.Tensor, most: int) -> torch.Tensor:
    height, width = images.shape[-2:]
    padded = torch.nn.functional.pad(images, (most,) * 4)
    rows = (torch.arange(height) + down.unsqueeze(1))[:, None, :, None]
    columns = (torch.arange(width) + right.unsqueeze(1))[:, None, None, :]
    samples = torch.arange(len(images))[:, None, None, None]
    channels = torch.arange(images.shape[1])[None, :, None, None]
    return padded[samples, channels, rows, columns]


def _normal(counters: Unsigned) -> npt.NDArray[np.float32]:
    """Normal numbers by Box and Muller, "A Note on the Generation of Random Normal Deviates" (1958)."""
    scale = 2.0**-53
    first = ((mix(_NOISE, counters) >> np.uint64(11)).astype(np.float64) + 1) * scale
    second = (mix(_ANGLE, counters) >> np.uint64(11)).astype(np.float64) * scale
    normal: npt.NDArray[np.float32] = (np.sqrt(-2 * np.log(first)) * np.cos(2 * np.pi * second)).astype(np.float32)
    return normal
