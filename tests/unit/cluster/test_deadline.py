from __future__ import annotations

from orchestrator.cluster.gang import deadline_of
from orchestrator.core.orders import AttemptOrder


def test_the_end_by_a_limit_names_the_limit() -> None:
    order = AttemptOrder("run-1", "default", "a", 1, (), {}, "/root", deadline_message="max_cost of 20 USD is used up")
    stop = deadline_of(order)
    assert (stop.kind, stop.message) == ("deadline", "max_cost of 20 USD is used up")
