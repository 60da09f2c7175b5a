"""The cheapest layout that fits, and what else would."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from orchestrator.planning.choice import Limit, Question, choose, option, options, would_fit
from orchestrator.planning.memory import GIB, Setting
from orchestrator.planning.outlook import Measured
from trainers.layout import Layout
from trainers.shapes import BY_TENSOR, Layer, ModelShape, Tensor

MIB = 2**20
ALL = frozenset(("tensor", "pipeline", "sequence"))
# A model of 512 Mi parameters in 8 blocks: 8 GiB of model state in fp32.
SHAPE = ModelShape(
    (Layer("block", (Tensor(64 * MIB, BY_TENSOR),), saved=10_000, saved_split=5_000, output=1_000, count=8),),
    tokens=64,
    blocks=8,
    context=64,
)
ZERO_3 = {"stage3_max_reuse_distance": 0, "stage3_prefetch_bucket_size": 0}  # nothing stays gathered
QUESTION = Question(
    recipe="text_transformer",
    model={"layers": 8, "heads": 8, "width": 256},
    shape=SHAPE,
    workers=4,
    degrees=frozenset(),
    global_batch=64,
    micro_batch=4,
    setting=Setting(micro_batch=1, zero=ZERO_3),
    passed={"zero_optimization": ZERO_3},
)


def limited(size_gib: float, **changes: object) -> Question:
    limit = Limit(int(size_gib * GIB), f"resources.memory is {size_gib:g} GiB")
    return replace(QUESTION, limit=limit, **changes)  # type: ignore[arg-type]


def test_one_rank_has_nothing_to_divide() -> None:
    best, why = choose(replace(QUESTION, workers=1))
    assert best is not None
    assert best.layout == Layout(workers=1)
    assert "nothing says how much a rank may hold" in why


def test_with_room_the_optimizers_work_is_shared_and_nothing_is_sent_for_it() -> None:
    best, _ = choose(QUESTION)
    assert best is not None
    assert best.layout == Layout(workers=4, zero=1)


@pytest.mark.parametrize(("size_gib", "zero"), [(20, 1), (8, 1), (7, 2), (6, 3)])
def test_the_tighter_the_more_is_divided(size_gib: float, zero: int) -> None:
    best, why = choose(limited(size_gib))
    assert best is not None, why
    assert best.layout.zero == zero
    assert best.memory.total <= size_gib * GIB


def test_the_reason_names_what_was_cheaper_and_why_it_was_not_taken() -> None:
    _, why = choose(limited(7))
    assert why.startswith("ZeRO 2 (")
    assert "resources.memory is 7 GiB" in why
    assert "; ZeRO 1 (" in why
    assert why.endswith("would be cheaper, but does not fit")


def test_without_earlier_runs_the_reason_says_that_costs_are_nominal() -> None:
    _, why = choose(QUESTION)
    assert "by nominal costs, as no earlier run did the same on as many workers" in why


def test_what_a_layout_took_goes_before_what_it_was_reckoned_to() -> None:
    took = {
        Layout(workers=4, zero=1): Measured(2.0, ("slow",)),
        Layout(workers=4, zero=2): Measured(0.5, ("one", "two")),
    }
    best, why = choose(replace(QUESTION, measured=took))
    assert best is not None
    assert best.layout == Layout(workers=4, zero=2)
    assert best.cost_s == 0.5
    assert "by the 0.5 s that it took in one, two" in why


def test_layouts_that_none_had_are_reckoned_in_proportion_to_those_that_some_had() -> None:
    nominal = {each.layout: each.cost_s for each in options(QUESTION)}
    slow = Layout(workers=4, zero=3)
    found = options(replace(QUESTION, measured={slow: Measured(1000 * nominal[slow], ("run",))}))
    assert {each.layout: each.cost_s for each in found} == pytest.approx(
        {name: 1000 * each for name, each in nominal.items()}
    )
    best, why = choose(replace(QUESTION, measured={slow: Measured(1.0, ("run",))}))
    assert best is not None
    assert best.layout.zero == 1
    assert "by costs reckoned in proportion to what other layouts took in run" in why


def test_what_was_measured_and_does_not_fit_is_not_taken() -> None:
    took = {Layout(workers=4, zero=1): Measured(0.001, ("fast",))}
    best, why = choose(limited(7, measured=took))
    assert best is not None
    assert best.layout.zero == 2
    assert "took in fast" in why


def test_degrees_are_tried_where_the_model_has_them() -> None:
    assert {each.layout.tensor for each in options(QUESTION)} == {1}
    found = options(replace(QUESTION, degrees=ALL))
    assert {each.layout.tensor for each in found} == {1, 2, 4}
    assert {each.layout.pipeline for each in found} == {1, 2, 4}
    assert {each.layout.expert for each in found} == {1}  # it has none
    assert not [each for each in found if each.layout.pipeline > 1 and each.layout.zero > 1]


def test_nothing_fits_is_said_with_the_smallest() -> None:
    best, why = choose(limited(1, degrees=ALL))
    assert best is None
    assert why.startswith("no layout of 4 workers fits: the smallest is ")


def test_a_batch_that_cannot_be_shared_leaves_no_layout() -> None:
    best, why = choose(replace(QUESTION, global_batch=63))
    assert best is None
    assert "divides this model and its batch" in why


def test_a_suggestion_changes_one_thing_where_one_is_enough() -> None:
    question = limited(7, degrees=ALL)
    now = option(Layout(workers=4), question)
    assert now is not None
    assert not now.fits(question.limit)
    words = would_fit(now, question)
    assert re.match(r"tensor 4 would, at 2\.\d+ GiB per rank; ZeRO 2 would, at 6\.\d+ GiB per rank; ", words)
    assert "ZeRO 0" not in words


def test_a_smaller_micro_batch_is_a_suggestion_where_activations_are_what_is_too_much() -> None:
    shape = replace(SHAPE, layers=(replace(SHAPE.layers[0], parameters=(Tensor(MIB),), saved=4_000_000),))
    question = limited(1.8, shape=shape, micro_batch=16)
    now = option(Layout(workers=4, zero=1), question)
    assert now is not None
    assert now.batch.micro_batch == 16
    assert "train.micro_batch 8 would, at " in would_fit(now, question)


def test_thousands_of_workers_are_planned_in_no_time() -> None:
    found = options(replace(QUESTION, workers=4096, global_batch=2**20, degrees=ALL))
    assert len(found) > 50
