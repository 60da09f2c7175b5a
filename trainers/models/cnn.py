"""A residual network for small images.

Blocks whose activation comes before the convolution: He et al. 2016 (arXiv 1603.05027).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import nn
from torch.nn import functional

from trainers.models.batch_norm import BatchNorm
from trainers.models.dropout import SampleDropout

Norm = Literal["layer", "batch", "none"]

_NORMS: dict[Norm, Callable[[int], nn.Module]] = {
    "layer": lambda channels: nn.GroupNorm(1, channels),  # over channels and pixels of one sample
    "batch": BatchNorm,
    "none": lambda channels: nn.Identity(),
}


_GRID = 4  # cells each way


class Residual(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, channels: int, outputs: int, *, stride: int, norm: Norm) -> None:
        super().__init__()
        bias = norm != "batch"  # which takes away what a bias adds: its gradient would be rounding alone
        self.first_norm = _NORMS[norm](channels)
        self.first = nn.Conv2d(channels, outputs, 3, stride=stride, padding=1, bias=bias)
        self.second_norm = _NORMS[norm](outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1, bias=bias)
        same = channels == outputs and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(channels, outputs, 1, stride=stride, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`x` [batch, channels, height, width]; [batch, outputs, height / stride, width / stride], rounded up."""
        inner = self.first(functional.relu(self.first_norm(x)))
        inner = self.second(functional.relu(self.second_norm(inner)))
        out: torch.Tensor = self.shortcut(x) + inner
        return out


class Cnn(nn.Module):
    """One convolution, `blocks` residual blocks, as many at half the resolution and twice the width, and a linear layer
    on the means over the cells of a grid: where in the image a stroke is tells one digit from another."""

    def __init__(self, *, channels: int, classes: int, width: int, blocks: int, norm: Norm, dropout: float) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, width, 3, padding=1, bias=norm != "batch")
        self.blocks = nn.Sequential(
            *(Residual(width, width, stride=1, norm=norm) for _ in range(blocks)),
            Residual(width, 2 * width, stride=2, norm=norm),
            *(Residual(2 * width, 2 * width, stride=1, norm=norm) for _ in range(blocks - 1)),
        )
        self.norm = _NORMS[norm](2 * width)
        self.dropout = SampleDropout(dropout, layer=0)
        self.head = nn.Linear(2 * width * _GRID**2, classes)

    def forward(self, images: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """`images` [batch, channels, height, width], `keys` [batch]; logits [batch, classes]."""
        x = functional.relu(self.norm(self.blocks(self.first(images))))
        x = functional.adaptive_avg_pool2d(x, _GRID).flatten(1)
        logits: torch.Tensor = self.head(self.dropout(x, keys))
        return logits
