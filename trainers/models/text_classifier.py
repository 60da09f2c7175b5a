"""One label for a whole text: the mean over its tokens of what a recurrent network or a transformer says at each."""

from __future__ import annotations

import torch
from torch import nn

PADDING = 0  # the id of what fills a short text up


class TextClassifier(nn.Module):
    """`body(tokens, keys, real)` gives logits [batch, context, classes]."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, tokens: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """`tokens` int64 [batch, context], at least one a text is no padding; `keys` [batch]; logits [batch, classes]."""
        real = tokens != PADDING
        logits = self.body(tokens, keys, real)
        weights = real.to(logits.dtype) / real.sum(dim=1, keepdim=True)
        mean: torch.Tensor = (logits * weights.unsqueeze(2)).sum(dim=1)
        return mean
