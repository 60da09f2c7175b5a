"""A table of learning curves to replay searches on: 2,592 networks, each really trained for 81 epochs, once.

The networks classify scikit-learn's digits: 256 images to train on, 1,000 others to validate. Eight hyperparameters, one
of them conditional, on a grid; between its points a configuration counts as the nearest one. The networks of one
shape and optimizer are trained at once, as one batch of matrices, each with weights and dropout of its own.
"""

from __future__ import annotations

import hashlib
import inspect
import itertools
import math
import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

EPOCHS, TRAINED, VALIDATED = 81, 256, 1000
WIDTHS, BATCHES = (4, 32), (16, 64)
MOMENTA = (None, 0.0, 0.9)  # None: not SGD but Adam
LRS = tuple(float(lr) for lr in np.geomspace(1e-6, 10.0, 12))
DROPOUTS, DECAYS, SCALES = (0.0, 0.5), (1e-4, 1e-2, 1.0), (0.01, 0.3, 10.0)
VARIANTS = tuple(itertools.product(LRS, DROPOUTS, DECAYS, SCALES))  # trained side by side
SHAPE = tuple(map(len, (WIDTHS, BATCHES, MOMENTA, LRS, DROPOUTS, DECAYS, SCALES)))

SPACE: dict[str, Any] = {
    "train.lr": {"log": [1e-6, 10.0]},
    "train.global_batch": {"choice": list(BATCHES)},
    "train.optimizer": {"choice": ["adam", "sgd"]},
    "train.momentum": {"uniform": [0.0, 0.95], "when": {"train.optimizer": "sgd"}},
    "train.weight_decay": {"log": [1e-4, 1.0]},
    "model.width": {"choice": list(WIDTHS)},
    "model.dropout": {"uniform": [0.0, 0.6]},
    "model.init_scale": {"log": [0.01, 10.0]},
}


@dataclass(frozen=True)
class Table:
    """`accuracy` [configurations, epochs]: of validation, after each epoch."""

    accuracy: npt.NDArray[np.float64]

    @property
    def best(self) -> float:
        return float(self.accuracy.max())

    def row(self, config: Mapping[str, Any]) -> int:
        """Of the configuration on the grid that is nearest."""
        momentum = config.get("train.momentum")
        place = (
            WIDTHS.index(config["model.width"]),
            BATCHES.index(config["train.global_batch"]),
            0 if momentum is None else 1 + _nearest(MOMENTA[1:], momentum),
            _nearest(np.log(LRS), math.log(config["train.lr"])),
            _nearest(DROPOUTS, config["model.dropout"]),
            _nearest(np.log(DECAYS), math.log(config["train.weight_decay"])),
            _nearest(np.log(SCALES), math.log(config["model.init_scale"])),
        )
        return int(np.ravel_multi_index(place, SHAPE))


def _nearest(grid: Sequence[float], value: float) -> int:
    return int(np.abs(np.asarray(grid) - value).argmin())


def epoch_s(config: Mapping[str, Any]) -> float:
    """What an epoch costs in simulated time: 10 ms a step, and 20 us a sample for every 8 units of width."""
    steps = TRAINED // config["train.global_batch"]
    return steps * (10e-3 + 20e-6 * config["train.global_batch"] * config["model.width"] / 8)


def load() -> Table:
    """From the cache of this user, where the table is made on the first call."""
    file = _cached()
    if not file.exists():
        print(f"training {math.prod(SHAPE):,} networks, once, into {file}", file=sys.stderr, flush=True)
        right = _train_all()
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_suffix(f".{os.getpid()}.npz")
        np.savez_compressed(unfinished, right=right)
        unfinished.rename(file)
    with np.load(file) as stored:
        return Table(stored["right"] / VALIDATED)


def _cached() -> Path:
    """Named by what made it, so that another recipe never reads this one's curves."""
    recipe = inspect.getsource(sys.modules[__name__]) + torch.__version__
    key = hashlib.sha256(recipe.encode()).hexdigest()[:12]
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "evertrain" / "benchmarks" / f"learning-curves-{key}.npz"


# ---- training -------------------------------------------------------------------------------------------------------


def _train_all() -> npt.NDArray[np.uint16]:
    groups = list(itertools.product(WIDTHS, BATCHES, MOMENTA))
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        return np.concatenate(list(pool.map(_train_group, *zip(*groups, strict=True), range(len(groups)))))


