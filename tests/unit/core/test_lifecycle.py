from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core import lifecycle
from orchestrator.core import observations as seen
from orchestrator.core.ledger import Ledger, TimeClass
from orchestrator.core.lifecycle import Ignored, Transition
from orchestrator.core.runs import Reason, ReasonCode, Spent
from tests.builders import BUDGETS, SHARES, attempt_ended, changed, failure, hear, observe, placed_run, queued_run

STARTED = seen.IncarnationStarted(1, 2)
FIRST_STEP = seen.FirstStep(1, 1)


def failed_rank(restarting: bool = True) -> seen.IncarnationFailed:
    reason = Reason(ReasonCode.RESTARTING_IN_PLACE, "restart 1 of 2")
    return seen.IncarnationFailed(1, failure(), restarting, reason, Spent(application=1), furthest_step=7)


def running() -> lifecycle.Run:
    return hear(hear(placed_run(), STARTED, seq=1), FIRST_STEP, seq=2)


def test_the_happy_path_goes_from_queue_to_success_and_registers_a_model():
    run = queued_run()
    states = [run.state.kind]
    run = changed(lifecycle.place(run, "local", SHARES, 1010.0))
    states.append(run.state.kind)
    run = hear(run, seen.Placed(SHARES, 0.5))
    run = hear(run, STARTED, seq=1)
    run = hear(run, FIRST_STEP, seq=2)
    states.append(run.state.kind)
    answer = observe(run, attempt_ended("succeeded"), seq=3)
    assert isinstance(answer, Transition)
    states.append(answer.run.state.kind)
    assert states == ["QUEUED", "STARTING", "RUNNING", "SUCCEEDED"]
    assert answer.model is not None
    assert answer.model.checkpoint == "/seals/step-10"


def test_what_the_ranks_found_out_goes_with_the_model_version():
    run = hear(hear(hear(placed_run(), seen.Placed(SHARES, 0.5)), STARTED, seq=1), FIRST_STEP, seq=2)
    answer = observe(run, replace(attempt_ended("succeeded"), facts={"profile": {"rows": 7}}), seq=3)
    assert isinstance(answer, Transition)
    assert answer.facts == {"profile": {"rows": 7}}


@pytest.mark.parametrize(
    ("init_from", "words"),
    [
        (None, "starting from nothing"),
        ({"model": "digits@3", "checkpoint": "/seals/9"}, "starting with the weights of digits@3"),
        ({"file": "/weights"}, "starting with the weights of /weights"),
    ],
)
def test_what_a_fresh_start_begins_with_is_told(init_from, words):
    run = replace(hear(hear(placed_run(), seen.Placed(SHARES, 0.5)), STARTED, seq=1), spec={"init_from": init_from})
    answer = observe(run, seen.RanksRestored(1, 0, None), seq=2)
    assert isinstance(answer, Transition)
    assert answer.events[0].message == words


def test_every_transition_explains_itself_with_an_event():
    answer = lifecycle.place(queued_run(), "local", SHARES, 1010.0)
    assert isinstance(answer, Transition)
    assert [each.kind for each in answer.events] == ["placed"]
    assert "2 on alpha" in answer.events[0].message


def test_a_dead_rank_makes_it_recovering_and_its_next_first_step_running_again():
    run = hear(running(), failed_rank(), seq=3)
    assert run.state.kind == "RECOVERING"
    assert run.spent.application == 1
    run = hear(run, seen.IncarnationStarted(2, 2), seq=4)
    run = hear(run, seen.FirstStep(2, 8, recovery_s=1.2), seq=5)
    assert run.state.kind == "RUNNING"
    assert run.attempt.incarnations[-1].recovery_s == 1.2
    assert run.attempt.incarnations[0].failure == failure()


def test_the_first_step_after_a_lost_attempt_counts_from_its_loss_and_that_after_a_preemption_does_not():
    for outcome, code, recovery_s in (
        ("lost", ReasonCode.RESCHEDULED, 70.0),
        ("preempted", ReasonCode.PREEMPTED, None),
    ):
        run = hear(running(), attempt_ended(outcome, reason=Reason(code, "elsewhere")), seq=3, now=1060.0)
        run = changed(lifecycle.place(run, "local", SHARES, 1100.0))
        run = hear(hear(run, seen.Placed(SHARES, 0.5), seq=1), STARTED, seq=2)
        run = hear(run, seen.FirstStep(1, 8), seq=3, now=1130.0)
        assert run.attempt.incarnations[0].recovery_s == recovery_s
        run = hear(hear(run, failed_rank(), seq=4), seen.IncarnationStarted(2, 2), seq=5)
        assert hear(run, seen.FirstStep(2, 9, 1.5), seq=6).attempt.incarnations[1].recovery_s == 1.5


