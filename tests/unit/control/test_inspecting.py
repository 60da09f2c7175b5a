"""A question to a run's ranks on its way down, and what becomes of one that nobody answers."""

import pytest

from orchestrator.core import observations as seen
from orchestrator.core.inspections import GRACE_S, Question
from orchestrator.errors import NotFound, Refused
from tests.unit.control.plane import Plane, observation

STACKS = Question("q-1", "stacks", (1,), within_s=20.0)


async def running(plane: Plane):
    session = await plane.attach()
    run = plane.submit()
    plane.loop.one_pass()
    happened = (seen.IncarnationStarted(1, 2), seen.FirstStep(1, 1))
    await session.observe([observation(run, what, seq=n) for n, what in enumerate(happened, 1)])
    return session, plane.run(run)


def ordered(plane: Plane) -> list[str]:
    (order,) = plane.fleet.orders("local")
    return [each.id for each in order.inspections]


def told(plane: Plane, run, after: int) -> list[str]:
    return [f"{each.kind}: {each.message}" for each in plane.store.events(run.id, after=after)]


async def test_a_question_is_ordered_until_it_is_answered_also_by_the_next_server():
    plane = Plane()
    session, run = await running(plane)
    inspection, after = plane.commands.inspect("default", "digits", STACKS, by="ada")
    assert inspection.ranks == (1,)
    assert ordered(plane) == ["q-1"]
    assert ordered(Plane(plane.store, plane.clock)) == ["q-1"]
    await session.observe([observation(run, seen.Inspected("q-1", 1, True, "its stacks"), seq=3)])
    assert ordered(plane) == []
    assert told(plane, run, after) == ["inspecting: ada asks for the stacks of rank 1", "inspected: its stacks"]


async def test_a_call_that_is_repeated_asks_once_and_is_shown_the_answers_of_before():
    plane = Plane()
    session, run = await running(plane)
    plane.commands.inspect("default", run.id, STACKS, by="ada")
    await session.observe([observation(run, seen.Inspected("q-1", 1, True, "its stacks"), seq=3)])
    inspection, after = plane.commands.inspect("default", run.id, STACKS, by="ada")
    assert (inspection.ranks, after) == ((), 0)
    assert ordered(plane) == []


@pytest.mark.parametrize("restarted", [False, True])
async def test_what_no_agent_answers_in_time_is_told(restarted):
    plane = Plane()
    _, run = await running(plane)
    _, after = plane.commands.inspect("default", run.id, STACKS, by="ada")
    plane.clock.forward(20.0 + GRACE_S - 1)
    if restarted:
        plane = Plane(plane.store, plane.clock)
    plane.loop.one_pass()
    assert len(told(plane, run, after)) == 1
    plane.clock.forward(1.5)
    plane.loop.one_pass()
    assert told(plane, run, after)[1].startswith("inspected: no answer of rank 1: its time is over")
    plane.loop.one_pass()
    assert len(told(plane, run, after)) == 2
    assert plane.run(run).inspections == ()


async def test_what_cannot_be_looked_at_leaves_no_trace():
    plane = Plane()
    _, run = await running(plane)
    with pytest.raises(Refused, match="there is no rank 7: digits has ranks 0 to 1"):
        plane.commands.inspect("default", run.id, Question("q", "stacks", (7,)), by="ada")
    with pytest.raises(NotFound):
        plane.commands.inspect("default", "no-such-run", STACKS, by="ada")
    assert plane.run(run).inspections == ()
