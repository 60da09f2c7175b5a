import asyncio
import json
from dataclasses import replace

import pytest

from orchestrator.control.commands import SubmitCommand
from orchestrator.core import observations as seen
from orchestrator.core.ledger import Ledger, TimeClass
from orchestrator.core.observations import Progress
from orchestrator.core.records import RunFilter
from orchestrator.core.runs import ReasonCode
from orchestrator.core.scheduling.demand import Workers
from orchestrator.errors import Conflict, InvalidSpec, NotFound, Refused
from orchestrator.ports import Change
from tests.builders import attempt_ended, node
from tests.unit.control.plane import Plane, document, observation

TRAINING = (seen.IncarnationStarted(1, 2), seen.FirstStep(1, 1))


async def running(plane: Plane):
    session = await plane.attach()
    run = plane.submit()
    plane.loop.one_pass()
    await session.observe([observation(run, what, seq=n) for n, what in enumerate(TRAINING, 1)])
    return session, plane.run(run)


async def test_a_submission_is_placed_ordered_run_and_done():
    plane = Plane()
    session = await plane.attach()
    run = plane.submit()
    plane.loop.one_pass()
    (order,) = plane.fleet.orders("local")
    assert (order.run_id, order.attempt, order.shares[0].ranks) == (run.id, 1, 2)
    assert order.checkpoint_root == f"/storage/default/{run.id}/checkpoints"
    await session.observe([observation(run, what, seq=n) for n, what in enumerate(TRAINING, 1)])
    assert plane.run(run).state.kind == "RUNNING"
    await session.observe([observation(run, attempt_ended("succeeded"), seq=3)])
    assert plane.run(run).state.kind == "SUCCEEDED"
    assert plane.fleet.orders("local") == ()
    assert [each.version for each in plane.store.models("default")] == [1]


async def test_the_event_log_explains_every_state_it_went_through():
    plane = Plane()
    session, run = await running(plane)
    await session.observe([observation(run, attempt_ended("succeeded"), seq=3)])
    told = [each.data["state"] for each in plane.store.events(run.id) if "state" in each.data]
    assert told == ["STARTING", "RUNNING", "SUCCEEDED"]


async def test_a_second_run_waits_for_what_the_first_holds_and_says_so():
    plane = Plane()
    await plane.attach((node("a", cpu=3),))
    first, second = plane.submit("first"), plane.submit("second")
    plane.loop.one_pass()
    assert plane.run(first).state.kind == "STARTING"
    waiting = plane.run(second).state
    assert waiting.reason.code == ReasonCode.WAITING_FOR_CAPACITY
    plane.loop.one_pass()
    assert "held by first" in plane.board.reason(second.id).message


async def test_a_cluster_that_grows_is_asked_for_what_trains_there_and_for_what_waits_for_room():
    plane = Plane()
    session = await plane.attach((node("a", cpu=3),), autoscaling=True)
    plane.submit("first")
    plane.submit("large", resources={"workers": 8, "cpu": 2})
    plane.loop.one_pass()
    assert await anext(session.demand()) == (Workers(1, 0, 0, None, 2), Workers(2, 0, 0, None, 8))


async def test_a_waiting_run_starts_when_the_one_before_it_has_ended():
    plane = Plane()
    session = await plane.attach((node("a", cpu=3),))
    first, second = plane.submit("first"), plane.submit("second")
    plane.loop.one_pass()
    await session.observe([observation(first, attempt_ended("failed"), seq=1)])
    plane.loop.one_pass()
    assert plane.run(second).state.kind == "STARTING"


async def test_waiting_for_the_same_reason_writes_no_more_events():
    plane = Plane()
    run = plane.submit()
    for _ in range(5):
        plane.loop.one_pass()
    assert [each.kind for each in plane.store.events(run.id)] == ["submitted", "waiting"]


async def test_a_new_server_over_the_same_store_goes_on_where_the_old_one_stopped():
    old = Plane()
    _, run = await running(old)
    queued = old.submit("later", resources={"workers": 4})
    new = Plane(store=old.store, clock=old.clock)
    session = await new.attach(epoch=2)
    assert [each.run_id for each in new.fleet.orders("local")] == [run.id]
    assert [each.run_id for each in new.board.queue(10)] == [queued.id]
    await session.observe([observation(run, attempt_ended("succeeded"), seq=3)])
    assert new.run(run).state.kind == "SUCCEEDED"


async def test_a_gang_that_no_connected_cluster_can_take_is_refused_at_submit_with_the_reason():
    plane = Plane()
    await plane.attach()
    with pytest.raises(Refused, match=r"resources: this gang can never be placed.*room for 4 such workers"):
        plane.submit(resources={"workers": 8})
    assert plane.store.unfinished() == []