def _train_group(width: int, batch: int, momentum: float | None, seed: int) -> npt.NDArray[np.uint16]:
    """How many images of the validation part each network had right, [VARIANTS, EPOCHS]."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(seed)
    images, labels = _digits()
    networks = _Networks(width, momentum, generator)
    right = np.zeros((len(VARIANTS), EPOCHS), np.uint16)
    for epoch in range(EPOCHS):
        order = torch.randperm(TRAINED, generator=generator)
        for rows in order.split(batch):
            networks.step(images[rows], labels[rows])
        right[:, epoch] = networks.right(images[TRAINED:], labels[TRAINED:])
    return right


class _Networks:
    """Perceptrons of one hidden layer, side by side, one of each variant."""

    def __init__(self, width: int, momentum: float | None, generator: torch.Generator) -> None:
        self._count, self._width, self._generator = len(VARIANTS), width, generator
        lr, dropout, decay, scale = torch.tensor(VARIANTS).T
        self._keep = 1 - dropout.repeat_interleave(width)
        # The images are the same for all: the first layers stand side by side in one matrix, whose last row is the bias.
        first = torch.randn(65, self._count * width, generator=generator) * (2 / 64) ** 0.5
        first *= scale.repeat_interleave(width)
        first[64] = 0.0
        second = torch.randn(self._count, width + 1, 10, generator=generator) / width**0.5 * scale.view(-1, 1, 1)
        second[:, width] = 0.0
        self._first = _Learning(first, lr.repeat_interleave(width), decay.repeat_interleave(width), momentum)
        self._second = _Learning(second, lr.view(-1, 1, 1), decay.view(-1, 1, 1), momentum)

    def step(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        hidden = (images @ self._first.weights).relu_()
        kept = (torch.rand(hidden.shape, generator=self._generator) < self._keep) / self._keep
        hidden *= kept
        error = torch.softmax(self._logits(hidden), dim=2)
        error[:, torch.arange(len(labels)), labels] -= 1
        error /= len(labels)
        back = (error @ self._second.weights[:, :-1].mT).permute(1, 0, 2).reshape(hidden.shape)
        back *= kept * (hidden > 0)
        above = self._by_network(hidden).mT @ error
        self._second.step(torch.cat([above, error.sum(1, keepdim=True)], dim=1))
        self._first.step(images.mT @ back)

    def right(self, images: torch.Tensor, labels: torch.Tensor) -> npt.NDArray[np.int64]:
        """A network that diverged has none of the images right."""
        counted = torch.zeros(self._count, dtype=torch.int64)
        for some, their in zip(images.split(100), labels.split(100), strict=True):  # no more than caches hold
            logits = self._logits((some @ self._first.weights).relu_())
            counted += ((logits.argmax(2) == their) & logits.isfinite().all(2)).sum(1)
        found: npt.NDArray[np.int64] = counted.numpy()
        return found

    def _logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """[networks, images, 10]."""
        weights = self._second.weights
        return torch.baddbmm(weights[:, -1:], self._by_network(hidden), weights[:, :-1])

    def _by_network(self, hidden: torch.Tensor) -> torch.Tensor:
        """[networks, images, width] of [images, networks x width]."""
        return hidden.view(len(hidden), self._count, self._width).permute(1, 0, 2)


class _Learning:
    """Weights that learn by AdamW, or by SGD with `momentum` and the same decay; `lr` and `decay` broadcast to them."""

    def __init__(self, weights: torch.Tensor, lr: torch.Tensor, decay: torch.Tensor, momentum: float | None) -> None:
        self.weights = weights
        self._lr, self._momentum = lr, momentum
        self._shrink = 1 - (lr * decay).clamp(max=1.0)
        self._mean, self._square = torch.zeros_like(weights), torch.zeros_like(weights)
        self._steps = 0

    def step(self, gradient: torch.Tensor) -> None:
        self._steps += 1
        self.weights.mul_(self._shrink)
        if self._momentum is not None:
            self.weights.sub_(self._lr * self._mean.mul_(self._momentum).add_(gradient))
            return
        self._mean.lerp_(gradient, 0.1)
        self._square.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
        root = (self._square / (1 - 0.999**self._steps)).sqrt_().add_(1e-8)
        self.weights.sub_((self._mean / root).mul_(self._lr / (1 - 0.9**self._steps)))


def _digits() -> tuple[torch.Tensor, torch.Tensor]:
    """Images [TRAINED + VALIDATED, 65], the last feature always 1 for the bias, and labels; those to train on first."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))[: TRAINED + VALIDATED]
    pixels = torch.tensor(images[order] / 16, dtype=torch.float32)
    return torch.cat([pixels, torch.ones(len(order), 1)], dim=1), torch.tensor(labels[order])
