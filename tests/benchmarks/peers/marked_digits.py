"""The digits recipe as a user's entrypoint that notes, on rank 0, when a step begins after 100, 200, ... are done."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from typing import Any

import torch

from trainers.config import Settings
from trainers.recipes.digits_cnn import digits_cnn
from trainers.tasks.classification import Classification


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
        if self.calls and self.calls % 100 == 0 and os.environ["RANK"] == "0":
            with open(os.environ["MARKS"], "a") as file:
                file.write(json.dumps({"at": time.time(), "step": self.calls}) + "\n")


def make_task(settings: Settings) -> Classification:
    plain = digits_cnn(settings)
    return Marked(plain.splits, plain.build, plain.notes)
