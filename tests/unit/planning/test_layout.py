"""How ranks share a batch and a model, and what does not divide."""

from __future__ import annotations

import pytest

from orchestrator.planning.layout import Layout, batch_of, undivided

MODEL = {"layers": 6, "heads": 8, "width": 128, "context": 96}


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
        (Layout(8, pipeline=2), None, "128 = 16 x 2 x 4"),  # one for each stage
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
        (Layout(8, tensor=2, pipeline=2, zero=1), [], ""),
        (Layout(6, tensor=4), ["resources.workers"], "must be a multiple of 4"),
        (Layout(6), ["train.global_batch"], "must be divisible by the 6 data-parallel ranks: 126 or 132 is"),
        (Layout(4, pipeline=4), ["parallelism.pipeline"], "must divide model.layers, 6"),
        (Layout(8, pipeline=2, zero=3), ["parallelism.zero"], "must be 0 or 1"),
    ],
)
def test_what_a_layout_does_not_divide_is_named(layout: Layout, paths: list[str], advice: str) -> None:
    problems = list(undivided(layout, "text_transformer", MODEL, 128))
    assert [each.path for each in problems] == paths
    assert advice in "; ".join(str(each) for each in problems)


def test_a_model_that_is_not_known_is_not_judged() -> None:
    assert list(undivided(Layout(64, tensor=64), None, {}, 128)) == []


def test_a_layout_reads_as_what_is_divided() -> None:
    assert str(Layout(8, zero=2)) == "ZeRO 2"
    assert str(Layout(8, zero=1, tensor=2, pipeline=4)) == "ZeRO 1, tensor 2, pipeline 4"
