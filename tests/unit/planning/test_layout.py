"""How ranks share a batch and a model, and what does not divide."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.planning.layout import Layout, batch_of, undivided
from trainers.shapes import BY_TENSOR, Layer, ModelShape, Tensor

SHAPE = ModelShape(
    (Layer("block", (Tensor(64, BY_TENSOR),), count=6),),
    blocks=6,
    heads=8,
    context=96,
    inner={"feed-forward width": 352},
)


@pytest.mark.parametrize(
    ("layout", "micro_batch", "batch"),
    [
        (Layout(1), None, "128 = 128 x 1 x 1"),
        (Layout(4), None, "128 = 32 x 1 x 4"),
        (Layout(4), 8, "128 = 8 x 4 x 4"),
        (Layout(4), 12, "128 = 8 x 4 x 4"),  # an upper bound
        (Layout(4), 1000, "128 = 32 x 1 x 4"),
        (Layout(8, tensor=2, sequence=2), 16, "128 = 16 x 4 x 2"),
        (Layout(8, pipeline=2), 4, "128 = 4 x 8 x 4"),
        (Layout(8, expert=4), 4, "128 = 4 x 4 x 8"),  # experts are spread over data-parallel ranks
    ],
)
def test_a_batch_is_micro_batches_times_accumulation_times_data_ranks(
    layout: Layout, micro_batch: int | None, batch: str
) -> None:
    found = batch_of(128, micro_batch, layout)
    assert str(found) == batch
    assert found is not None
    assert found.micro_batch * found.accumulation * found.data == 128


def test_a_batch_that_ranks_cannot_share_is_none() -> None:
    assert batch_of(128, None, Layout(3)) is None


def test_a_huge_batch_is_cut_at_once() -> None:
    assert str(batch_of(2**31 - 1, 2**30, Layout(1))) == "2147483647 = 1 x 2147483647 x 1"


@pytest.mark.parametrize(
    ("layout", "paths", "advice"),
    [
        (Layout(8, tensor=2, pipeline=2, sequence=2, zero=1), [], ""),
        (Layout(6, tensor=4), ["parallelism"], "must divide resources.workers (6)"),
        (Layout(6), ["train.global_batch"], "must be divisible by the 6 data-parallel ranks: 126 or 132 is"),
        (Layout(4, pipeline=4), ["parallelism.pipeline"], "must divide the model's 6 layers: one of 1, 2, 3, 6"),
        (Layout(16, tensor=16), ["parallelism.tensor"], "must divide the model's 8 heads"),
        (Layout(64, tensor=64), ["parallelism.tensor"] * 2, "must divide the model's 352 feed-forward width"),
        (Layout(64, sequence=64), ["parallelism.sequence"] * 2, "must divide the model's 96 positions"),
        (Layout(16, sequence=16), ["parallelism.sequence"], "must divide the heads that tensor leaves over (8 / 1)"),
        (Layout(8, tensor=4, sequence=2, expert=2), ["parallelism.expert"], "this model has no experts to divide"),
    ],
)
def test_what_a_layout_does_not_divide_is_named(layout: Layout, paths: list[str], advice: str) -> None:
    problems = list(undivided(layout, SHAPE, 128))
    assert [each.path for each in problems] == paths
    assert advice in "; ".join(str(each) for each in problems)


def test_experts_are_divided_among_ranks_of_the_same_layers() -> None:
    shape = replace(SHAPE, experts=8)
    assert list(undivided(Layout(8, expert=4), shape, 128)) == []
    uneven = list(undivided(Layout(6, expert=4), shape, 126))
    assert [each.message for each in uneven] == ["must divide the 6 ranks that hold the same layers: one of 1, 2, 3, 6"]


def test_a_model_that_is_not_known_is_not_judged() -> None:
    assert list(undivided(Layout(64, tensor=64), None, 128)) == []


def test_a_layout_reads_as_what_is_divided() -> None:
    assert str(Layout(8, zero=2)) == "ZeRO 2"
    assert str(Layout(8, zero=1, tensor=2, pipeline=4)) == "ZeRO 1, tensor 2, pipeline 4"