def test_a_message_that_was_applied_before_changes_nothing():
    run = running()
    answer = observe(run, FIRST_STEP, seq=2)
    assert isinstance(answer, Ignored)
    assert "applied before" in answer.why


def test_a_late_message_from_an_old_attempt_changes_nothing():
    lost = hear(running(), attempt_ended("lost"), seq=3)
    second = changed(lifecycle.place(lost, "local", SHARES, 1100.0))
    answer = observe(second, attempt_ended("succeeded"), seq=9, attempt=1)
    assert isinstance(answer, Ignored)
    assert "attempt 2 is the current one" in answer.why


def test_a_run_that_has_ended_hears_nothing():
    done = hear(running(), attempt_ended("succeeded"), seq=3)
    assert isinstance(observe(done, attempt_ended("failed"), seq=4, attempt=1), Ignored)


def test_a_lost_attempt_queues_again_and_waits_until_its_old_ranks_have_certainly_ended():
    run = hear(running(), attempt_ended("lost", fence_s=12.0), seq=3, now=1100.0)
    assert run.state.kind == "QUEUED"
    assert run.state.reason.code == ReasonCode.RESCHEDULED
    assert run.state.not_before_at == 1112.0
    assert run.spent.infrastructure == 1


def test_a_run_whose_hosts_are_lost_too_often_fails():
    run = running()
    for n in range(BUDGETS.infrastructure + 1):
        run = hear(run, attempt_ended("lost"))
        if run.terminal:
            break
        run = changed(lifecycle.place(run, "local", SHARES, 1200.0 + n))
    assert run.state.kind == "FAILED"
    assert run.state.reason.code == ReasonCode.BUDGET_SPENT


def test_a_preempted_run_queues_with_the_reason_and_fails_when_that_budget_is_spent():
    ordered = changed(lifecycle.preempt(running(), by="ops", message="drained", now=1050.0))
    assert ordered.stop.kind == "preempt"
    run = hear(ordered, attempt_ended("preempted"), seq=3)
    assert (run.state.kind, run.state.reason.code, run.state.reason.message) == (
        "QUEUED",
        ReasonCode.PREEMPTED,
        "drained",
    )
    assert run.stop is None
    again = changed(lifecycle.place(run, "local", SHARES, 1100.0))
    again = changed(lifecycle.preempt(again, by="ops", message="drained", now=1101.0))
    assert hear(again, attempt_ended("preempted"), seq=1).state.kind == "FAILED"


def test_a_paused_run_gives_its_workers_back_and_is_not_placed_until_it_is_resumed():
    ordered = changed(lifecycle.pause(running(), by="ada", message="look at the data", now=1050.0))
    assert ordered.stop.kind == "preempt"
    run = hear(ordered, attempt_ended("preempted"), seq=3, now=1060.0)
    assert (run.state.kind, run.state.reason.code, run.stop) == ("QUEUED", ReasonCode.PAUSED, None)
    assert run.state.reason.message == "paused by ada: look at the data"
    assert run.spent.preemption == 0, "somebody asked for it"
    assert isinstance(lifecycle.place(run, "local", SHARES, 1070.0), Ignored)
    resumed = changed(lifecycle.resume(run, by="ada", now=1080.0))
    assert (resumed.state.reason.code, resumed.paused) == (ReasonCode.RESUMED, "")
    assert changed(lifecycle.place(resumed, "local", SHARES, 1090.0)).attempt.number == 2


def test_pausing_a_queued_run_holds_it_where_it_is_and_its_time_counts_as_queued():
    run = changed(lifecycle.pause(queued_run(), by="ada", message="", now=1010.0))
    assert (run.state.kind, run.state.reason.message) == ("QUEUED", "paused by ada")
    resumed = changed(lifecycle.resume(run, by="ada", now=1100.0))
    account = lifecycle.ledger(resumed, workers=2, now=1120.0)
    assert account.seconds(TimeClass.QUEUED) == account.total_ns / 1e9 == 2 * 120.0


def test_pausing_and_resuming_twice_is_once():
    paused = changed(lifecycle.pause(running(), by="ada", message="", now=1050.0))
    assert isinstance(lifecycle.pause(paused, by="bob", message="", now=1051.0), Ignored)
    resumed = changed(lifecycle.resume(paused, by="ada", now=1052.0))
    assert isinstance(lifecycle.resume(resumed, by="ada", now=1053.0), Ignored)


def test_a_run_that_is_resumed_while_it_makes_room_is_queued_again_and_has_used_no_budget():
    paused = changed(lifecycle.pause(running(), by="ada", message="", now=1050.0))
    resumed = changed(lifecycle.resume(paused, by="ada", now=1051.0))
    run = hear(resumed, attempt_ended("preempted"), seq=3)
    assert (run.state.reason.code, run.spent.preemption) == (ReasonCode.PREEMPTED, 0)
    again = changed(lifecycle.place(run, "local", SHARES, 1100.0))
    drained = changed(lifecycle.preempt(again, by="ops", message="drained", now=1101.0))
    assert hear(drained, attempt_ended("preempted"), seq=1).spent.preemption == 1, "nobody asked for this one"


