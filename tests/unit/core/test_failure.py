import signal
from dataclasses import replace

import pytest

from orchestrator.core.failure import (
    GiveUp,
    RankExit,
    Restart,
    decide,
    first_cause,
    preparation_ended,
    preparation_not_started,
)
from orchestrator.core.runs import Budgets, FailureKind, ReasonCode, Spent
from tests.builders import BUDGETS, failure
from trainers.contract import ExitCode, Failed


def exit_of(rank: int, **facts) -> RankExit:
    return RankExit(rank=rank, host=f"host-{rank}", **facts)


@pytest.mark.parametrize(
    ("end", "kind", "words"),
    [
        (exit_of(0, signal=signal.SIGKILL), FailureKind.KILLED, "SIGKILL from outside"),
        (exit_of(0, signal=signal.SIGKILL, with_zygote=True), FailureKind.KILLED, "ended with its zygote"),
        (exit_of(0, signal=signal.SIGSEGV), FailureKind.APPLICATION, "crashed with SIGSEGV"),
        (
            exit_of(0, signal=signal.SIGKILL, oom_evidence="cgroup oom_kill"),
            FailureKind.OUT_OF_MEMORY,
            "resources.memory",
        ),
        (exit_of(0, code=0), FailureKind.EXITED_EARLY, "exited with 0 while other ranks"),
        (exit_of(0, code=ExitCode.BAD_CONFIG), FailureKind.CONFIG, "code 78"),
        (exit_of(0, code=ExitCode.LOST_PEER), FailureKind.COMMUNICATION, "code 75"),
        (exit_of(0, code=ExitCode.STORAGE), FailureKind.STORAGE, "code 74"),
        (exit_of(0, code=ExitCode.BAD_LOSS), FailureKind.BAD_LOSS, "code 79"),
        (exit_of(0, code=ExitCode.FENCED), FailureKind.FENCED, "code 81"),
        (exit_of(0, code=ExitCode.STOPPED), FailureKind.KILLED, "SIGTERM from outside"),
        (
            exit_of(0, code=ExitCode.STOPPED, report=Failed(code=ExitCode.STOPPED, message="stopped", step=4)),
            FailureKind.KILLED,
            "SIGTERM from outside",
        ),
        (exit_of(0, code=3), FailureKind.APPLICATION, "code 3"),
        (exit_of(0, vanished="its worker died"), FailureKind.KILLED, "without a word of its own: its worker died"),
    ],
)
def test_an_exit_is_named_for_what_it_was(end, kind, words):
    cause = first_cause([end])
    assert cause.kind == kind
    assert words in cause.message
    assert (cause.rank, cause.host) == (0, "host-0")


def test_the_end_of_a_preparation_is_named_for_what_it_was_and_blames_no_rank():
    bad = Failed(code=ExitCode.BAD_CONFIG, message="data.columns.x.max: 3 rows")
    refused = preparation_ended(exit_of(0, code=ExitCode.BAD_CONFIG, report=bad))
    assert (refused.kind, refused.rank) == (FailureKind.CONFIG, None)
    assert refused.message == "The preparation of data on host-0 failed: data.columns.x.max: 3 rows"
    killed = preparation_ended(exit_of(0, signal=signal.SIGKILL))
    assert killed.kind == FailureKind.KILLED
    assert preparation_not_started("alpha", "no such Python", True).kind == FailureKind.CONFIG
    assert preparation_not_started("alpha", "no zygote", False).kind == FailureKind.NEVER_STARTED


def test_the_first_primary_exit_is_the_cause_even_when_communication_errors_arrive_before_it():
    report = Failed(code=ExitCode.LOST_PEER, message="peer closed", step=6, secondary=True)
    exits = [
        exit_of(0, code=ExitCode.LOST_PEER, report=report),
        exit_of(1, signal=signal.SIGKILL, step=6),
        exit_of(2, signal=signal.SIGKILL, ended_by_us=True),
    ]
    cause = first_cause(exits)
    assert (cause.kind, cause.rank, cause.step) == (FailureKind.KILLED, 1, 6)


def test_where_every_rank_only_lost_its_peers_the_network_is_the_cause():
    report = Failed(code=ExitCode.LOST_PEER, message="peer closed", secondary=True)
    assert first_cause([exit_of(0, code=1, report=report)]).kind == FailureKind.COMMUNICATION


