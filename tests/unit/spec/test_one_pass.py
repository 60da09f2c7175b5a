"""One reading of a wrong run file tells all of it: the keys that are wrong, and what the right ones disagree on."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator import spec
from orchestrator.errors import InvalidSpec
from orchestrator.spec.section import Section

SPACE: dict[str, Any] = {"train.lr": {"log": [1e-5, 1e-1]}, "train.optimizer": {"choice": ["adamw", "sgd"]}}
SWEPT: dict[str, Any] = {
    "name": "a",
    "recipe": "digits_cnn",
    "data": {"checks": {"rows": 10}},
    "train": {"epochs": 9, "global_batch": 128},
    "search": {"metric": "val_accuracy", "mode": "max", "space": SPACE},
    "monitor": {"retrain": {"recall": {}, "search": {"metric": "val_accuracy", "mode": "max", "space": SPACE}}},
}
ASHA = {"type": "asha", "max_steps": 10, "grace": 20, "interval": 2}

DISAGREEMENTS: dict[tuple[str, ...], Any] = {
    ("args",): ["--x"],
    ("code",): "bundle:" + "a" * 64,
    ("secrets",): ["A", "A", "B"],
    ("env",): {"B": "1"},
    ("launcher",): "ray_train",
    ("environment",): {"python": "/usr/bin/python3"},
    ("elastic",): {"min_workers": 1, "max_workers": 4},
    ("deepspeed", "train_batch_size"): 8,
    ("model", "widht"): 3,
    ("data", "split"): [0.8, 0, 0.2],
    ("resources", "workers"): 3,
    ("parallelism", "tensor"): 2,
    ("parallelism", "pipeline"): 2,
    ("parallelism", "zero"): 3,
    ("parallelism", "offload"): "cpu",
    ("train", "micro_batch"): 5,
    ("train", "precision"): "fp16",
    ("train", "loss_scale"): 8,
    ("train", "ema"): 0.9,
    ("train", "optimizer"): "muon",
    ("train", "early_stopping"): {"metric": "val_los", "patience": 1},
    ("train", "schedule", "type"): "plateau",
    ("init_from",): {"file": "a", "groups": [{"match": "a", "lr_factor": 2}]},
    ("monitor", "window"): {"rows": 100},
    ("monitor", "retrain", "triggers"): ["drift", "drift"],
    ("monitor", "retrain", "search", "metric"): "val_acuracy",
    ("monitor", "retrain", "search", "space", "data.source"): {"choice": ["a", "b"]},
    ("monitor", "retrain", "search", "space", "model.width"): {"choice": [8, 16]},
    ("search", "metric"): "val_acuracy",
    ("search", "algorithm"): "grid",
    ("search", "scheduler"): ASHA,
    ("search", "space", "train.lrr"): {"log": [1e-5, 1e-1]},
    ("search", "space", "train.clip"): {"uniform": [-1, 1]},
    ("search", "space", "train.global_batch"): {"choice": [30, 31]},
    ("search", "space", "train.momentum"): {"uniform": [0.5, 0.9], "when": {"train.optimiser": "sgd"}},
    ("search", "start_with"): [{"train.rl": 1.0, "train.lr": 2.0}],
}
"""What a right value at this place makes wrong: of the whole of SWEPT, or together with another one."""

KEYS: dict[tuple[str, ...], tuple[Any, list[Any]]] = {
    ("name",): ("A b", ["a", "b"]),
    ("queu",): ("x", []),
    ("priority",): (101, [1, 50]),
    ("recipe",): ("digits_cn", ["digits_cnn", "text_transformer", "digits_gan", "tabular", None]),
    ("data", "split"): ([0.7, 0.7, 0.7], [[0.7, 0.3, 0], [0.7, 0.15, 0.15]]),
    ("data", "checks", "rows"): (0, [1, 10]),
    ("train", "epochs"): (0, [1, 9, 30]),
    ("train", "global_batch"): (0, [1, 32, 60, 105]),
    ("train", "micro_batch"): (0, [1, 2, 3, "auto", None]),
    ("train", "precision"): ("fp8", ["fp32", "bf16", "fp16"]),
    ("train", "lr"): ("fast", [0.1, "auto"]),
    ("train", "optimizer"): ("adamww", ["adamw", "muon"]),
    ("parallelism", "zero"): (4, [0, 1, 2, 3]),
    ("parallelism", "tensor"): (0, [1, 2]),
    ("resources", "workers"): (0, [1, 2, 3, 4, 5]),
    ("resources", "memory"): ("2 chickens", ["2GiB", 0]),
    ("search", "algorithm"): ("tpee", ["tpe", "grid", "random", "cmaes", "pbt"]),
    ("search", "scheduler"): ("ahsa", ["asha", "fifo", ASHA]),
    ("search", "mode"): ("best", ["min", "max"]),
    ("search", "trials"): (0, [1, 20]),
    ("search", "space", "train.lr"): ({"log": [0, 1]}, [{"choice": [1.0, 2.0]}, {"uniform": [3.0, 9.0]}]),
    ("monitor", "retrain", "start"): ("cold", ["warm", "scratch"]),
    ("monitor", "judge"): ({"false_alarms": 0}, [{}, {"false_alarms": 0.1}]),
    ("max_cost",): ("20 dollars", ["20 USD", None]),
}
"""A value that is wrong by itself, and right ones: what is wrong beside it, and would be with each of these, is told."""


def put(document: Mapping[str, Any], place: tuple[str, ...], value: Any) -> dict[str, Any]:
    key, *rest = place
    return {**document, key: put(document.get(key, {}), tuple(rest), value) if rest else value}


def told(document: Mapping[str, Any]) -> set[tuple[str, str]]:
    try:
        spec.load(document)
    except InvalidSpec as error:
        return {(each.path, each.message) for each in error.problems}
    return set()


def paths(document: Mapping[str, Any]) -> set[str]:
    return {path for path, _ in told(document)}


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    wrong=st.sampled_from(sorted(KEYS)),
    disagreements=st.sets(st.sampled_from(sorted(DISAGREEMENTS)), max_size=5),
)
def test_a_wrong_key_hides_nothing_and_nothing_is_said_that_hangs_on_it(
    wrong: tuple[str, ...], disagreements: set[tuple[str, ...]]
) -> None:
    value, rights = KEYS[wrong]
    document = reduce(lambda made, place: put(made, place, DISAGREEMENTS[place]), sorted(disagreements), SWEPT)
    own = told(put(SWEPT, wrong, value))
    assert own, "the key is wrong by itself"
    others = [told(put(document, wrong, right)) for right in rights] or [told(document)]
    assert told(put(document, wrong, value)) == own | set.intersection(*others)


TEXT = {"name": "a", "recipe": "text_transformer", "train": {"epochs": 1}}
MISSPELT = {"metric": "val_loss", "mode": "min", "space": {"train.lrr": {"log": [1, 2]}}}
WATCHED = {"window": {"rows": 9}, "retrain": {"mode": "atuo", "triggers": ["drift", "drift"]}, "promote": {}}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            {"search": {**MISSPELT, "metric": "val_acuracy", "algorithm": "tpee"}},
            {"search.algorithm", "search.metric", "search.space.train.lrr"},
        ),
        ({"train": 5, "search": MISSPELT}, {"train", "search.space.train.lrr"}),
        ({"search": {"mode": "min", "space": MISSPELT["space"]}}, {"search.metric", "search.space.train.lrr"}),
        ({"search": {"metric": "val_los", "mode": "min"}}, {"search.metric", "search.space"}),
        (
            {"train": {"epochs": 1, "lr": 0, "early_stopping": {"metric": "val_los"}}},
            {"train.lr", "train.early_stopping", "train.early_stopping.metric"},
        ),
        (
            {"recipe": "recommender", "data": {}, "search": None, "monitor": WATCHED},
            {"monitor", "monitor.window.rows", "monitor.retrain.mode", "monitor.retrain", "monitor.promote"},
        ),
        ({"deepspeed": "ds.json", "resources": {"workers": 3}}, {"deepspeed", "train.global_batch"}),
    ],
)
def test_wrong_keys_and_what_right_ones_disagree_on_are_told_at_once(
    change: dict[str, Any], expected: set[str]
) -> None:
    assert paths({**SWEPT, **change}) == expected


@pytest.mark.parametrize(
    "document",
    [
        {"name": "a", "recipe": "digits_cnn", "train": {"epoch": 3}},
        {"name": "a", "recipe": "digits_cnn", "epochs": 3},
        {**TEXT, "rescources": {"workers": 4}, "parallelism": {"tensor": 2}},
        {**TEXT, "resources": {"worker": 4}, "parallelism": {"tensor": 2}},
        {**SWEPT, "search": {"metric": "val_loss", "mode": "min", "spac": SPACE, "space": SPACE}},
        {"name": "a", "script": "../a.py", "args": ["--lr", "0.1"]},
    ],
)
def test_nothing_is_said_of_a_key_that_a_misspelt_one_was_meant_for(document: dict[str, Any]) -> None:
    assert len(told(document)) == 1


def test_of_a_parameter_whose_range_is_wrong_its_name_is_judged_and_nothing_that_hangs_on_the_range() -> None:
    space = {"train.lr": {"log": [0, 1]}, "train.optimiser": {"choice": []}}
    first = [{"train.lr": 5.0, "train.optimiser": "sgd"}]
    search = {"metric": "val_loss", "mode": "min", "algorithm": "grid", "space": space, "start_with": first}
    assert paths({**SWEPT, "search": search}) == {
        "search.space.train.lr",
        "search.space.train.optimiser.choice",
        "search.space.train.optimiser",
    }


def test_what_the_server_alone_writes_is_named_beside_all_else() -> None:
    with pytest.raises(InvalidSpec) as refused:
        spec.parse(
            '{"name": "a", "recipe": "digits_cnn", "train": {"epochs": 1, "micro_batch": 5}, "proof": {}, "queu": 1}'
        )
    assert {each.path for each in refused.value.problems} == {"proof", "queu", "train.micro_batch"}


def test_all_that_is_asked_of_one_key_stands_in_its_type_where_a_partial_reading_finds_it() -> None:
    sections = [Section]
    for each in sections:
        sections += each.__subclasses__()
    assert len(sections) > 20
    assert [each.__name__ for each in sections if each.__pydantic_decorators__.field_validators] == []
