from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.ledger import Ledger, TimeClass
from orchestrator.core.money import Prices, affordable_s, cannot_hold, paid_s
from orchestrator.core.scheduling.fit import GangShape

PRICES = Prices(cpu_hour=0.5, gpu_hour=3.0, currency="EUR")
GANG = GangShape(workers=4, cpu=2, gpu=1)  # 4 EUR an hour and worker


def test_a_budget_buys_the_gangs_hours_less_what_was_used() -> None:
    assert affordable_s(32, GANG, PRICES, 0) == pytest.approx(2 * 3600)
    assert affordable_s(32, GANG, PRICES, used_worker_s=4 * 3600) == pytest.approx(3600)
    assert affordable_s(32, GANG, PRICES, used_worker_s=1e9) == 0


def test_waiting_in_the_queue_is_free_and_everything_else_is_paid() -> None:
    spent = Ledger(dict.fromkeys(TimeClass, 10**9))
    assert paid_s([spent, spent]) == 2 * (len(TimeClass) - 1)


@pytest.mark.parametrize(
    ("shape", "currency", "prices", "words"),
    [
        (GANG, "EUR", Prices(), "no prices"),
        (GANG, "USD", PRICES, "give the limit in EUR"),
        (GANG, "EUR", PRICES, None),
        (GangShape(1), "USD", Prices(gpu_hour=1), "has no price"),
    ],
)
def test_a_limit_that_cannot_be_held_says_why(
    shape: GangShape, currency: str, prices: Prices, words: str | None
) -> None:
    why = cannot_hold(shape, currency, prices)
    assert why is None if words is None else words in (why or "")


@given(st.floats(0.01, 1e6), st.integers(1, 512), st.floats(0, 1e9))
def test_what_is_granted_never_costs_more_than_the_rest(budget: float, workers: int, used_s: float) -> None:
    granted_s = affordable_s(budget, GangShape(workers), PRICES, used_s)
    cost = (used_s + granted_s * workers) * PRICES.cpu_hour / 3600
    assert granted_s == 0 or cost <= budget * (1 + 1e-9)
