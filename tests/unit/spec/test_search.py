"""`search:` of a run file: what is refused with which words, and what a trial's run file is."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator import spec
from orchestrator.errors import InvalidSpec
from orchestrator.spec.search import Search, points, trial_document

SPACE: dict[str, Any] = {
    "train.lr": {"log": [1e-5, 1e-1]},
    "train.optimizer": {"choice": ["adamw", "sgd"]},
    "train.momentum": {"uniform": [0.5, 0.99], "when": {"train.optimizer": "sgd"}},
}


def run_file(**search: Any) -> dict[str, Any]:
    asked = {"metric": "val_accuracy", "mode": "max", "space": SPACE, **search}
    return {"name": "s", "recipe": "digits_cnn", "train": {"epochs": 9, "global_batch": 128}, "search": asked}


def told(**search: Any) -> dict[str, str]:
    with pytest.raises(InvalidSpec) as refused:
        spec.load(run_file(**search))
    return {each.path: each.message for each in refused.value.problems}


def searched(**search: Any) -> Search:
    found = spec.load(run_file(**search)).search
    assert found is not None
    return found


def test_a_sweep_that_was_dumped_loads_as_itself() -> None:
    parsed = spec.load(run_file(scheduler="asha", stop={"max_cost": "5 USD", "max_duration": "2h"}, trials=8))
    assert spec.load(spec.dump(parsed)) == parsed
    assert spec.stored_shape(spec.dump(parsed)).cpu == 0, "a sweep holds nothing: its trials do"


@pytest.mark.parametrize(
    ("space", "path", "words"),
    [
        ({"train.lrr": {"log": [1, 2]}}, "train.lrr", "did you mean lr?"),
        ({"model.widht": {"choice": [8]}}, "model.widht", "did you mean width?"),
        ({"train.lr": {"uniform": [-1, 1]}}, "train.lr", "greater than 0"),
        ({"train.optimizer": {"choice": ["adamw", "adamm"]}}, "train.optimizer", "must be one of"),
        ({"name": {"choice": ["a", "b"]}}, "name", "not a key that trials may differ in"),
        ({"train.lr": {"log": [0, 1]}}, "train.lr", "must begin above 0"),
        ({"train.lr": {"log": [1, 0.1]}}, "train.lr", "from must be at most to"),
        ({"train.lr": {"log": [1, 2], "choice": [1]}}, "train.lr", "exactly one of"),
        ({"train.lr": {"choice": [1, 1.0]}}, "train.lr", "names a value twice"),
        ({"train.lr": {"choice": []}}, "train.lr.choice", "at least 1"),
        ({}, "", "at least 1"),
    ],
)  # fmt: skip
def test_a_parameter_that_cannot_be_is_named_with_what_would_be_right(
    space: dict[str, Any], path: str, words: str
) -> None:
    assert words in told(space=space)[f"search.space.{path}" if path else "search.space"]


@pytest.mark.parametrize(
    ("when", "path", "words"),
    [
        ({"train.optimiser": "sgd"}, "train.momentum.when.train.optimiser", "did you mean train.optimizer?"),
        ({"train.optimizer": "lion"}, "train.momentum.when.train.optimizer", "can never hold"),
        ({"train.lr": 0.1}, "train.momentum.when.train.lr", "is a range"),
    ],
)
def test_a_condition_that_can_never_hold_is_refused(when: dict[str, Any], path: str, words: str) -> None:
    space = {**SPACE, "train.momentum": {"uniform": [0.5, 0.9], "when": when}}
    assert words in told(space=space)[f"search.space.{path}"]


def test_conditions_that_wait_for_one_another_are_refused() -> None:
    space = {
        "train.optimizer": {"choice": ["adamw", "sgd"], "when": {"train.schedule.type": "cosine"}},
        "train.schedule.type": {"choice": ["cosine", "linear"], "when": {"train.optimizer": "sgd"}},
    }
    assert "wait for one another" in "".join(told(space=space).values())


@pytest.mark.parametrize(
    ("search", "path", "words"),
    [
        ({"metric": "val_acuracy"}, "search.metric", "did you mean val_accuracy?"),
        ({"mode": "best"}, "search.mode", "must be one of"),
        ({"algorithm": "grid"}, "search.space.train.lr", "a grid has to count"),
        ({"algorithm": "cmaes"}, "search.space.train.momentum.when", "cmaes searches all"),
        ({"algorithm": "pbt"}, "search.algorithm", "not yet"),
        ({"algorithm": "pb2"}, "search.algorithm", "not yet"),
        ({"scheduler": "hyperband"}, "search.scheduler.type", "not yet"),
        ({"scheduler": {"type": "asha", "max_steps": 10}}, "search.scheduler.max_steps", "train.epochs is 9"),
        ({"scheduler": {"type": "asha", "grace": 10}}, "search.scheduler.grace", "at most max_steps (9)"),
        ({"start_with": [{"train.lr": 1.0}]}, "search.start_with[0].train.lr", "not in the parameter's range"),
        ({"start_with": [{"train.rl": 1.0}]}, "search.start_with[0].train.rl", "did you mean train.lr?"),
        ({"trials": 0}, "search.trials", "at least 1"),
    ],
)
def test_a_search_that_cannot_be_is_refused(search: dict[str, Any], path: str, words: str) -> None:
    assert words in told(**search)[path]


def test_a_grid_counts_only_points_that_differ_and_whose_conditions_hold() -> None:
    space = {
        "train.optimizer": {"grid": ["adamw", "sgd"]},
        "train.momentum": {"grid": [0.5, 0.9], "when": {"train.optimizer": ["sgd"]}},
    }
    search = searched(algorithm="grid", space=space)
    assert points(search.space) == [
        {"train.optimizer": "adamw"},
        {"train.optimizer": "sgd", "train.momentum": 0.5},
        {"train.optimizer": "sgd", "train.momentum": 0.9},
    ]
    assert search.wanted == 3


@pytest.mark.parametrize(("choice", "wanted"), [([8], 1), ([8, 16], 2)])
def test_a_small_space_makes_no_more_trials_than_it_has_points(choice: list[int], wanted: int) -> None:
    assert searched(space={"model.width": {"choice": choice}}, trials=64).wanted == wanted


def test_a_trials_run_file_is_the_sweeps_with_the_point_put_in() -> None:
    document = spec.dump(spec.load(run_file(scheduler={"type": "asha", "max_steps": 3})))
    made = trial_document(document, {"train.lr": 0.02, "train.optimizer": "sgd", "env.SCALE": 2.5}, 7)
    parsed = spec.load(made)
    assert (parsed.name, parsed.search, parsed.train.lr, parsed.train.optimizer) == ("s-trial-7", None, 0.02, "sgd")
    assert parsed.train.epochs == 3, "a trial trains no longer than its scheduler lets it"
    assert parsed.env == {"SCALE": "2.5"}
    assert document["train"]["lr"] == 1e-3, "the sweep's own file is left alone"