async def test_a_batch_with_one_wrong_run_file_records_none():
    plane = Plane()
    with pytest.raises(InvalidSpec):
        plane.submit(nonsense=1)
    assert plane.store.unfinished() == []


async def test_one_idempotency_key_makes_one_run_and_another_document_is_a_conflict():
    plane = Plane()
    first, again = plane.submit(key="k"), plane.submit(key="k")
    assert first.id == again.id
    assert plane.board.queued() == 1
    with pytest.raises(Conflict):
        plane.submit("other", key="k")


async def test_a_repeated_submission_is_answered_even_when_the_cluster_has_shrunk_since():
    plane = Plane()
    session = await plane.attach()
    first = plane.submit(key="k", resources={"workers": 4})
    await session.inventory((node("a", cpu=1),))
    assert plane.submit(key="k", resources={"workers": 4}).id == first.id
    with pytest.raises(Refused):
        plane.submit(key="other", resources={"workers": 4})


async def test_a_late_announcement_does_not_bring_an_ended_run_back():
    plane = Plane()
    session, run = await running(plane)
    living = plane.run(run)
    await session.observe([observation(run, attempt_ended("succeeded"), seq=3)])
    plane.board.update(living)
    assert plane.board.holdings() == []
    assert plane.fleet.orders("local") == ()


async def test_a_long_queue_of_one_project_does_not_hide_another_projects():
    plane = Plane()
    for n in range(5):
        plane.submit(f"many-{n}")
    other = plane.commands.submit([SubmitCommand("vision", json.dumps(document("single")), "bob")])[0].run
    assert other.id in {each.run_id for each in plane.board.queue(2)}


async def test_a_wall_clock_that_jumps_does_not_shorten_the_wait_for_a_lost_attempts_ranks():
    plane = Plane()
    session, run = await running(plane)
    await session.observe([observation(run, attempt_ended("lost", fence_s=20.0), seq=3)])
    plane.clock.wall += 3600
    plane.loop.one_pass()
    assert plane.run(run).state.kind == "QUEUED"
    plane.clock.forward(21)
    plane.loop.one_pass()
    assert plane.run(run).state.kind == "STARTING"


JUMPS = pytest.mark.parametrize("jump_s", [-900.0, 3600.0])


@JUMPS
async def test_a_wall_clock_that_is_moved_neither_rejects_a_fresh_run_nor_spares_an_old_one(jump_s: float):
    plane = Plane()
    run = plane.submit(resources={"workers": 8})
    await plane.attach()
    plane.clock.wall += jump_s
    plane.clock.forward(1)
    plane.loop.one_pass()
    assert plane.run(run).state.kind == "QUEUED"
    plane.clock.forward(30)
    plane.loop.one_pass()
    assert plane.run(run).state.reason.code == ReasonCode.NEVER_FITS


@JUMPS
async def test_a_wall_clock_that_is_moved_does_not_change_when_a_big_run_blocks_the_small_ones(jump_s: float):
    plane = Plane()
    await plane.attach((node("a", cpu=4, free_cpu=3),))
    big = plane.submit("big", resources={"workers": 4})
    plane.clock.wall += jump_s
    first = plane.submit("first", resources={"workers": 1}, priority=40)
    plane.loop.one_pass()
    assert [plane.run(each).state.kind for each in (big, first)] == ["QUEUED", "STARTING"]
    plane.clock.forward(300)
    second = plane.submit("second", resources={"workers": 1}, priority=40)
    plane.loop.one_pass()
    assert "makes room for big" in plane.board.reason(second.id).message


async def test_after_a_restart_nobody_is_rejected_before_the_agents_had_time_to_come_back():
    old = Plane()
    run = old.submit(resources={"workers": 8})
    old.clock.forward(3600)
    new = Plane(store=old.store, clock=old.clock)
    await new.attach()
    new.loop.one_pass()
    assert new.run(run).state.kind == "QUEUED"


async def test_a_run_lives_through_a_clock_that_is_moved_backwards():
    plane = Plane()
    session, run = await running(plane)
    for seq, what in enumerate((attempt_ended("lost"), *TRAINING, attempt_ended("succeeded")), 3):
        plane.clock.wall -= 200
        plane.clock.forward(10)
        plane.loop.one_pass()
        await session.observe([observation(run, what, seq=seq, attempt=1 if seq == 3 else 2)])
    assert plane.run(run).state.kind == "SUCCEEDED"
    assert len(plane.run(run).attempts) == 2
    assert [each.seq for each in plane.store.events(run.id)] == list(range(1, len(plane.store.events(run.id)) + 1))


