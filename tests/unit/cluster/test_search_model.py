"""Where a halving sweep looks next: at the neighbours of what is good at one rung, and a third of the time anywhere."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import optuna

from orchestrator.cluster.search_model import Coordinates, RungSampler
from orchestrator.cluster.search_points import Points
from orchestrator.spec.search import Search

SPACE: dict[str, Any] = {
    "train.lr": {"log": [1e-5, 1.0]},
    "train.optimizer": {"choice": ["adamw", "sgd"]},
    "train.momentum": {"uniform": [0.5, 0.99], "when": {"train.optimizer": "sgd"}},
    "model.layers": {"int": [1, 4]},
    "model.bias": {"choice": [True, 1]},
}


def halving(**changes: Any) -> Search:
    return Search.model_validate({"metric": "m", "mode": "max", "space": SPACE, "scheduler": "asha", **changes})


def off(point: dict[str, Any]) -> float:
    """Orders of magnitude between a point's learning rate and 1e-2."""
    return abs(math.log10(point["train.lr"]) + 2)


def tried(points: Points, count: int, *, told: int = 1) -> None:
    """Trials that were ended at their first report, the better the nearer to 1e-2."""
    for number in range(count):
        point = points.suggest(f"t{number}")["point"]
        points.on_trial_complete(f"t{number}", {"objective": -off(point), "report": told})


def share_near(points: Points, count: int = 40) -> float:
    found = [points.suggest(f"n{number}")["point"] for number in range(count)]
    return sum(off(each) < 0.75 for each in found) / count


def test_proposals_gather_around_what_was_good_at_a_rung() -> None:
    points = Points(halving())
    before = share_near(Points(halving()))
    tried(points, 60)
    assert before < 0.45
    assert share_near(points) > 0.55


def test_one_seed_proposes_one_sequence_of_points_that_the_space_holds() -> None:
    asked = halving(seed=7)
    one, other = Points(asked), Points(asked)
    tried(one, 40)
    tried(other, 40)
    for number in range(20):
        point = one.suggest(f"n{number}")["point"]
        assert point == other.suggest(f"n{number}")["point"]
        assert all(asked.space[path].holds(value) for path, value in point.items())
        assert ("train.momentum" in point) == (point["train.optimizer"] == "sgd")


def test_the_report_at_which_a_trial_was_ended_is_known() -> None:
    points = Points(halving())
    points.suggest("a")
    points.on_trial_result("a", {"objective": 0.3, "report": 1})
    points.on_trial_complete("a", {"objective": 0.2, "report": 3})
    (trial,) = points._study.trials
    assert trial.intermediate_values == {1: 0.3, 3: 0.2}


def test_values_are_compared_at_the_highest_rung_that_enough_trials_have_passed() -> None:
    """What is best at the first report is worst at the third: only the third counts, once twenty have passed it."""
    points = Points(halving(space={"train.lr": SPACE["train.lr"]}))
    for number in range(60):
        point = points.suggest(f"t{number}")["point"]
        points.on_trial_result(f"t{number}", {"objective": off(point), "report": 1})
        if number % 2:
            points.on_trial_result(f"t{number}", {"objective": -off(point), "report": 3})  # and runs on
        else:
            points.on_trial_complete(f"t{number}", {"objective": off(point), "report": 1})
    assert share_near(points) > 0.55


def test_coordinates_lead_back_to_the_point() -> None:
    asked = halving()
    coordinates, random = Coordinates(asked), np.random.default_rng(0)
    point = {
        "train.lr": 3e-4,
        "train.optimizer": "sgd",
        "train.momentum": 0.9,
        "model.layers": 3,
        "model.bias": True,
    }
    back = coordinates.point(np.array(coordinates.row(point, random)))
    assert back.keys() == point.keys()
    assert math.isclose(back.pop("train.lr"), point.pop("train.lr"))
    assert math.isclose(back.pop("train.momentum"), point.pop("train.momentum"))
    assert back == point
    assert type(back["model.bias"]) is bool


def test_whole_trials_are_left_to_optunas_own_estimator() -> None:
    assert isinstance(Points(halving())._study.sampler, RungSampler)
    assert isinstance(Points(halving(scheduler="fifo"))._study.sampler, optuna.samplers.TPESampler)
