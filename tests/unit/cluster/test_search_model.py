"""Where a halving sweep looks next: anywhere, but seldom where it was bad at one rung."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import optuna
import pytest

from orchestrator.cluster.search_model import Coordinates, RungSampler
from orchestrator.cluster.search_points import Points
from orchestrator.core.halving import Halving
from orchestrator.core.sweeps import Trial, TrialState
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


def test_every_whole_number_of_a_range_is_as_likely_and_has_a_place_that_leads_back_to_it() -> None:
    path = "model.layers"
    coordinates = Coordinates(halving(space={path: {"int": [3, 7]}}))
    points = [coordinates.point(row)[path] for row in coordinates.anywhere(5_000, np.random.default_rng(0))]
    assert [points.count(value) / 5_000 for value in range(3, 8)] == pytest.approx([0.2] * 5, abs=0.03)
    large = Coordinates(halving(space={path: {"int": [-5, 10**9]}}))
    for value in (-5, -4, 0, 123_456_789, 10**9 - 1, 10**9):
        assert large.point(np.array(large.row({path: value}))) == {path: value}


def test_coordinates_lead_back_to_the_point() -> None:
    asked = halving()
    coordinates = Coordinates(asked)
    point = {
        "train.lr": 3e-4,
        "train.optimizer": "sgd",
        "train.momentum": 0.9,
        "model.layers": 3,
        "model.bias": True,
    }
    back = coordinates.point(np.array(coordinates.row(point)))
    assert back.keys() == point.keys()
    assert math.isclose(back.pop("train.lr"), point.pop("train.lr"))
    assert math.isclose(back.pop("train.momentum"), point.pop("train.momentum"))
    assert back == point
    assert type(back["model.bias"]) is bool


def test_a_restored_search_proposes_what_the_one_before_would_have() -> None:
    points, known = Points(halving(seed=3)), []
    for number in range(50):
        point = points.suggest(f"t{number}")["point"]
        curve = tuple((report, round(report - off(point), 1)) for report in range(1, 4 if number % 3 else 2))
        for report, value in curve:
            points.on_trial_result(f"t{number}", {"objective": value, "report": report})
        live = number >= 47
        if not live:
            points.on_trial_complete(f"t{number}", {"objective": curve[-1][1], "report": curve[-1][0]})
        state = TrialState.RUNNING if live else TrialState.STOPPED
        known.append(Trial(number, point, state, curve=curve, ended_at=None if live else 1000.0 - number))
    restored = Points(halving(seed=3), known=known)
    assert [restored.suggest(f"t{number}")["trial"] for number in range(50)] == list(range(50))
    for number in range(50, 60):
        assert restored.suggest(f"t{number}") == points.suggest(f"t{number}")


def test_a_parameter_that_counts_only_by_a_wanted_value_is_proposed_too_and_the_same_again() -> None:
    asked = halving(start_with=[{"train.optimizer": "sgd"}] * 5)
    drawn = [[Points(asked).suggest("t")["point"] for _ in range(2)] for _ in range(2)]
    assert drawn[0] == drawn[1]
    assert all(0.5 <= each["train.momentum"] <= 0.99 for each in drawn[0])


def test_halving_by_rungs_finds_the_best_of_a_known_surface_sooner_than_random_points_do() -> None:
    """Reports until a trial has what is within 0.006 of the best: the surface is a peak in two of three parameters."""
    space = {
        "train.lr": {"log": [1e-5, 1.0]},
        "model.dropout": {"uniform": [0.0, 1.0]},
        "train.decay": SPACE["train.lr"],
    }

    def value(point: dict[str, Any], report: int) -> float:
        return -(off(point) ** 2) / 5 - (point["model.dropout"] - 0.2) ** 2 - 1.0 / report

    def spent(algorithm: str, seed: int) -> int:
        asked = halving(space=space, seed=seed, algorithm=algorithm)
        points, race, total = Points(asked), Halving("max", grace=1, reduction=3, most=27), 0
        for number in range(2000):
            point = points.suggest(str(number))["point"]
            for report in range(1, 28):
                total += 1
                if report == 27 and value(point, 27) > -1 / 27 - 0.006:
                    return total
                if race.hear(number, report, value(point, report)) is not None or report == 27:
                    break
                points.on_trial_result(str(number), {"objective": value(point, report), "report": report})
            race.end(number)
            points.on_trial_complete(str(number), {"objective": value(point, report), "report": report})
        raise AssertionError("it is never found")

    ratios = sorted(spent("random", seed) / spent("tpe", seed) for seed in range(7))
    assert ratios[3] > 1.3, ratios


def test_whole_trials_are_left_to_optunas_own_estimator() -> None:
    assert isinstance(Points(halving())._study.sampler, RungSampler)
    assert isinstance(Points(halving(scheduler="fifo"))._study.sampler, optuna.samplers.TPESampler)
