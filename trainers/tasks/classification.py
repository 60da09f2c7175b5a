"""Which class does the input belong to: cross-entropy, judged by loss and accuracy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional

from trainers.data.loader import Batch, Splits
from trainers.data.prepared import Columns
from trainers.tasks.task import Model


@dataclass
class Classification:
    """Batches hold the `inputs` by name, each [batch, ...], and `targets` int64 [batch]."""

    splits: Splits
    build: Callable[[], nn.Module]  # forward(*inputs, keys) -> logits [batch, classes]
    notes: Mapping[str, Any] = field(default_factory=dict)
    judged_by: str = "val_loss"
    judged_mode: Literal["min", "max"] = "min"
    label_smoothing: float = 0.0  # in training
    inputs: tuple[str, ...] = ("inputs",)
    classes: Sequence[str] = ()  # by number, in the words of the data, where those are known
    arranged: Callable[[Columns], Columns] | None = None  # of prepared data: a part's arrays as its examples

    def model(self) -> nn.Module:
        return self.build()

    def loss(self, model: Model, batch: Batch) -> torch.Tensor:
        logits = self._logits(model, batch)
        return functional.cross_entropy(logits, batch["targets"], label_smoothing=self.label_smoothing)

    def measure(self, model: Model, batch: Batch) -> Mapping[str, torch.Tensor]:
        logits = self._logits(model, batch)
        return {
            "loss": functional.cross_entropy(logits, batch["targets"], reduction="none"),
            "accuracy": (logits.argmax(dim=-1) == batch["targets"]).float(),
        }

    def predict(self, model: Model, batch: Batch) -> torch.Tensor:
        return self._logits(model, batch).softmax(dim=-1)

    def _logits(self, model: Model, batch: Batch) -> torch.Tensor:
        return model(*(batch[name] for name in self.inputs), batch["keys"]).float()
