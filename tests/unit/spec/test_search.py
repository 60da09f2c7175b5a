"""`search:` of a run file: what is refused with which words, and what a trial's run file is."""

from __future__ import annotations

import random
from typing import Any

import pytest

from orchestrator import spec
from orchestrator.errors import InvalidSpec
from orchestrator.spec.search import Search, interval, points, trial_document
from orchestrator.spec.search_changes import perturbed

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
        ({"algorithm": "pbt", "scheduler": "asha"}, "search.scheduler.type", "leave the scheduler out"),
        ({"scheduler": "pbt", "space": {"model.width": {"choice": [8, 16]}}}, "search.space", "add one of train.lr"),
        ({"scheduler": "pb2", "space": {"train.lr": {"choice": [0.1, 0.2]}}}, "search.space.train.lr", "or pbt"),
        ({"scheduler": {"type": "asha", "interval": 2}}, "search.scheduler.interval", "is for pbt and pb2"),
        ({"scheduler": {"type": "hyperband", "grace": 10}}, "search.scheduler.grace", "at most max_steps (9)"),
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


def test_a_populations_trial_goes_on_from_a_checkpoint_and_seals_where_others_may() -> None:
    document = spec.dump(
        spec.load({**run_file(algorithm="pbt"), "init_from": {"model": "base@1", "freeze": ["first.*"]}})
    )
    parsed = spec.load(trial_document(document, {"train.lr": 0.02}, 7, "/runs/a/attempt-0001"))
    assert parsed.init_from is not None
    assert (parsed.init_from.checkpoint, parsed.init_from.resume) == ("/runs/a/attempt-0001", True)
    assert (parsed.init_from.model, parsed.init_from.freeze) == (None, ("first.*",))
    assert parsed.checkpoint.every_epochs == 1
    assert parsed.checkpoint.keep >= 10, "a donor's checkpoint must outlast the start of who takes it"
    assert interval({"train": {"epochs": 80}}, searched(scheduler="pb2", space={"train.lr": SPACE["train.lr"]})) == 8


def test_rates_are_moved_by_a_step_or_drawn_anew_within_their_range_and_nothing_else_is() -> None:
    search = searched(
        algorithm="pbt",
        space={
            "train.lr": {"log": [1e-4, 1e-2]},
            "train.momentum": {"choice": [0.5, 0.7, 0.9]},
            "model.width": {"choice": [8, 16]},
        },
    )
    before = {"train.lr": 1e-2, "train.momentum": 0.7, "model.width": 16}
    changed = [perturbed(search, before, random.Random(seed)) for seed in range(200)]
    assert {each["model.width"] for each in changed} == {16}
    assert {each["train.momentum"] for each in changed} == {0.5, 0.7, 0.9}
    rates = [each["train.lr"] for each in changed]
    assert all(1e-4 <= each <= 1e-2 for each in rates)
    assert 40 < sum(each == pytest.approx(8e-3) for each in rates) < 110
    assert 40 < sum(each == 1e-2 for each in rates) < 110, "a step beyond the end stays at the end"
    assert perturbed(search, before, random.Random(3)) == perturbed(search, before, random.Random(3))