async def test_a_stored_run_that_this_version_cannot_read_fails_with_the_reason_and_the_server_starts():
    old = Plane()
    run = old.submit()
    spoilt = replace(old.run(run), spec={"name": "digits", "recipe": "gone"})
    assert old.store.apply([Change(spoilt)])[0] is not None
    new = Plane(store=old.store, clock=old.clock)
    ended = new.run(run)
    assert ended.state.kind == "FAILED"
    assert "cannot read the run file" in ended.state.reason.message
    assert new.board.queued() == 0


async def test_a_secret_that_is_not_there_is_named_at_submit():
    plane = Plane()
    with pytest.raises(Refused, match="HF_TOKEN not known in project default: `evertrain secret put HF_TOKEN`"):
        plane.submit(secrets=["HF_TOKEN"])
    plane.store.put_secret("default", "HF_TOKEN", "hunter2")
    run = plane.submit(secrets=["HF_TOKEN"])
    await plane.attach()
    plane.loop.one_pass()
    assert plane.fleet.orders("local")[0].secrets == {"HF_TOKEN": "hunter2"}
    assert "hunter2" not in str(plane.store.events(run.id))


async def test_a_run_whose_secret_was_deleted_before_it_was_placed_ends_and_names_it():
    plane = Plane()
    plane.store.put_secret("default", "HF_TOKEN", "hunter2")
    run = plane.submit(secrets=["HF_TOKEN"])
    await plane.attach()
    plane.store.delete_secret("default", "HF_TOKEN")
    plane.loop.one_pass()
    assert plane.fleet.orders("local") == ()
    ended = plane.run(run).state
    assert (ended.kind, ended.reason.code) == ("FAILED", ReasonCode.NOT_RETRIABLE)
    assert "secret HF_TOKEN is gone: " in ended.reason.message
    assert plane.board.holdings() == []


async def test_a_gang_that_was_placed_with_a_secret_goes_on_when_it_is_deleted():
    plane = Plane()
    plane.store.put_secret("default", "HF_TOKEN", "hunter2")
    session = await plane.attach()
    run = plane.submit(secrets=["HF_TOKEN"])
    plane.loop.one_pass()
    await session.observe([observation(run, what, seq=n) for n, what in enumerate(TRAINING, 1)])
    plane.store.delete_secret("default", "HF_TOKEN")
    assert [each.run_id for each in plane.fleet.orders("local")] == [run.id]
    assert plane.run(run).state.kind == "RUNNING"


async def test_a_second_attempt_is_told_that_the_first_has_sealed_something():
    plane = Plane()
    session, run = await running(plane)
    sealed = seen.CheckpointSealed(1, "/storage/seal", 10, 100, 0.1, 0.1)
    await session.observe([observation(run, sealed, seq=3), observation(run, attempt_ended("lost"), seq=4)])
    plane.loop.one_pass()
    (order,) = plane.fleet.orders("local")
    assert (order.attempt, order.sealed_before) == (2, True)


async def test_a_cost_limit_that_nothing_could_hold_is_refused_at_submit():
    with pytest.raises(Refused, match="max_cost: "):
        Plane().submit(max_cost="20 USD")


async def test_a_bundle_that_is_not_there_is_refused():
    plane = Plane()
    with pytest.raises(NotFound):
        plane.submit(recipe=None, script="train.py", data={}, train={}, code="bundle:" + "0" * 64)


async def test_cancel_reaches_the_cluster_as_an_order_to_stop():
    plane = Plane()
    session, run = await running(plane)
    plane.commands.cancel("default", run.name, by="ada", message="typo")
    (order,) = plane.fleet.orders("local")
    assert order.stop.kind == "cancel"
    await session.observe([observation(run, attempt_ended("cancelled"), seq=3)])
    assert plane.run(run).state.kind == "CANCELLED"


async def test_a_paused_run_waits_for_nobody_stands_in_nobodys_way_and_starts_again_when_resumed():
    plane = Plane()
    session = await plane.attach()
    first, second = plane.submit("first", resources={"workers": 4}), plane.submit("second", resources={"workers": 4})
    plane.loop.one_pass()
    plane.commands.pause("default", first.id, by="ada", message="look at the data")
    (order,) = plane.fleet.orders("local")
    assert order.stop is not None
    assert order.stop.kind == "preempt"
    await session.observe([observation(first, attempt_ended("preempted"))])
    plane.clock.forward(1000.0)
    plane.loop.one_pass()
    assert plane.run(second).state.kind == "STARTING"
    assert plane.run(first).state.reason.message == "paused by ada: look at the data"
    assert plane.board.queue_view().longest_s == 0.0
    await session.observe([observation(second, attempt_ended("succeeded"))])
    plane.loop.one_pass()
    assert plane.run(first).state.kind == "QUEUED"
    plane.commands.resume("default", first.id, by="ada")
    plane.loop.one_pass()
    assert plane.run(first).state.kind == "STARTING"


