"""A table on one rank; tests/integration/trainers/test_recommender.py spreads it over two."""

from __future__ import annotations

import pytest
import torch

from trainers.distributed import World
from trainers.errors import BadConfig
from trainers.models.sharded_table import ShardedTable, whole

CPU = torch.device("cpu")


def table(rows: int = 7, *, rank: int = 0, size: int = 1) -> ShardedTable:
    return ShardedTable(rows, 3, seed=5, scale=0.5, here=World(rank, size, CPU))


def test_first_rows_are_the_same_however_they_are_spread() -> None:
    alone = table().weight
    parts = {rank: table(rank=rank, size=3).state() for rank in range(3)}
    assert torch.equal(whole(parts), alone)
    assert alone.abs().max() <= 0.5
    assert alone.unique().numel() == alone.numel()


def test_only_rows_that_were_asked_for_move_and_against_their_gradient() -> None:
    rows = table()
    before = rows.weight.clone()
    looked_up = rows.lookup(torch.tensor([[1, 4], [4, 4]]))
    assert torch.equal(looked_up, before[torch.tensor([[1, 4], [4, 4]])])
    (looked_up * torch.tensor([1.0, 2.0, -3.0])).sum().backward()
    rows.update(lr=0.1)
    moved = rows.weight - before
    assert torch.nonzero(moved.abs().sum(dim=1)).flatten().tolist() == [1, 4]
    assert torch.equal(moved.sign()[1], torch.tensor([-1.0, -1.0, 1.0]))
    # The first step of row-wise AdaGrad divides by the root of the row's mean square, however long the gradient.
    assert torch.allclose(moved[1], -0.1 * torch.tensor([1.0, 2.0, -3.0]) / (14 / 3) ** 0.5)
    assert torch.allclose(moved[4], moved[1], atol=1e-6)


def test_a_lookup_without_gradients_leaves_nothing_to_update() -> None:
    rows = table()
    before = rows.weight.clone()
    with torch.no_grad():
        rows.lookup(torch.tensor([2]))
    rows.update(lr=1.0)
    assert torch.equal(rows.weight, before)


@pytest.mark.parametrize(("then", "now"), [(1, 3), (3, 1), (3, 2), (2, 2)])
def test_what_some_ranks_kept_is_taken_up_by_others(then: int, now: int) -> None:
    kept = {rank: table(rank=rank, size=then) for rank in range(then)}
    for rank, each in kept.items():
        each.weight += 1
        each.squares += rank + 1.0
    states = {rank: each.state() for rank, each in kept.items()}
    after = {rank: table(rank=rank, size=now) for rank in range(now)}
    for rank, each in after.items():
        each.load_state(states.items() if then != now else [(rank, states[rank])], then)
    assert torch.equal(whole({rank: each.state() for rank, each in after.items()}), whole(states))
    assert after[0].squares[0] == 1.0


def test_another_tables_rows_are_refused() -> None:
    with pytest.raises(BadConfig, match=r"the checkpoint holds 9 rows of 3"):
        table().load_state([(0, table(rows=9).state())], 1)
