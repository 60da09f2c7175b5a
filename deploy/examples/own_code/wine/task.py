"""Which of three growers made the wine? 178 samples, 13 measurements: scikit-learn ships them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from sklearn.datasets import load_wine
from torch import nn

from trainers.config import Settings, section
from trainers.data.loader import Splits, Tensors
from trainers.data.sources import split_indices
from trainers.tasks.classification import Classification


@dataclass(frozen=True)
class Model:
    """`model:` of the run file."""

    hidden: int = 32


class Network(nn.Module):
    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(13, hidden), nn.ReLU(), nn.Linear(hidden, 3))

    def forward(self, inputs: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """`keys`, one random key a sample, is for dropout that does not depend on the world size: not needed here."""
        return self.layers(inputs)


def make_task(settings: Settings) -> Classification:
    wine = load_wine()
    measured = torch.tensor(wine.data, dtype=torch.float32)
    measured = (measured - measured.mean(dim=0)) / measured.std(dim=0)
    growers = torch.tensor(wine.target)
    parts = (torch.from_numpy(part) for part in split_indices(len(growers), settings.data.split))
    splits = Splits(*(Tensors({"inputs": measured[part], "targets": growers[part]}) for part in parts))
    hidden = section(Model, settings.model, "model").hidden
    return Classification(splits=splits, build=lambda: Network(hidden), notes={"classes": 3})
