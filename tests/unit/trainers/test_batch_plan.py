"""How ranks share a batch."""

from __future__ import annotations

import pytest

from trainers.layout import Layout, share_batch


@pytest.mark.parametrize(
    ("layout", "micro_batch", "batch"),
    [
        (Layout(workers=1), None, "128 = 128 x 1 x 1"),
        (Layout(workers=4), None, "128 = 32 x 1 x 4"),
        (Layout(workers=4), 8, "128 = 8 x 4 x 4"),
        (Layout(workers=4), 12, "128 = 8 x 4 x 4"),  # an upper bound
        (Layout(workers=4), 1000, "128 = 32 x 1 x 4"),
        (Layout(workers=8, tensor=2, sequence=2), 16, "128 = 16 x 4 x 2"),
        (Layout(workers=8, pipeline=2), 4, "128 = 4 x 8 x 4"),
        (Layout(workers=8, pipeline=2), None, "128 = 16 x 2 x 4"),  # one for each stage
        (Layout(workers=8, expert=4), 4, "128 = 4 x 4 x 8"),  # experts are spread over data-parallel ranks
    ],
)
def test_a_batch_is_micro_batches_times_accumulation_times_data_ranks(
    layout: Layout, micro_batch: int | None, batch: str
) -> None:
    found = share_batch(128, micro_batch, layout.data, layout.pipeline)
    assert str(found) == batch
    assert found is not None
    assert found.micro_batch * found.accumulation * found.data == 128


def test_a_batch_that_ranks_cannot_share_is_none() -> None:
    assert share_batch(128, None, 3) is None


def test_a_huge_batch_is_cut_at_once() -> None:
    assert str(share_batch(2**31 - 1, 2**30, 1)) == "2147483647 = 1 x 2147483647 x 1"


def test_a_layout_reads_as_what_is_divided() -> None:
    assert str(Layout(workers=8, zero=2)) == "ZeRO 2"
    assert str(Layout(workers=8, zero=1, tensor=2, pipeline=4)) == "ZeRO 1, tensor 2, pipeline 4"