def test_a_pause_and_a_resume_do_not_make_free_what_a_drain_had_ordered_before():
    drained = changed(lifecycle.preempt(running(), by="ops", message="drained", now=1030.0))
    paused = changed(lifecycle.pause(drained, by="ada", message="", now=1031.0))
    resumed = changed(lifecycle.resume(paused, by="ada", now=1032.0))
    assert hear(resumed, attempt_ended("preempted"), seq=3).spent.preemption == 1


def test_the_time_that_a_run_is_paused_is_kept_once_it_was_placed():
    before = changed(lifecycle.pause(queued_run(), by="ada", message="", now=1010.0))
    before = changed(lifecycle.resume(before, by="ada", now=1100.0))
    assert before.paused_ns == 0, "its time had not begun"
    run = changed(lifecycle.pause(running(), by="ada", message="", now=1050.0))
    run = hear(run, attempt_ended("preempted"), seq=3, now=1060.0)
    run = changed(lifecycle.resume(run, by="ada", now=1080.0))
    run = changed(lifecycle.pause(run, by="ada", message="", now=1090.0))
    run = changed(lifecycle.resume(run, by="ada", now=1095.0))
    assert run.paused_ns == (20 + 5) * 10**9, "it held its workers until 1060"


def test_a_paused_run_whose_host_is_lost_meanwhile_stays_paused():
    paused = changed(lifecycle.pause(running(), by="ada", message="", now=1050.0))
    run = hear(paused, attempt_ended("lost", fence_s=30.0), seq=3, now=1060.0)
    assert (run.state.kind, run.state.reason.code, run.state.not_before_at) == ("QUEUED", ReasonCode.PAUSED, 1090.0)


def test_a_pause_waits_for_a_preemption_that_was_ordered_before_and_yields_to_a_cancel():
    drained = changed(lifecycle.preempt(running(), by="ops", message="drained", now=1030.0))
    paused = changed(lifecycle.pause(drained, by="ada", message="", now=1031.0))
    assert paused.stop == drained.stop
    assert hear(paused, attempt_ended("preempted"), seq=3).state.reason.code == ReasonCode.PAUSED
    cancelled = changed(lifecycle.cancel(running(), by="ada", message="", now=1030.0))
    assert isinstance(lifecycle.pause(cancelled, by="ada", message="", now=1031.0), Ignored)
    assert changed(lifecycle.cancel(hear(paused, attempt_ended("preempted"), seq=3), by="ada", message="", now=1040.0))


def test_a_sweep_and_a_run_that_has_ended_are_not_paused():
    done = hear(running(), attempt_ended("succeeded"), seq=3)
    assert isinstance(lifecycle.pause(done, by="ada", message="", now=1040.0), Ignored)
    assert isinstance(lifecycle.pause(queued_run(kind="sweep"), by="ada", message="", now=1040.0), Ignored)


def test_cancelling_a_queued_run_ends_it_at_once():
    run = changed(lifecycle.cancel(queued_run(), by="ada", message="typo", now=1001.0))
    assert run.state.kind == "CANCELLED"
    assert "cancelled by ada: typo" in run.state.reason.message


@pytest.mark.parametrize("outcome", ["cancelled", "failed", "lost", "preempted"])
def test_cancelling_a_placed_run_orders_a_stop_and_it_ends_cancelled_however_its_ranks_ended(outcome):
    run = changed(lifecycle.cancel(running(), by="ada", message="", now=1030.0))
    assert run.state.kind == "RUNNING"
    assert run.stop.kind == "cancel"
    assert hear(run, attempt_ended(outcome), seq=3).state.kind == "CANCELLED"


def test_a_run_that_succeeds_before_its_cancel_arrives_has_succeeded():
    run = changed(lifecycle.cancel(running(), by="ada", message="", now=1030.0))
    assert hear(run, attempt_ended("succeeded"), seq=3).state.kind == "SUCCEEDED"


def test_cancel_overrides_a_preemption_and_twice_is_once():
    run = changed(lifecycle.preempt(running(), by="ops", message="drained", now=1030.0))
    run = changed(lifecycle.cancel(run, by="ada", message="", now=1031.0))
    assert run.stop.kind == "cancel"
    assert isinstance(lifecycle.cancel(run, by="ada", message="", now=1032.0), Ignored)


@pytest.mark.parametrize("outcome", ["succeeded", "failed"])
def test_cancelling_a_run_that_has_ended_changes_nothing(outcome):
    done = hear(running(), attempt_ended(outcome, failure=failure()), seq=3)
    assert isinstance(lifecycle.cancel(done, by="ada", message="", now=1040.0), Ignored)


