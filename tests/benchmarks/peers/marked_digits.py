"""The digits recipe as a user's entrypoint that notes, on rank 0, when a step begins after each MARK_EVERY are done.

The bare arm neither evaluates nor saves, so this one has an epoch that no run of the benchmark reaches the end of.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from trainers.config import Settings
from trainers.data.loader import Tensors
from trainers.recipes.digits_cnn import digits_cnn
from trainers.tasks.classification import Classification

EPOCH = 400  # times the digits: half a million samples, 128 MiB


class Marked(Classification):
    calls = 0

    def loss(self, model: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        self._note()
        self.calls += 1
        return super().loss(model, batch)

    def measure(self, model: Any, batch: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
        self._note()
        return super().measure(model, batch)

    def _note(self) -> None:
        if self.calls and self.calls % int(os.environ["MARK_EVERY"]) == 0 and os.environ["RANK"] == "0":
            with open(os.environ["MARKS"], "a") as file:
                file.write(json.dumps({"at": time.time(), "step": self.calls}) + "\n")


def make_task(settings: Settings) -> Classification:
    plain = digits_cnn(settings)
    train = plain.splits.train
    assert isinstance(train, Tensors)
    columns = {name: column.repeat(EPOCH, *[1] * (column.ndim - 1)) for name, column in train.columns.items()}
    return Marked(replace(plain.splits, train=Tensors(columns)), plain.build, plain.notes)
