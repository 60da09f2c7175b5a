"""What the server does for the drivers of sweeps: start each trial once, refuse the late, end what was left."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.control.sweeps import StartTrial, Sweeps
from orchestrator.core import lifecycle
from orchestrator.core.money import Prices
from orchestrator.core.observations import CheckpointSealed, EpochEnded, FirstStep
from orchestrator.core.runs import Budgets, ReasonCode, Run
from orchestrator.core.scheduling.admission import BLOCK_AFTER_S, GONE_AFTER_S, NEVER_FITS_GRACE_S
from orchestrator.core.sweeps import TrialState
from orchestrator.errors import Conflict, NotFound, Refused
from tests.builders import attempt_ended, node
from tests.unit.control.plane import NODES, Plane, observation

SPACE = {"train.lr": {"log": [1e-4, 1e-1]}, "train.global_batch": {"choice": [128, 4096]}}
WIDE = 2048  # channels: some 6 GiB for each of two workers
SEARCH: dict[str, Any] = {"metric": "val_accuracy", "mode": "max", "space": SPACE, "trials": 4}


class Searching:
    """A plane with an attached cluster and one sweep that has been placed."""

    def __init__(self, plane: Plane, sweep: Run) -> None:
        self.plane, self.run = plane, sweep
        self.sweeps = Sweeps(plane.fleet, plane.commands)

    def start(self, number: int, lr: float = 0.01, **changes: Any) -> Run:
        point = {"train.lr": lr, "train.global_batch": 128}
        wish = StartTrial(self.run.id, 1, number, 0, point, "driver")
        return self.sweeps.start_trial("default", replace(wish, **changes))


@pytest.fixture
async def searching() -> Searching:
    plane = Plane(prices=Prices(cpu_hour=3600.0))
    await plane.attach()
    sweep = plane.submit("searched", search=SEARCH, priority=70, queue="nightly")
    plane.loop.one_pass()
    return Searching(plane, plane.run(sweep))


async def test_a_sweep_is_placed_without_taking_anything(searching: Searching) -> None:
    assert searching.run.kind == "sweep"
    assert searching.run.state.kind == "STARTING"
    assert searching.sweeps.get("default", "searched").room == 2, "4 CPUs hold two gangs of two"


async def test_a_trial_is_a_run_of_the_sweeps_queue_and_priority_and_the_same_trial_is_the_same_run(
    searching: Searching,
) -> None:
    trial = searching.start(0)
    assert (trial.kind, trial.queue, trial.priority) == ("trial", "nightly", 70)
    assert trial.lineage is not None
    assert (trial.lineage.sweep, trial.lineage.trial) == (searching.run.id, 0)
    assert trial.spec["train"]["lr"] == 0.01
    assert searching.start(0).id == trial.id
    with pytest.raises(Conflict):
        searching.start(0, lr=0.02)


async def test_a_point_that_the_planner_refuses_is_kept_as_a_failed_run(searching: Searching) -> None:
    trial = searching.start(0, point={"train.lr": 0.01, "train.global_batch": 4096})
    assert trial.state.kind == "FAILED"
    (found,) = searching.sweeps.get("default", searching.run.id).trials
    assert found.state is TrialState.INFEASIBLE
    assert "train.global_batch" in found.reason
    assert (trial.name, trial.spec["train"]["global_batch"]) == ("searched-trial-0", 4096)
    assert searching.plane.board.trials() == {}


async def test_a_trial_that_is_proposed_while_its_node_is_away_waits_for_it(searching: Searching) -> None:
    plane = searching.plane
    session = await plane.attach((node("b", cpu=1),), epoch=2)
    trial = searching.start(0)
    for _ in range(2):
        plane.loop.one_pass()
        plane.clock.forward(2 * NEVER_FITS_GRACE_S)
    assert plane.run(trial).state.reason.code == ReasonCode.WAITING_FOR_NODE
    assert "only with a (away for 0 min)" in plane.run(trial).state.reason.message
    assert "room for 1 such workers" in plane.run(trial).state.reason.message
    await session.inventory(NODES)
    plane.loop.one_pass()
    assert plane.run(trial).state.kind == "STARTING"


async def test_a_point_that_asks_for_more_than_there_is_has_failed_at_once(searching: Searching) -> None:
    trial = searching.start(0, point={"train.lr": 0.01, "resources.cpu": 64})
    assert trial.state.kind == "FAILED"
    assert "can never be placed" in trial.state.reason.message


async def test_trials_that_wait_for_one_another_are_not_what_waits_for_a_place(searching: Searching) -> None:
    plane = searching.plane
    sweep = plane.submit("narrow", search={**SEARCH, "max_concurrent": 1})
    plane.loop.one_pass()
    narrow = Searching(plane, plane.run(sweep))
    for number in range(3):
        narrow.start(number)
    plane.submit("big", resources={"workers": 4})
    plane.loop.one_pass()
    plane.clock.forward(BLOCK_AFTER_S + 1)
    plane.submit("late", resources={"workers": 4})
    for board in (plane.board, Plane(plane.store, plane.clock).board):
        view = board.queue_view()
        assert view.reasons[ReasonCode.WAITING_SLOT] == 2
        assert view.depth == 2
    assert plane.board.queue_view().overdue == 1
    plane.commands.cancel("default", "big", by="ada")
    assert (plane.board.queue_view().overdue, plane.board.queue_view().longest_s) == (0, 0.0)


async def test_a_trial_that_goes_on_from_a_checkpoint_is_a_further_run_and_the_one_before_it_ends(
    searching: Searching,
) -> None:
    plane, first, other = searching.plane, searching.start(0), searching.start(1)
    plane.loop.one_pass()
    seal = f"/runs/default/{other.id}/checkpoints/attempt-0001/incarnation-0001/step-000000000010"
    second = searching.start(0, 0.02, generation=1, start=seal, reason="pbt: trial 1 is better")
    assert second.spec["init_from"] == {**second.spec["init_from"], "checkpoint": seal, "resume": True}
    before = plane.run(first)
    assert before.stop is not None
    assert "trial 1 is better" in before.stop.message
    assert plane.run(other).stop is None
    assert searching.start(0, 0.02, generation=1, start=seal).id == second.id
    zero, _ = searching.sweeps.get("default", searching.run.id).trials
    assert (zero.run_id, zero.generation, zero.state) == (second.id, 1, TrialState.WAITING)
    told = [(each.start, each.point["train.lr"], each.parent) for each in zero.stages]
    assert told == [("", 0.01, None), (seal, 0.02, 1)]


async def test_a_sweep_that_is_cancelled_while_a_trial_changes_leaves_neither_of_its_runs(searching: Searching) -> None:
    plane, first = searching.plane, searching.start(0)
    second = searching.start(0, 0.02, generation=1, start="/runs/o/attempt-0001/incarnation-0001/step-000000000010")
    plane.commands.cancel("default", searching.run.id, by="ada")
    with pytest.raises(Refused):
        searching.start(0, 0.03, generation=2)
    plane.records.change("default", searching.run.id, lambda run: lifecycle.abandon(run, run.state.reason, 2000.0))
    searching.sweeps.end_orphans()
    assert [plane.run(each).state.kind for each in (first, second)] == ["CANCELLED", "CANCELLED"]


async def test_a_driver_that_is_late_is_refused(searching: Searching) -> None:
    with pytest.raises(Refused, match="attempt 2"):
        searching.start(0, attempt=2)
    searching.sweeps.stop("default", "searched", by="ada", message="enough")
    with pytest.raises(Refused, match="stopped by ada: enough"):
        searching.start(0)
    with pytest.raises(NotFound, match="not a sweep"):
        searching.start(0, sweep=searching.plane.submit("plain").id)


async def test_what_lives_of_a_sweep_that_has_ended_is_cancelled(searching: Searching) -> None:
    trial = searching.start(0)
    assert searching.sweeps.end_orphans() == 0
    searching.plane.records.change(
        "default", searching.run.id, lambda run: lifecycle.abandon(run, run.state.reason, 2000.0)
    )
    assert searching.sweeps.end_orphans() == 1
    assert searching.plane.run(trial).state.kind == "CANCELLED"
    assert searching.sweeps.end_orphans() == 0


async def test_a_sweep_is_seen_as_its_trials_report(searching: Searching) -> None:
    plane, trial = searching.plane, searching.start(0)
    plane.loop.one_pass()
    session = await plane.attach(epoch=2)
    told = [FirstStep(1, 1), EpochEnded(1, 0, 10, {"val_accuracy": 0.5}), EpochEnded(1, 1, 20, {"val_accuracy": 0.7})]
    told_seal = CheckpointSealed(1, "/seal", 20, 10, 0.1, 0.1, best=True)
    await session.observe([observation(trial, what, seq=seq) for seq, what in enumerate([*told, told_seal], 1)])
    (found,) = searching.sweeps.get("default", searching.run.id).trials
    assert (found.curve, found.checkpoint) == (((1, 0.5), (2, 0.7)), "/seal")
    assert found.state is TrialState.RUNNING
    assert found.start_s == pytest.approx(0.0, abs=0.01)
    plane.clock.forward(10)
    await session.observe([observation(trial, attempt_ended("succeeded"), seq=9)])
    sweep = searching.sweeps.get("default", searching.run.id)
    assert sweep.trials[0].state is TrialState.COMPLETED
    assert sweep.cost == pytest.approx(2 * 10, rel=0.01), "two workers of one CPU each, a second of which costs 1"
    assert plane.store.models("default") == [], "a trial registers nothing: the sweep does"


async def test_a_sweeps_own_end_registers_its_best_with_what_that_trial_left_for_a_version(
    searching: Searching,
) -> None:
    plane, trial, stranger = searching.plane, searching.start(3), searching.plane.submit("stranger")
    plane.loop.one_pass()
    session = await plane.attach(epoch=2)
    await session.observe([observation(trial, attempt_ended("succeeded", facts={"profile": {"rows": 9}}), seq=1)])
    found = {"trial": 3, "run": trial.id}
    await session.observe([observation(searching.run, attempt_ended("succeeded", facts={"sweep": found}))])
    (version,) = plane.store.models("default", "searched")
    assert (version.run_id, version.checkpoint) == (searching.run.id, "/seals/step-10")
    assert plane.store.facts("default", "searched", 1) == {"sweep": found, "profile": {"rows": 9}}
    plain = attempt_ended("succeeded", facts={"sweep": {"run": trial.id}})
    await session.observe([observation(stranger, plain)])
    assert plane.store.facts("default", "stranger", 1) == {"sweep": {"run": trial.id}}


async def test_to_start_warm_takes_a_sweep_that_is_there_and_keeps_its_id(searching: Searching) -> None:
    later = searching.plane.submit("searched", search={**SEARCH, "warm_start": "searched"})
    assert later.spec["search"]["warm_start"] == searching.run.id
    with pytest.raises(NotFound, match="warm_start"):
        searching.plane.submit("other", search={**SEARCH, "warm_start": "nobody"})
    searching.plane.submit("plain")
    with pytest.raises(Refused, match="not a sweep"):
        searching.plane.submit("other", search={**SEARCH, "warm_start": "plain"})


async def test_the_trial_that_waits_for_a_slot_is_told_ahead_and_placed_where_its_gang_got_ready() -> None:
    plane = Plane()
    await plane.attach((node("a", cpu=8),))
    sweep = plane.submit("narrow", search={**SEARCH, "max_concurrent": 1})
    plane.loop.one_pass()
    searching = Searching(plane, plane.run(sweep))
    trials = []
    for number in range(3):
        plane.clock.forward(1.0)
        trials.append(searching.start(number))
    first, second, third = trials
    plane.loop.one_pass()
    orders = {order.run_id: order for order in plane.fleet.orders("local")}
    assert (orders[first.id].ahead, orders[second.id].ahead, third.id in orders) == (False, True, False)
    plane.commands.cancel("default", first.id, by="ada")
    plane.fleet.records.change(
        "default",
        first.id,
        lambda run: lifecycle.observe(
            run, observation(first, attempt_ended("cancelled")), budgets=Budgets(), now=plane.clock.now()
        ),
    )
    plane.loop.one_pass()
    placed = {order.run_id: order for order in plane.fleet.orders("local")}
    assert placed[second.id] == replace(orders[second.id], ahead=False)
    assert placed[third.id].ahead
    plane.commands.cancel("default", third.id, by="ada")
    assert third.id not in {order.run_id for order in plane.fleet.orders("local")}


async def test_a_trial_seals_and_waits_while_a_run_of_higher_priority_has_its_place(searching: Searching) -> None:
    plane, trials = searching.plane, [searching.start(number) for number in range(2)]
    plane.loop.one_pass()
    urgent = plane.submit("urgent", priority=90)
    for _ in range(2):
        plane.loop.one_pass()
    stopping = [each for each in map(plane.run, trials) if each.stop is not None]
    assert [(each.stop.kind, each.stop.message) for each in stopping if each.stop is not None] == [
        ("preempt", "makes room for urgent, whose priority is higher")
    ]
    plane.records.change(
        "default",
        stopping[0].id,
        lambda run: lifecycle.observe(
            run, observation(run, attempt_ended("preempted")), budgets=Budgets(), now=plane.clock.now()
        ),
    )
    plane.loop.one_pass()
    assert plane.run(urgent).state.kind == "STARTING"
    assert plane.run(stopping[0]).state.kind == "QUEUED"
    plane.loop.one_pass()
    assert [plane.run(each).stop for each in trials].count(None) == 2, "the other one goes on"


async def test_a_point_that_only_a_node_has_memory_for_that_is_away_waits_for_it() -> None:
    plane = Plane()
    small, big = node("a", memory=2**31), node("b", memory=2**37)
    session = await plane.attach((small, big))
    width = {"model.width": {"choice": [8, WIDE, 10 * WIDE]}}
    sweep = plane.submit("wide", search={**SEARCH, "space": width})
    plane.loop.one_pass()
    searching = Searching(plane, plane.run(sweep))
    await session.inventory((small,))
    wide = searching.start(0, point={"model.width": WIDE})
    plane.loop.one_pass()
    assert plane.run(wide).state.kind == "QUEUED", plane.run(wide).state.reason.message
    waits = plane.board.reason(wide.id)
    assert waits is not None
    assert waits.code is ReasonCode.WAITING_FOR_NODE
    await session.inventory((small, node("c", memory=2**37, host="b")))
    plane.loop.one_pass()
    (share,) = plane.run(wide).attempts[-1].shares
    assert share.node_id == "node-c"
    assert searching.start(1, point={"model.width": 10 * WIDE}).state.kind == "FAILED", "that no node ever had"


async def test_a_point_whose_node_is_gone_for_good_is_infeasible_and_the_sweep_goes_on() -> None:
    plane = Plane()
    small, big = node("a", memory=2**31), node("b", memory=2**37)
    session = await plane.attach((small, big))
    sweep = plane.submit("wide", search={**SEARCH, "space": {"model.width": {"choice": [8, WIDE]}}})
    plane.loop.one_pass()
    searching = Searching(plane, plane.run(sweep))
    await session.inventory((small,))
    wide = searching.start(0, point={"model.width": WIDE})
    plane.loop.one_pass()
    plane.clock.forward(GONE_AFTER_S - 1)
    plane.loop.one_pass()
    assert plane.run(wide).state.kind == "QUEUED"
    plane.clock.forward(1)
    plane.loop.one_pass()
    (trial,) = searching.sweeps.get("default", sweep.id).trials
    assert trial.state is TrialState.INFEASIBLE
    assert "b (away for 15 min) has not come back" in trial.reason
    assert plane.run(sweep).stop is None
    narrow = searching.start(1, point={"model.width": 8})
    plane.loop.one_pass()
    assert plane.run(narrow).state.kind == "STARTING"


async def test_a_sweep_whose_every_trial_needs_a_node_that_is_gone_for_good_ends_and_says_so() -> None:
    plane = Plane()
    small, big = node("a", cpu=1), node("b", cpu=4)
    session = await plane.attach((small, big))
    sweep = plane.submit("big", search=SEARCH)
    sizes = plane.submit("sizes", search={**SEARCH, "space": {**SPACE, "resources.workers": {"choice": [1, 2]}}})
    plane.loop.one_pass()
    searching, other = (Searching(plane, plane.run(each)) for each in (sweep, sizes))
    for each in (searching, other):
        each.start(0)
    plane.loop.one_pass()
    await session.inventory((small,))
    lost = [each.id for each in plane.store.trials(sweep.id) + plane.store.trials(sizes.id)]
    for run_id in lost:
        plane.records.change(
            "default",
            run_id,
            lambda run: lifecycle.observe(
                run, observation(run, attempt_ended("lost")), budgets=Budgets(infrastructure=9), now=plane.clock.now()
            ),
        )
    plane.clock.forward(GONE_AFTER_S)
    plane.loop.one_pass()
    assert {plane.store.run("default", each).state.kind for each in lost} == {"FAILED"}
    stop = plane.run(sweep).stop
    assert stop is not None
    assert stop.kind == "finish"
    assert "big-trial-0 and every trial like it: no node that is there can ever hold it" in stop.message
    assert plane.run(sizes).stop is None, "others of its trials may ask for less"
