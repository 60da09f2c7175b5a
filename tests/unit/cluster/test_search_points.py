"""Who proposes points: numbers, conditions, what is learned from trials of before, and when nothing is left."""

from __future__ import annotations

import math
import random
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.cluster.search_points import Points
from orchestrator.cluster.search_population import improved
from orchestrator.cluster.search_schedulers import Brackets, brackets, in_turn, milestones, scheduler
from orchestrator.core.sweeps import Stage, Trial, TrialState
from orchestrator.spec.search import Search

SPACE: dict[str, Any] = {
    "train.lr": {"log": [1e-4, 1e-1]},
    "train.optimizer": {"choice": ["adamw", "sgd"]},
    "train.momentum": {"uniform": [0.5, 0.99], "when": {"train.optimizer": "sgd"}},
}


def search(**changes: Any) -> Search:
    return Search.model_validate({"metric": "m", "mode": "max", "space": SPACE, "trials": 30, **changes})


def end(points: Points, name: str, value: float, **told: Any) -> None:
    points.on_trial_result(name, {"objective": value, "report": 1})
    points.on_trial_complete(name, {"objective": value, "report": 1, **told})


@pytest.mark.parametrize("algorithm", ["tpe", "random"])
def test_points_are_in_the_space_numbered_and_the_same_for_the_same_seed(algorithm: str) -> None:
    asked = search(algorithm=algorithm)
    one, other = Points(asked), Points(asked)
    for number in range(15):
        config = one.suggest(str(number))
        assert config == other.suggest(str(number))
        assert config["trial"] == number
        point = config["point"]
        assert all(asked.space[path].holds(value) for path, value in point.items())
        assert ("train.momentum" in point) == (point["train.optimizer"] == "sgd")
        for each in (one, other):
            end(each, str(number), point["train.lr"], whole=number % 2 == 0)


def test_points_to_start_with_come_first_and_what_they_lack_is_proposed() -> None:
    points = Points(search(start_with=[{"train.lr": 0.05}, {"train.optimizer": "adamw"}]))
    first, second = points.suggest("a")["point"], points.suggest("b")["point"]
    assert first["train.lr"] == 0.05
    assert "train.optimizer" in first
    assert second["train.optimizer"] == "adamw"


def test_trials_of_before_keep_number_and_point_and_the_next_ones_follow() -> None:
    done = Trial(0, {"train.lr": 0.01, "train.optimizer": "adamw"}, TrialState.COMPLETED, curve=((1, 0.4),), ended_at=3)
    lives = Trial(2, {"train.lr": 0.02, "train.optimizer": "adamw"}, TrialState.RUNNING)
    points = Points(search(start_with=[{"train.lr": 0.01}, {"train.lr": 0.03}]), known=[lives, done])
    assert points.suggest("a") == {"trial": 0, "point": done.point}
    assert points.suggest("b") == {"trial": 2, "point": lives.point}
    third, fourth = points.suggest("c"), points.suggest("d")
    assert (third["trial"], third["point"]["train.lr"]) == (1, 0.03)
    assert fourth["trial"] == 3


def test_there_is_no_point_while_there_is_no_room() -> None:
    room = 1
    points = Points(search(), room=lambda: room)
    assert points.suggest("a") is not None
    assert points.suggest("b") is None
    end(points, "a", 0.5, whole=True)
    assert points.suggest("b") is not None


def test_a_grid_gives_every_point_once_and_then_says_so() -> None:
    space = {"train.lr": {"grid": [0.1, 0.2]}, "train.optimizer": {"choice": ["adamw", "sgd"]}}
    points = Points(search(algorithm="grid", space=space))
    given = [points.suggest(str(number))["point"] for number in range(4)]
    assert [(each["train.lr"], each["train.optimizer"]) for each in given] == [
        (0.1, "adamw"),
        (0.1, "sgd"),
        (0.2, "adamw"),
        (0.2, "sgd"),
    ]
    assert points.suggest("more") == Points.FINISHED


