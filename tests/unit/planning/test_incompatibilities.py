"""What DeepSpeed refuses is found before it is asked. That it really refuses it: tests/integration/trainers."""

from __future__ import annotations

import pytest

from orchestrator.errors import InvalidSpec
from orchestrator.planning.incompatibilities import IGNORED, REFUSED, Request, doubtful, incompatible
from orchestrator.spec import load
from tests.deepspeed_refusals import IGNORANCES, NOT_SHOWN, REFUSALS, REFUSED_OF_A_LAYOUT, Example
from trainers.layout import Layout, problems

RULES = {rule.name: rule for rule in (*REFUSED, *IGNORED)}


@pytest.mark.parametrize("example", [*REFUSALS, *IGNORANCES], ids=lambda each: f"{each.rule}, ZeRO {each.zero}")
def test_each_is_found_under_its_path_and_nothing_else_is(example: Example) -> None:
    problems = list(incompatible(example.request()))
    assert len(problems) == 1
    if example.rule in RULES:
        assert problems[0].path == RULES[example.rule].path
    else:
        assert problems[0].path.removeprefix("deepspeed.").split(".")[-1] == example.rule.split(": ")[1]
    assert problems[0].message


@pytest.mark.parametrize("example", REFUSED_OF_A_LAYOUT, ids=lambda each: f"{each.rule}, ZeRO {each.zero}")
def test_what_is_refused_of_a_layout_is_no_run_file(example: Example) -> None:
    model = {"experts": 2} if example.model == "experts" else {}
    layout = example.request().layout
    assert [each.path for each in problems(layout, 2, "text_transformer", model)] == ["parallelism.zero"]


def test_every_rule_has_an_example() -> None:
    assert set() == NOT_SHOWN


@pytest.mark.parametrize("zero", range(4))
def test_nothing_is_held_against_plain_zero(zero: int) -> None:
    passed = {
        "zero_optimization": {"overlap_comm": True, "stage3_prefetch_bucket_size": 1000, "reduce_bucket_size": 10},
        "communication_data_type": "fp32",
        "data_types": {"param_dtype": "float32"},
        "wall_clock_breakdown": True,
    }
    assert list(incompatible(Request(passed, Layout(workers=4, zero=zero)))) == []


def test_a_misspelt_key_is_answered_with_the_right_one() -> None:
    (problem,) = incompatible(Request({"zero_optimization": {"reduce_buckt_size": 10}}, Layout(workers=2, zero=2)))
    assert problem.message.endswith("did you mean reduce_bucket_size?")
    assert problem.got == "10"


def test_old_words_that_still_work_are_warned_of() -> None:
    request = Request({"zero_optimization": {"cpu_offload": True}}, Layout(workers=2, zero=2))
    assert list(incompatible(request)) == []
    assert list(doubtful(request)) == [
        "deepspeed.zero_optimization.cpu_offload is an old word, which DeepSpeed warns of: "
        "write offload_optimizer: {device: cpu}"
    ]


def test_a_word_that_does_nothing_is_warned_of() -> None:
    request = Request({"zero_optimisation": {"overlap_comm": True}, "wall_clock_breakdown": True}, Layout(workers=2))
    assert list(doubtful(request)) == [
        "deepspeed.zero_optimisation is not a key that DeepSpeed looks for: it would do nothing: "
        "did you mean zero_optimization?"
    ]


def test_sections_of_a_wrong_kind_are_no_reason_to_fail() -> None:
    assert list(incompatible(Request({"zero_optimization": True, "data_types": 3}, Layout(workers=2)))) == []


def test_two_precisions_at_once_cannot_be_said() -> None:
    with pytest.raises(InvalidSpec) as refused:
        load({"name": "a", "recipe": "digits_cnn", "train": {"epochs": 1}, "deepspeed": {"fp16": {}, "bf16": {}}})
    assert [each.path for each in refused.value.problems] == ["deepspeed.bf16", "deepspeed.fp16"]
