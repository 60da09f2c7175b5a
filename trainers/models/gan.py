"""A generator and a discriminator of small images (Goodfellow et al. 2014, arXiv 1406.2661), both conditional on a class."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class Generator(nn.Module):
    """From noise and a class to an image, within -1 and 1."""

    def __init__(self, *, noise: int, classes: int, height: int, width_px: int, width: int) -> None:
        super().__init__()
        self.shape = (height, width_px)
        self.classes = nn.Embedding(classes, width)
        self.noise = nn.Linear(noise, width)
        self.hidden = nn.Linear(width, width)
        self.pixels = nn.Linear(width, height * width_px)

    def forward(self, noise: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        """`noise` [batch, noise], `classes` int64 [batch]; images [batch, height, width]."""
        x = functional.leaky_relu(self.noise(noise) + self.classes(classes), 0.2)
        x = functional.leaky_relu(self.hidden(x), 0.2)
        images: torch.Tensor = torch.tanh(self.pixels(x)).view(-1, *self.shape)
        return images


class Discriminator(nn.Module):
    """How real an image of a class looks: the more, the higher."""

    def __init__(self, *, classes: int, height: int, width_px: int, width: int) -> None:
        super().__init__()
        self.classes = nn.Embedding(classes, width)
        self.pixels = nn.Linear(height * width_px, width)
        self.hidden = nn.Linear(width, width)
        self.score = nn.Linear(width, 1)

    def forward(self, images: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        """`images` [batch, height, width], `classes` int64 [batch]; scores [batch]."""
        x = functional.leaky_relu(self.pixels(images.flatten(1)) + self.classes(classes), 0.2)
        x = functional.leaky_relu(self.hidden(x), 0.2)
        scores: torch.Tensor = self.score(x).squeeze(1)
        return scores
