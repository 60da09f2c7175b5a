"""How long an attempt may go on: the smaller of what time and money leave it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from orchestrator.core import lifecycle
from orchestrator.core.ledger import Ledger, TimeClass
from orchestrator.core.money import Prices
from orchestrator.core.orders import AttemptOrder
from tests.builders import BUDGETS, attempt_ended
from tests.unit.control.plane import Plane, observation

PRICES = Prices(cpu_hour=1.0)
TWO = {"workers": 2, "cpu": 1}  # 2 USD an hour


def order(plane: Plane, after_s: float = 0.0, **keys: Any) -> AttemptOrder:
    async def place() -> None:
        await plane.attach()
        plane.submit(resources=TWO, **keys)
        plane.loop.one_pass()

    asyncio.run(place())
    plane.clock.forward(after_s)
    (placed,) = plane.fleet.orders("local")
    return placed


@pytest.mark.parametrize(
    ("keys", "remaining_s", "words"),
    [
        ({"max_cost": "4 USD"}, 7200.0 - 60, "max_cost of 4 USD is used up"),
        ({"max_cost": "4 USD", "max_duration": "1h"}, 3600.0 - 60, "max_duration has passed"),
        ({"max_cost": "1 USD", "max_duration": "1h"}, 1800.0 - 60, "max_cost of 1 USD is used up"),
        ({"max_cost": "0.01 USD"}, 0.0, "max_cost of 0.01 USD is used up"),
    ],
)
def test_the_smaller_rest_counts_and_is_named(keys: dict[str, str], remaining_s: float, words: str) -> None:
    placed = order(Plane(prices=PRICES), 60.0, **keys)
    assert placed.remaining_s == pytest.approx(remaining_s)
    assert placed.deadline_message == words


@pytest.mark.parametrize("jump_s", [-900.0, 7200.0])
@pytest.mark.parametrize(
    ("keys", "left_s"), [({"max_duration": "1h"}, 3600.0 - 90), ({"max_cost": "2 USD"}, 3600.0 - 60)]
)
def test_a_wall_clock_that_is_moved_neither_shortens_nor_lengthens_a_later_attempt(
    jump_s: float, keys: dict[str, str], left_s: float
) -> None:
    """60 s of a first attempt, 30 s in the queue: those cost nothing."""
    plane = Plane(prices=PRICES)
    first = order(plane, 60.0, **keys)
    run = plane.store.run("default", first.run_id)
    ledger = Ledger({TimeClass.TRAINING: 2 * 60 * 10**9})
    plane.clock.wall += jump_s
    ended = observation(run, attempt_ended("lost", ledger=ledger), seq=1)
    plane.records.change("*", run.id, lambda now: lifecycle.observe(now, ended, budgets=BUDGETS, now=plane.clock.now()))
    plane.clock.forward(30)
    plane.loop.one_pass()
    (second,) = plane.fleet.orders("local")
    assert (second.attempt, second.remaining_s) == (2, pytest.approx(left_s))


def test_a_new_server_counts_what_passed_before_it() -> None:
    old = Plane(prices=PRICES)
    order(old, 60.0, max_duration="1h")
    (placed,) = Plane(store=old.store, clock=old.clock).fleet.orders("local")
    assert placed.remaining_s == pytest.approx(3600.0 - 60)


@pytest.mark.parametrize("jump_s", [0.0, -900.0, 7200.0])
@pytest.mark.parametrize("restarts", [False, True])
def test_the_time_that_a_run_is_paused_is_not_taken_from_max_duration(jump_s: float, restarts: bool) -> None:
    """60 s of a first attempt, an hour paused, 30 s in the queue. Only what passed before a restart is of the wall clock."""
    plane = Plane()
    first = order(plane, 60.0, max_duration="1h")
    plane.commands.pause("default", first.run_id, by="ada")
    run = plane.store.run("default", first.run_id)
    ended = observation(run, attempt_ended("preempted"), seq=1)
    plane.records.change("*", run.id, lambda now: lifecycle.observe(now, ended, budgets=BUDGETS, now=plane.clock.now()))
    plane.clock.forward(1800)
    if restarts:
        plane = Plane(store=plane.store, clock=plane.clock)
        asyncio.run(plane.attach(epoch=2))
    plane.clock.wall += jump_s
    plane.clock.forward(1800)
    plane.commands.resume("default", run.id, by="ada")
    plane.clock.forward(30)
    plane.loop.one_pass()
    (second,) = plane.fleet.orders("local")
    assert (second.attempt, second.remaining_s) == (2, pytest.approx(3600.0 - 90))
    if not jump_s:
        (told_again,) = Plane(store=plane.store, clock=plane.clock).fleet.orders("local")
        assert told_again.remaining_s == pytest.approx(3600.0 - 90)


def test_without_limits_there_is_no_deadline() -> None:
    assert order(Plane(prices=PRICES)).remaining_s is None


def test_a_limit_that_can_no_longer_be_held_ends_the_run_and_says_why() -> None:
    priced = Plane(prices=PRICES)
    order(priced, max_cost="4 USD")
    (placed,) = Plane(store=priced.store, clock=priced.clock).fleet.orders("local")
    assert placed.remaining_s == 0.0
    assert "no prices" in placed.deadline_message
