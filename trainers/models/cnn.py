"""A small convolutional network for small images. No batch statistics: losses do not depend on the world size."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from trainers.models.dropout import SampleDropout


class Cnn(nn.Module):
    """Three convolutions, one pooling, two dense layers."""

    def __init__(self, *, channels: int, height: int, width_px: int, classes: int, width: int, dropout: float) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.third = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.dense = nn.Linear(2 * width * (height // 2) * (width_px // 2), 4 * width)
        self.dropout = SampleDropout(dropout, layer=0)
        self.head = nn.Linear(4 * width, classes)

    def forward(self, images: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """`images` [batch, channels, height, width], `keys` [batch]; logits [batch, classes]."""
        x = functional.relu(self.first(images))
        x = functional.max_pool2d(functional.relu(self.second(x)), 2)
        x = functional.relu(self.third(x)).flatten(1)
        x = functional.relu(self.dense(x))
        logits: torch.Tensor = self.head(self.dropout(x, keys))
        return logits
