"""Small tasks that go wrong on purpose, or that need what a recipe does not offer: entrypoints of the tests' runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from deepspeed.accelerator.real_accelerator import get_accelerator
from torch import nn

from trainers.config import Settings
from trainers.data.loader import Batch, Splits, Tensors
from trainers.recipes.digits_cnn import digits_cnn
from trainers.tasks.classification import Classification
from trainers.tasks.task import Model

SIZE = 64
SPOILT = 37  # the sample that is odd
UNFIT = 5  # samples of a pass that no memory holds


class Line:
    """Learns y = 3 x. Sample i carries its own number, as `index`."""

    judged_by = "val_error"
    judged_mode: Literal["min", "max"] = "min"
    notes: Mapping[str, Any] = {}

    def __init__(self) -> None:
        x = torch.linspace(-1, 1, SIZE).unsqueeze(1)
        points = Tensors({"x": x, "y": 3 * x, "index": torch.arange(SIZE)})
        self.splits = Splits(points, points, points)

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))

    def loss(self, model: Model, batch: Batch) -> torch.Tensor:
        return (model(batch["x"]) - batch["y"]).square().mean()

    def measure(self, model: Model, batch: Batch) -> Mapping[str, torch.Tensor]:
        return {"error": (model(batch["x"]) - batch["y"]).abs().squeeze(1)}


class SpoiltLoss(Line):
    """The loss of any batch with the odd sample is NaN."""

    def loss(self, model: Model, batch: Batch) -> torch.Tensor:
        odd = (batch["index"] == SPOILT).any()
        return super().loss(model, batch) * torch.where(odd, torch.nan, 1.0)


class SpoiltGradient(Line):
    """The odd sample's loss is a number, and its gradient is none."""

    def loss(self, model: Model, batch: Batch) -> torch.Tensor:
        predicted = model(batch["x"])
        loss = (predicted - batch["y"]).square().mean()
        if (batch["index"] == SPOILT).any():
            loss = loss + (predicted * 0).sqrt().sum()  # the root's slope at nought is infinite
        return loss


class Hungry(Line):
    """Passes of `UNFIT` samples and more ask for more memory than there is."""

    def loss(self, model: Model, batch: Batch) -> torch.Tensor:
        if len(batch["x"]) >= UNFIT:
            torch.empty(2**55, dtype=torch.uint8)
        return super().loss(model, batch)


class Heavy(Line):
    """Each sample of a pass takes 16 MiB."""

    def loss(self, model: Model, batch: Batch) -> torch.Tensor:
        weight = model(batch["x"]).mean() * torch.ones(len(batch["x"]), 2**22)
        return super().loss(model, batch) + weight.sum() * 0


def line(settings: Settings) -> Line:
    return Line()


def traced_line(settings: Settings) -> Line:
    """torch.compile traces the model and runs what it traced, without the minute that generating C++ takes."""
    accelerator: Any = get_accelerator
    accelerator().set_compile_backend("aot_eager")
    return Line()


def spoilt_loss(settings: Settings) -> Line:
    return SpoiltLoss()


def spoilt_gradient(settings: Settings) -> Line:
    return SpoiltGradient()


def hungry(settings: Settings) -> Line:
    return Hungry()


def heavy(settings: Settings) -> Line:
    return Heavy()


def half_precision_digits(settings: Settings) -> Classification:
    """DeepSpeed refuses fp16 where the CPU has no instructions for it; torch computes it all the same, slowly."""
    accelerator: Any = get_accelerator
    accelerator().is_fp16_supported = lambda: True
    return digits_cnn(settings)
