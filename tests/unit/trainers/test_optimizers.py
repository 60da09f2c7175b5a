"""Which parameters learn at which rate, and the optimizers that are our own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from trainers.config import Group, InitFrom, Train
from trainers.errors import BadConfig
from trainers.optimizers import Lion, freeze, hidden_matrices, parameter_groups


def model() -> nn.Module:
    parts = {"tokens": nn.Embedding(7, 4), "block": nn.Linear(4, 4), "norm": nn.LayerNorm(4), "head": nn.Linear(4, 2)}
    return nn.ModuleDict(parts)


def named(groups: list[Any], of: nn.Module) -> list[tuple[float, float, list[str]]]:
    """Learning rate, weight decay and names of each group."""
    names = {id(each): name for name, each in of.named_parameters()}
    return [(each["lr"], each["weight_decay"], [names[id(one)] for one in each["params"]]) for each in groups]


TRAIN = Train(global_batch=1, lr=0.1, weight_decay=0.01)


def test_what_learns_alike_is_one_plain_list() -> None:
    one = model()
    assert parameter_groups(one, TRAIN, None) == list(one.parameters())


def test_norms_and_biases_may_be_left_without_decay() -> None:
    one = model()
    groups = parameter_groups(one, Train(global_batch=1, lr=0.1, weight_decay=0.01, weight_decay_on="matrices"), None)
    assert named(groups, one) == [
        (0.1, 0.01, ["tokens.weight", "block.weight", "head.weight"]),
        (0.1, 0.0, ["block.bias", "norm.weight", "norm.bias", "head.bias"]),
    ]


def test_groups_have_rates_of_their_own_and_the_first_that_matches_holds() -> None:
    one = model()
    init = InitFrom(file="x", freeze=("tokens.*",), groups=(Group("block.bias", 0.5), Group("block.*", 0.1)))
    freeze(one, init.freeze)
    assert named(parameter_groups(one, TRAIN, init), one) == [
        (0.1, 0.01, ["norm.weight", "norm.bias", "head.weight", "head.bias"]),
        (0.05, 0.01, ["block.bias"]),
        (pytest.approx(0.01), 0.01, ["block.weight"]),
    ]


@pytest.mark.parametrize(
    ("init", "path"),
    [
        (InitFrom(file="x", freeze=("*", "blok.*")), "init_from.freeze[1]"),
        (InitFrom(file="x", freeze=("*",)), "init_from.freeze"),
        (InitFrom(file="x", groups=(Group("blok.*", 0.1),)), "init_from.groups[0].match"),
    ],
)
def test_patterns_that_match_nothing_and_a_model_that_is_all_frozen_are_refused(init: InitFrom, path: str) -> None:
    def prepare() -> None:
        one = model()
        freeze(one, init.freeze)
        parameter_groups(one, TRAIN, init)

    with pytest.raises(BadConfig) as refused:
        prepare()
    assert refused.value.path == path


def test_muon_is_for_the_matrices_between_embedding_and_output() -> None:
    one = model()
    assert [id(each) for each in hidden_matrices(one)] == [id(one.get_parameter("block.weight"))]


def test_lion_moves_by_the_sign_of_its_momentum() -> None:
    weight = nn.Parameter(torch.tensor([1.0, -2.0]))
    lion = Lion([weight], lr=0.1, betas=(0.9, 0.5), weight_decay=0.5)
    weight.grad = torch.tensor([3.0, -4.0])
    lion.step()  # by the sign of 0.1 g; decay takes a twentieth
    assert weight.tolist() == pytest.approx([0.95 - 0.1, -1.9 + 0.1])
    weight.grad = torch.tensor([-20.0, 0.0])
    lion.step()  # momentum is [1.5, -2]: 0.9 m + 0.1 g is [-0.65, -1.8]
    assert weight.tolist() == pytest.approx([0.85 * 0.95 + 0.1, -1.8 * 0.95 + 0.1])