def test_exits_that_the_host_caused_explain_nothing():
    with pytest.raises(ValueError, match="no failure to explain"):
        first_cause([exit_of(0, signal=signal.SIGKILL, ended_by_us=True)])


def test_a_restart_books_one_from_the_budget_of_its_kind_and_says_so():
    verdict = decide(failure(), spent=Spent(), budgets=BUDGETS, previous=None, sealed_since_previous=True)
    assert verdict == Restart(Spent(application=1), verdict.reason, 0.0)
    assert "Restart 1 of 2 (application)" in verdict.reason.message


@pytest.mark.parametrize("kind", list(FailureKind))
def test_every_kind_ends_when_its_budget_is_spent(kind):
    spent = Spent(application=BUDGETS.application, infrastructure=BUDGETS.infrastructure)
    verdict = decide(failure(kind=kind), spent=spent, budgets=BUDGETS, previous=None, sealed_since_previous=True)
    assert isinstance(verdict, GiveUp)
    assert verdict.reason.code in (ReasonCode.BUDGET_SPENT, ReasonCode.NOT_RETRIABLE)


def test_a_loss_that_is_no_number_is_not_tried_again():
    """The same samples come again in the same order."""
    verdict = decide(
        failure(kind=FailureKind.BAD_LOSS), spent=Spent(), budgets=BUDGETS, previous=None, sealed_since_previous=True
    )
    assert isinstance(verdict, GiveUp)
    assert verdict.reason.code == ReasonCode.NOT_RETRIABLE


def test_infrastructure_failures_leave_the_application_budget_alone():
    lost = failure(kind=FailureKind.HOST_LOST)
    verdict = decide(lost, spent=Spent(application=2), budgets=BUDGETS, previous=None, sealed_since_previous=True)
    assert isinstance(verdict, Restart)
    assert verdict.spent == Spent(application=2, infrastructure=1)


@pytest.mark.parametrize("kind", [FailureKind.CONFIG, FailureKind.FENCED])
def test_what_restarting_cannot_help_is_never_restarted(kind):
    verdict = decide(failure(kind=kind), spent=Spent(), budgets=BUDGETS, previous=None, sealed_since_previous=True)
    assert isinstance(verdict, GiveUp)
    assert verdict.reason.code == ReasonCode.NOT_RETRIABLE


def test_the_same_traceback_at_the_same_step_twice_without_a_new_checkpoint_stops_the_retries():
    first = failure(traceback="object at 0x7f01 failed")
    again = replace(first, traceback="object at 0x7fff failed")
    verdict = decide(again, spent=Spent(), budgets=BUDGETS, previous=first, sealed_since_previous=False)
    assert isinstance(verdict, GiveUp)
    assert verdict.reason.code == ReasonCode.REPEATED_FAILURE
    assert "twice at step 7" in verdict.reason.message


@pytest.mark.parametrize(
    ("again", "sealed"),
    [
        (failure(), True),
        (failure(step=8), False),
        (failure(traceback="another place"), False),
    ],
)
def test_progress_of_any_kind_makes_a_failure_new(again, sealed):
    verdict = decide(again, spent=Spent(), budgets=BUDGETS, previous=failure(), sealed_since_previous=sealed)
    assert isinstance(verdict, Restart)


def test_a_kill_is_not_a_repetition_however_often_it_comes():
    kill = failure(kind=FailureKind.KILLED, traceback="")
    verdict = decide(
        kill, spent=Spent(), budgets=Budgets(infrastructure=99), previous=kill, sealed_since_previous=False
    )
    assert isinstance(verdict, Restart)


def test_restarts_without_progress_wait_longer_each_time_up_to_a_bound():
    kill = failure(kind=FailureKind.KILLED, traceback="")
    waits = []
    for used in range(12):
        verdict = decide(
            kill,
            spent=Spent(infrastructure=used),
            budgets=Budgets(infrastructure=99),
            previous=kill,
            sealed_since_previous=False,
        )
        assert isinstance(verdict, Restart)
        waits.append(verdict.delay_s)
    assert waits == sorted(waits)
    assert waits[0] > 0
    assert waits[-1] == 30.0
