"""A multilayer perceptron over the columns of a table: numbers as they are, categories as learned vectors.

Vectors for categories: Guo and Berkhahn 2016 (arXiv 1604.06737).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from trainers.models.dropout import SampleDropout


class Layer(nn.Module):
    """A residual layer: what it adds is normed, activated and dropped out."""

    def __init__(self, *, width: int, dropout: float, index: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, width)
        self.dropout = SampleDropout(dropout, layer=index)

    def forward(self, x: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """`x` [batch, width]; the same shape."""
        out: torch.Tensor = x + self.dropout(torch.relu(self.linear(self.norm(x))), keys)
        return out


class TabularMlp(nn.Module):
    """`sizes`: how many values each category can have."""

    def __init__(
        self,
        *,
        numbers: int,
        sizes: Sequence[int],
        classes: int,
        width: int,
        layers: int,
        embedding: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.embeddings = nn.ModuleList(nn.Embedding(size, embedding) for size in sizes)
        self.first = nn.Linear(numbers + embedding * len(sizes), width)
        self.layers = nn.ModuleList(Layer(width=width, dropout=dropout, index=index) for index in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, numbers: torch.Tensor, categories: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """`numbers` [batch, numbers], near mean 0 and variance 1; `categories` int64 [batch, categories]; `keys` [batch].
        Logits [batch, classes]."""
        vectors = [embed(categories[:, index]) for index, embed in enumerate(self.embeddings)]
        x = self.first(torch.cat([numbers, *vectors], dim=1))
        for layer in self.layers:
            x = layer(x, keys)
        logits: torch.Tensor = self.head(self.norm(x))
        return logits