def test_an_order_that_can_never_be_placed_fails_the_run_and_a_stale_one_queues_it():
    reason = Reason(ReasonCode.NEVER_FITS, "several hosts, one local path")
    assert hear(placed_run(), seen.Unplaceable(reason, final=True)).state.kind == "FAILED"
    stale = hear(placed_run(), seen.Unplaceable(reason, final=False), now=1020.0)
    assert (stale.state.kind, stale.state.not_before_at) == ("QUEUED", 1021.0)


def test_an_order_admits_the_earlier_attempts_whole():
    run = hear(running(), failed_rank(), seq=3)
    run = hear(run, seen.IncarnationStarted(2, 2), seq=4)
    lost = hear(run, attempt_ended("lost"), seq=5)
    second = changed(lifecycle.place(lost, "local", SHARES, 1100.0))
    order = lifecycle.order(second, checkpoint_root="/c", budgets=BUDGETS, secrets={}, remaining_s=None)
    assert [(each.attempt, each.incarnation) for each in order.admitted] == [(1, 0)]
    assert order.attempt == 2
    assert not order.placed


def test_secrets_do_not_show_in_the_text_of_an_order():
    order = lifecycle.order(
        placed_run(), checkpoint_root="/c", budgets=BUDGETS, secrets={"TOKEN": "hunter2"}, remaining_s=None
    )
    assert "hunter2" not in repr(order)


def test_a_deadline_fails_the_run_and_says_so():
    run = hear(running(), attempt_ended("deadline"), seq=3)
    assert (run.state.kind, run.state.reason.code) == ("FAILED", ReasonCode.DEADLINE)


@given(st.lists(st.floats(-1e5, 1e5), min_size=3, max_size=3), st.integers(0, 10**12))
def test_the_runs_ledger_adds_up_to_all_its_time_even_when_the_wall_clock_jumps(jumps, trained_ns):
    placed_at, ended_at, now = (1000.0 + jump for jump in jumps)
    run = changed(lifecycle.place(queued_run(), "local", SHARES, placed_at))
    account = Ledger({TimeClass.TRAINING: trained_ns}) if trained_ns else Ledger()
    run = hear(run, attempt_ended("succeeded", ledger=account), now=ended_at)
    total = lifecycle.ledger(run, workers=2, now=now)
    whole = max(0, round((ended_at - 1000.0) * 1e9)) * 2
    queued = max(0, round((placed_at - 1000.0) * 1e9)) * 2
    assert total.total_ns == max(whole, queued + trained_ns)
    assert all(part >= 0 for part in total.ns.values())


def preparing(words: str = "checking every row") -> seen.Waiting:
    return seen.Waiting(Reason(ReasonCode.PREPARING_DATA, f"preparing data on alpha: {words}"))


def seconds(run: lifecycle.Run, now: float, time_class: TimeClass) -> float:
    return lifecycle.ledger(run, workers=2, now=now).seconds(time_class)


def test_time_spent_preparing_data_uses_no_worker_and_counts_as_queued():
    run = hear(placed_run(1010.0), preparing(), now=1012.0)  # submitted at 1000
    assert run.state.kind == "STARTING"
    assert seconds(run, 1020.0, TimeClass.QUEUED) == 2 * (10 + 8)
    run = hear(run, preparing("writing the arrays"), now=1021.0)
    assert seconds(run, 1030.0, TimeClass.QUEUED) == 2 * (10 + 18)
    run = hear(run, seen.Placed(SHARES, 3.0), now=1042.0)  # its hosts have booked the last three seconds
    assert seconds(run, 1050.0, TimeClass.QUEUED) == 2 * (10 + 27)
    assert seconds(run, 1050.0, TimeClass.STARTING) == 2 * (50 - 37)


def test_preparing_ends_with_whatever_comes_next():
    run = hear(placed_run(1010.0), preparing(), now=1012.0)
    waiting = hear(run, seen.Waiting(Reason(ReasonCode.WAITING_FOR_CAPACITY, "others hold 2 CPU")), now=1022.0)
    stopped = changed(lifecycle.cancel(run, by="ada", message="", now=1022.0))
    refused = hear(run, seen.Unplaceable(Reason(ReasonCode.NOT_RETRIABLE, "bad rows"), True), now=1022.0)
    for each in (waiting, stopped, refused):
        assert seconds(each, 1022.0, TimeClass.QUEUED) == 2 * (10 + 10)
    assert seconds(waiting, 1030.0, TimeClass.STARTING) == 2 * (2 + 8)
    assert refused.state.kind == "FAILED"
    assert isinstance(observe(stopped, preparing("writing the arrays"), now=1023.0), Ignored)
    assert stopped.state.reason.code == ReasonCode.STOPPING
