"""Where a range test's curve says the learning rate should be."""

from __future__ import annotations

import math

import pytest

from trainers.range_test import LOWEST, Curve


def curve(losses: dict[float, float]) -> Curve:
    return Curve(list(losses), list(losses.values()))


def test_the_rate_is_where_the_loss_falls_fastest() -> None:
    falling = {
        10.0**-exponent: loss for exponent, loss in zip(range(6, 0, -1), [5.0, 4.9, 4.5, 2.0, 1.8, 9.0], strict=True)
    }
    assert curve(falling).steepest() == pytest.approx(1e-4)


def test_a_steep_fall_on_the_way_back_from_divergence_does_not_count() -> None:
    losses = {1e-4: 3.0, 1e-3: 2.0, 1e-2: 1.0, 1e-1: 50.0, 1.0: 20.0}
    assert curve(losses).steepest() == pytest.approx(1e-3)


def test_a_loss_that_never_falls_gives_the_lowest_rate() -> None:
    assert curve({1e-6: 1.0, 1e-5: 1.1, 1e-4: 1.2}).steepest() == 1e-6
    assert Curve().steepest() == LOWEST


def test_the_test_ends_when_the_loss_diverges_or_is_no_number() -> None:
    steady = Curve()
    assert all(steady.add(10.0**-9 * step, 1.0) for step in range(1, 20))
    assert steady.losses == pytest.approx([1.0] * 19)
    assert not steady.add(1.0, 1000.0)
    assert not Curve().add(1.0, math.nan)
