"""Averaged weights, blocks that are computed again, and labels that are smoothed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import nn

from tests.unit.trainers.test_config import settings
from trainers.config import Settings
from trainers.data.loader import Splits, Tensors
from trainers.ema import Ema
from trainers.engine import Engine
from trainers.errors import BadConfig
from trainers.recomputation import recompute_blocks
from trainers.tasks.classification import Classification
from trainers.train import with_label_smoothing


def around(model: nn.Module) -> Engine:
    """All that an average sees of an engine."""
    return cast(Engine, SimpleNamespace(module=model))


def test_an_average_moves_towards_the_weights_faster_at_first() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 0.0)
    ema = Ema(around(model), decay=0.5)
    nn.init.constant_(model.weight, 1.0)
    ema.update()  # decay 2/11
    first = 1 - 2 / 11
    ema.update()  # decay 3/12
    second = 1 - (1 - first) * 3 / 12
    for _ in range(20):
        ema.update()
    before = model.weight.clone()
    with ema.applied():
        assert second < model.weight.item() < 1.0 + 1e-6
    assert torch.equal(model.weight, before)
    assert ema.state_dict()["updates"] == 22


def test_an_average_is_taken_up_where_it_was_left() -> None:
    model = nn.Linear(3, 2)
    ema = Ema(around(model), decay=0.9)
    nn.init.normal_(model.weight)
    ema.update()
    state = {"updates": 1, "weights": {name: each.clone() for name, each in ema.state_dict()["weights"].items()}}
    other = Ema(around(nn.Linear(3, 2)), decay=0.9)
    other.load_state_dict(state)
    assert other.state_dict()["updates"] == 1
    assert torch.equal(other.state_dict()["weights"]["weight"], state["weights"]["weight"])


def test_the_weights_come_back_after_an_error_inside() -> None:
    model = nn.Linear(3, 2)
    ema = Ema(around(model), decay=0.9)
    nn.init.normal_(model.weight)
    before = model.weight.clone()
    with pytest.raises(KeyError), ema.applied():
        raise KeyError
    assert torch.equal(model.weight, before)


class Counting(nn.Linear):
    passes = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.passes += 1
        return super().forward(x)


class Stack(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Counting(2, 2) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return x


def test_blocks_are_computed_again_in_training_only() -> None:
    model = Stack()
    recompute_blocks(model)
    model(torch.ones(1, 2)).sum().backward()
    assert [each.passes for each in model.blocks] == [2, 2]
    model.eval()
    model(torch.ones(1, 2))
    assert [each.passes for each in model.blocks] == [3, 3]


def labelled(**train: Any) -> tuple[Settings, Classification]:
    points = Tensors({"inputs": torch.zeros(4, 2), "targets": torch.arange(4) % 2})
    return settings({}, **train), Classification(Splits(points, points, points), build=lambda: nn.Linear(2, 2))


def test_smoothed_labels_raise_the_loss_of_training_and_not_what_is_measured() -> None:
    batch = {"inputs": torch.tensor([[9.0, -9.0]]), "targets": torch.tensor([0]), "keys": torch.zeros(1)}

    def sure(inputs: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        return inputs

    plain = labelled()[1]
    smoothed = with_label_smoothing(labelled()[1], labelled(label_smoothing=0.2)[0])
    assert plain.loss(sure, batch).item() == pytest.approx(0.0, abs=1e-6)
    assert smoothed.loss(sure, batch).item() == pytest.approx(0.1 * 18, abs=1e-3)  # half of 0.2 on the wrong class
    assert smoothed.measure(sure, batch)["loss"].item() == pytest.approx(0.0, abs=1e-6)


def test_smoothing_is_refused_by_a_task_that_knows_none() -> None:
    task = cast(Any, SimpleNamespace())
    with pytest.raises(BadConfig, match=r"^train\.label_smoothing: got 0\.2: is not known to SimpleNamespace"):
        with_label_smoothing(task, labelled(label_smoothing=0.2)[0])
