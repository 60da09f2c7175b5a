"""How much each parameter of a sweep counted."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.adapters.importance import FEWEST_TRIALS, importance
from orchestrator.core.sweeps import Trial, TrialState

LR = {"train.lr": {"log": [1e-5, 1e-1]}}
SPACE = {
    **LR,
    "model.width": {"choice": [8, 16, 32]},
    "train.optimizer": {"choice": ["adamw", "sgd"]},
    "train.momentum": {"uniform": [0.0, 0.9], "when": {"train.optimizer": "sgd"}},
}


def points(count: int) -> list[dict[str, Any]]:
    drawn = random.Random(0)
    found = []
    for _ in range(count):
        point = {
            "train.lr": 10 ** drawn.uniform(-5, -1),
            "model.width": drawn.choice([8, 16, 32]),
            "train.optimizer": drawn.choice(["adamw", "sgd"]),
        }
        found.append(point | ({"train.momentum": drawn.uniform(0, 0.9)} if point["train.optimizer"] == "sgd" else {}))
    return found


def trials(points: list[dict[str, Any]], value: Callable[[dict[str, Any]], float]) -> list[Trial]:
    return [
        Trial(number, point, TrialState.COMPLETED, curve=((1, value(point)),)) for number, point in enumerate(points)
    ]


def test_the_parameter_that_makes_the_value_explains_nearly_all_of_it() -> None:
    found = importance(trials(points(60), lambda point: 1.0 if point["model.width"] == 32 else 0.0), SPACE, "max")
    assert found.lacking == ""
    assert found.trials == 60
    assert found.shares["model.width"] > 0.9
    assert set(found.shares) == {"train.lr", "model.width", "train.optimizer"}


def test_orders_of_magnitude_count_alike() -> None:
    """Between 1e-5 and 1e-3 lies half of the space, and a hundredth of the numbers."""
    found = importance(trials(points(60), lambda point: float(point["train.lr"] < 1e-3)), SPACE, "max")
    assert found.shares["train.lr"] > 0.8


def test_a_conditional_parameter_is_judged_among_the_trials_that_have_it() -> None:
    tried = points(80)
    having = sum("train.momentum" in each for each in tried)
    found = importance(trials(tried, lambda point: point.get("train.momentum", 0.4)), SPACE, "min")
    share, count = found.conditional["train.momentum"]
    assert count == having < 80
    assert share > 0.8


def test_one_seed_gives_one_answer() -> None:
    tried = trials(points(30), lambda point: point["train.lr"])
    assert importance(tried, SPACE, "max") == importance(tried, SPACE, "max")


@pytest.mark.parametrize("count", [0, 1, FEWEST_TRIALS - 1])
def test_too_few_trials_are_said_to_be_too_few(count: int) -> None:
    found = importance(trials(points(count), lambda point: point["train.lr"]), SPACE, "max")
    assert found.shares == {}
    assert f"{FEWEST_TRIALS} with a value, and there are {count}" in found.lacking


def test_trials_without_a_usable_value_do_not_count() -> None:
    tried = trials(points(FEWEST_TRIALS), lambda point: point["train.lr"])
    diverged = Trial(90, points(1)[0], TrialState.STOPPED, curve=((1, float("inf")),))
    failed = Trial(91, points(1)[0], TrialState.INFEASIBLE, curve=((1, 9.0),))
    assert importance([*tried, diverged, failed, Trial(92, {})], SPACE, "max").trials == FEWEST_TRIALS


def test_equal_values_leave_nothing_to_explain() -> None:
    assert "same value" in importance(trials(points(20), lambda _: 0.5), SPACE, "max").lacking


def test_a_parameter_of_one_value_explains_nothing() -> None:
    tried = [each | {"seed": 3} for each in points(20)]
    found = importance(trials(tried, lambda point: point["train.lr"]), {**LR, "seed": {"choice": [3]}}, "max")
    assert found.shares["seed"] == 0.0


def test_points_outside_of_the_space_are_known_too() -> None:
    """`start_with` may name them."""
    tried = [*points(20), points(1)[0] | {"train.lr": 1.0, "model.width": 128}]
    assert importance(trials(tried, lambda point: point["train.lr"]), SPACE, "max").lacking == ""