async def test_a_run_stays_paused_over_a_restart_of_the_server():
    plane = Plane()
    run = plane.submit()
    plane.commands.pause("default", run.id, by="ada")
    again = Plane(plane.store, plane.clock)
    await again.attach()
    again.loop.one_pass()
    assert again.run(run).state.reason.code == ReasonCode.PAUSED
    again.commands.resume("default", run.id, by="ada")
    again.loop.one_pass()
    assert again.run(run).state.kind == "STARTING"


async def test_the_queue_at_a_glance():
    plane = Plane()
    await plane.attach()
    for name in ("holder", "first", "second"):
        plane.submit(name, resources={"workers": 4})
    plane.loop.one_pass()
    assert plane.board.queue_view().reasons == {ReasonCode.WAITING_FOR_CAPACITY: 2}
    plane.clock.forward(299.0)
    assert (plane.board.queue_view().overdue, plane.board.queue_view().longest_s) == (0, pytest.approx(299.0, abs=0.1))
    plane.clock.forward(2.0)
    assert plane.board.queue_view().overdue == 2


async def test_draining_places_nothing_more_and_evicting_sends_the_running_back_to_the_queue():
    plane = Plane()
    session, run = await running(plane)
    plane.commands.drain("local", evict=True, undo=False, by="ops")
    assert plane.fleet.orders("local")[0].stop.kind == "preempt"
    await session.observe([observation(run, attempt_ended("preempted"), seq=3)])
    plane.loop.one_pass()
    assert plane.run(run).state.kind == "QUEUED"
    assert "draining" in plane.board.reason(run.id).message
    plane.commands.drain("local", evict=False, undo=True, by="ops")
    plane.loop.one_pass()
    assert plane.run(run).state.kind == "STARTING"


async def test_an_inventory_does_not_undo_a_drain():
    plane = Plane()
    session = await plane.attach()
    plane.commands.drain("local", evict=False, undo=False, by="ops")
    await session.inventory((node("a"),))
    assert plane.store.clusters()[0].draining


async def test_draining_an_unknown_cluster_names_those_that_exist():
    plane = Plane()
    await plane.attach()
    with pytest.raises(NotFound, match="known: local"):
        plane.commands.drain("loca", evict=False, undo=False, by="ops")


async def test_of_two_agents_the_newer_wins_and_an_older_one_is_refused():
    plane = Plane()
    old = await plane.attach(epoch=1)
    await plane.attach(epoch=2)
    assert old.superseded is not None
    assert old.superseded.epoch == 2
    assert [each async for each in old.desired()] == []
    with pytest.raises(Refused, match="newer agent"):
        await plane.attach(epoch=1)
    await old.close()
    assert plane.fleet.connected("local")


async def test_an_agent_that_is_away_makes_liveness_unknown_and_fails_nothing():
    plane = Plane()
    session, run = await running(plane)
    session.progress(Progress(run.id, 1, 1, "training", 1000.0, step=5))
    assert plane.fleet.liveness(run) == "alive"
    await session.close()
    plane.clock.forward(3600)
    plane.loop.one_pass()
    assert plane.run(run).state.kind == "RUNNING"
    assert plane.fleet.liveness(run) == "unknown"


async def test_desired_state_comes_at_once_and_again_when_it_changes():
    plane = Plane()
    session = await plane.attach()
    states = session.desired()
    assert await anext(states) == ()
    following = asyncio.ensure_future(anext(states))
    run = plane.submit()
    plane.loop.one_pass()
    assert [each.run_id for each in await asyncio.wait_for(following, 10)] == [run.id]


@pytest.mark.parametrize(
    ("outcome", "told_ns", "booked_ns"),
    [("lost", 0, 70), ("lost", 90, 90), ("failed", 0, 0)],  # who saw the end tells its own account
)
async def test_a_lost_attempt_whose_agent_knows_no_account_of_it_is_booked_as_last_heard(outcome, told_ns, booked_ns):
    plane = Plane()
    session, run = await running(plane)
    session.progress(Progress(run.id, 1, 1, "training", 1000.0, ledger=Ledger({TimeClass.TRAINING: 70})))
    told = Ledger({TimeClass.TRAINING: told_ns} if told_ns else {})
    await session.observe([observation(run, attempt_ended(outcome, ledger=told))])
    assert plane.run(run).attempts[0].ledger.total_ns == booked_ns


