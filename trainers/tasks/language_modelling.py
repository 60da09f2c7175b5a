"""Which token comes next: cross-entropy in nats a token, averaged over the window."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional

from trainers.data.loader import Batch, Splits
from trainers.data.sampler import Indices
from trainers.errors import BadConfig
from trainers.tasks.task import Model


@dataclass(frozen=True)
class Windows:
    """Non-overlapping windows of `context` + 1 tokens; neighbours share one, as target and as input."""

    tokens: torch.Tensor  # int64 [length]
    context: int

    def __len__(self) -> int:
        return max(0, (len(self.tokens) - 1) // self.context)

    def take(self, indices: Indices) -> Mapping[str, torch.Tensor]:
        places = torch.from_numpy(indices).unsqueeze(1) * self.context + torch.arange(self.context + 1)
        return {"tokens": self.tokens[places]}


@dataclass
class LanguageModelling:
    """Batches hold `tokens` int64 [batch, context + 1]."""

    splits: Splits
    build: Callable[[], nn.Module]  # forward(tokens, keys) -> logits [batch, context, vocabulary]
    notes: Mapping[str, Any] = field(default_factory=dict)
    judged_by: str = "val_loss"
    judged_mode: Literal["min", "max"] = "min"
    label_smoothing: float = 0.0  # in training

    def model(self) -> nn.Module:
        return self.build()

    def loss(self, model: Model, batch: Batch) -> torch.Tensor:
        return self._token_losses(model, batch, self.label_smoothing).mean()

    def measure(self, model: Model, batch: Batch) -> Mapping[str, torch.Tensor]:
        return {"loss": self._token_losses(model, batch).mean(dim=1)}

    def inputs(self, batch: Batch) -> tuple[torch.Tensor, ...]:
        return batch["tokens"][:, :-1], batch["keys"]

    def part(self, batch: Batch, index: int, count: int) -> Batch:
        positions, rest = divmod(batch["tokens"].shape[1] - 1, count)
        if rest:
            raise BadConfig("parallelism.sequence", count, f"must divide the context, {positions * count + rest}")
        return {**batch, "tokens": batch["tokens"][:, index * positions : (index + 1) * positions + 1]}

    def _token_losses(self, model: Model, batch: Batch, smoothing: float = 0.0) -> torch.Tensor:
        logits, targets = model(*self.inputs(batch)).float(), batch["tokens"][:, 1:]
        losses = functional.cross_entropy(
            logits.flatten(0, 1), targets.flatten(), reduction="none", label_smoothing=smoothing
        )
        return losses.view(targets.shape)