def test_a_small_space_is_never_tried_twice() -> None:
    points = Points(search(space={"model.width": {"choice": [8, 16, 32]}}))
    assert {points.suggest(str(number))["point"]["model.width"] for number in range(3)} == {8, 16, 32}
    assert points.suggest("more") == Points.FINISHED


def test_a_trial_that_was_ended_early_is_learned_as_pruned_and_one_that_cannot_work_as_failed() -> None:
    points = Points(search())
    for name in ("whole", "early", "broken"):
        points.suggest(name)
    end(points, "whole", 0.5, whole=True)
    end(points, "early", 0.4)
    points.on_trial_complete("broken", {"objective": float("nan"), "report": 0, "infeasible": "no"})
    assert [each.state.name for each in points._study.trials] == ["COMPLETE", "PRUNED", "FAIL"]


def test_another_sweeps_trials_teach_where_they_lie_in_the_space() -> None:
    good = [
        Trial(n, {"train.lr": 0.05 + n * 1e-4, "train.optimizer": "adamw"}, TrialState.COMPLETED, curve=((1, 0.9),))
        for n in range(12)
    ]
    bad = [
        Trial(n, {"train.lr": 1e-3 - n * 1e-5, "train.optimizer": "sgd", "train.momentum": 0.6}, TrialState.COMPLETED,
              curve=((1, 0.1),)) for n in range(36)
    ]  # fmt: skip
    outside = Trial(99, {"train.lr": 7.0}, TrialState.COMPLETED, curve=((1, 1.0),))
    points = Points(search(), warm=[*good, *bad, outside])
    proposed = [points.suggest(str(number)) for number in range(8)]
    assert [each["trial"] for each in proposed] == list(range(8))
    near = [each["point"]["train.lr"] for each in proposed if each["point"]["train.lr"] > 0.01]
    assert len(near) >= 6


def test_a_scheduler_judges_at_its_rungs() -> None:
    asked = search(scheduler={"type": "asha", "grace": 1, "reduction": 3})
    assert milestones(asked, {"train": {"epochs": 81}}) == (1, 2, 3, 5, 9, 16, 27, 47)
    assert type(scheduler(asked, {"train": {"epochs": 81}})).__name__ == "Halving"
    assert milestones(search(), {"train": {"epochs": 81}}) == ()


def test_hyperbands_brackets_are_filled_together_in_its_proportions() -> None:
    document = {"train": {"epochs": 9}}
    asked = search(scheduler={"type": "hyperband", "grace": 1, "reduction": 3})
    assert milestones(asked, document) == (1, 3, 9)
    assert brackets(asked, document) == 3
    order = in_turn([9 / 3, 3 / 2, 1])
    assert [order.count(place) for place in range(3)] == [3, 2, 1]
    assert order[:3] != [0, 0, 0]
    halving = scheduler(asked, document)
    assert isinstance(halving, Brackets)
    for number in range(6):
        added = SimpleNamespace(trial_id=str(number), config={"trial": number})
        halving.on_trial_add(None, added)
    first_rungs = [min(rung for rung, _ in halving._trial_info[str(number)]._rungs) for number in range(6)]
    assert sorted(first_rungs) == [1, 1, 1, 3, 3, 9]


def test_pb2_prefers_the_rate_under_which_most_was_gained() -> None:
    asked = search(algorithm="pb2", space={"train.lr": {"log": [1e-4, 1.0]}})
    trials = []
    for number, rate in enumerate((1e-4, 1e-3, 1e-2, 1e-1, 1.0)):
        gain = 0.1 - 0.04 * abs(math.log10(rate) + 2)  # best at 0.01
        curve = tuple((report, 0.1 + gain * report) for report in range(1, 5))
        trials.append(Trial(number, {"train.lr": rate}, curve=curve, stages=(Stage({"train.lr": rate}),)))
    chosen = [improved(asked, trials, trials[2], 4, random.Random(seed))["train.lr"] for seed in range(5)]
    assert all(1e-3 < each < 1e-1 for each in chosen), chosen
    assert improved(asked, trials[:0], trials[2], 4, random.Random(0)) == {}
