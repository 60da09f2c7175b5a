"""What a model must bring to be trained here. A user's own `entrypoint: package.module:make_task` returns one.

`make_task(settings: trainers.config.Settings) -> Task` is called once on every rank, after the fork and before the
model is on its device. It must do the same on every rank.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import nn

from trainers.config import Settings
from trainers.data.loader import Batch, Splits

Model = Callable[..., torch.Tensor]
"""The model as the engine wraps it: call it, do not look inside."""


@runtime_checkable
class Task(Protocol):
    """A model, its data, and how it is judged."""

    splits: Splits
    judged_by: str  # the metric of the best checkpoint, e.g. val_loss
    judged_mode: Literal["min", "max"]
    notes: Mapping[str, Any]  # plain values kept in every checkpoint: what a user of the weights needs to know

    def model(self) -> nn.Module:
        """A new model with random weights: called once, after the generators are seeded."""
        ...

    def loss(self, model: Model, batch: Batch) -> torch.Tensor:
        """The mean loss of the batch, a scalar."""
        ...

    def measure(self, model: Model, batch: Batch) -> Mapping[str, torch.Tensor]:
        """One value a sample [batch] for each metric, e.g. loss, accuracy. They are averaged over all examples and
        reported as val_loss, test_loss and so on."""
        ...


MakeTask = Callable[[Settings], Task]