async def test_progress_of_an_ended_run_is_not_kept():
    plane = Plane()
    session, run = await running(plane)
    session.progress(Progress(run.id, 1, 1, "training", 1000.0, step=5))
    await session.observe([observation(run, attempt_ended("succeeded"), seq=3)])
    assert plane.fleet.progress(run.id) is None


async def test_a_late_word_of_progress_is_not_kept():
    plane = Plane()
    session, run = await running(plane)
    late = Progress(run.id, 1, 1, "training", 1000.0, step=5)
    session.progress(late)
    session.progress(replace(late, attempt=2, step=6))
    assert plane.fleet.progress(run.id) == late
    await session.observe([observation(run, attempt_ended("succeeded"), seq=3)])
    session.progress(late)
    assert plane.fleet.progress(run.id) is None


async def test_progress_of_a_run_that_was_cancelled_in_the_queue_is_not_kept():
    plane = Plane()
    session, run = await running(plane)
    session.progress(Progress(run.id, 1, 1, "training", 1000.0, step=5))
    await session.observe([observation(run, attempt_ended("lost"), seq=3)])
    assert plane.run(run).state.kind == "QUEUED"
    plane.commands.cancel("default", run.id, by="ada")
    assert plane.fleet.progress(run.id) is None


async def test_a_word_about_a_run_that_nobody_knows_is_done_with():
    plane = Plane()
    session, run = await running(plane)
    stranger = seen.Observation("run-zzzzzzzzzz", 1, 1, 1000.0, attempt_ended("failed"))
    await session.observe([stranger, observation(run, attempt_ended("succeeded"), seq=3)])
    assert plane.run(run).state.kind == "SUCCEEDED"


async def test_a_run_far_back_in_the_queue_knows_its_place():
    plane = Plane()
    runs = [plane.submit(f"run-{n}") for n in range(3)]
    assert plane.board.reason(runs[2].id).message == "place 3 in the queue"


async def test_a_registered_model_is_begun_with_by_version_or_alias():
    plane = Plane()
    session = await plane.attach()
    parent = plane.submit("parent")
    plane.loop.one_pass()
    await session.observe([observation(parent, what, seq=n) for n, what in enumerate(TRAINING, 1)])
    await session.observe([observation(parent, attempt_ended("succeeded"), seq=3)])
    (version,) = plane.store.models("default", "parent")
    plane.store.move_alias("default", "parent", "best", 1, at=1.0, by="ann", reason="")
    child = plane.submit("child", init_from={"model": "parent@best", "freeze": ["first.*"]})
    assert child.spec["init_from"]["checkpoint"] == version.checkpoint
    assert child.spec["init_from"]["freeze"] == ["first.*"]
    text = json.dumps(document("child", init_from={"model": "parent@1"}))
    assert plane.commands.plan("default", text).spec["init_from"]["checkpoint"] == version.checkpoint


@pytest.mark.parametrize(
    ("model", "words"),
    [("parent@1", "init_from.model: no model 'parent' in project 'default'"), ("child@7", "no version or alias '7'")],
)
async def test_a_model_that_is_not_registered_is_refused_at_submission(model, words):
    plane = Plane()
    session = await plane.attach()
    run = plane.submit("child")
    plane.loop.one_pass()
    await session.observe([observation(run, what, seq=n) for n, what in enumerate(TRAINING, 1)])
    await session.observe([observation(run, attempt_ended("succeeded"), seq=3)])
    with pytest.raises(NotFound, match=words):
        plane.submit("other", init_from={"model": model})
    assert [each.name for each in plane.store.runs(RunFilter("default"), page="", limit=10).runs] == ["child"]


async def test_a_run_whose_model_has_a_champion_is_told_to_compare_itself_with_it():
    plane = Plane()
    session = await plane.attach()
    first = plane.submit("child")
    assert "proof" not in first.spec
    plane.loop.one_pass()
    await session.observe([observation(first, what, seq=n) for n, what in enumerate(TRAINING, 1)])
    await session.observe([observation(first, attempt_ended("succeeded"), seq=3)])
    (version,) = plane.store.models("default", "child")
    assert "proof" not in plane.submit("child").spec
    plane.store.move_alias("default", "child", "champion", 1, at=1.0, by="ann", reason="")
    assert plane.submit("child").spec["proof"] == {"champion": 1, "checkpoint": version.checkpoint}
    assert "proof" not in plane.submit("other").spec
    plane.commands.cancel("default", plane.submit("child").id, by="ada")  # a stored section is no unknown key
