"""A worker's time, as its host keeps the account."""

from __future__ import annotations

from orchestrator.cluster.rank_account import RankAccount
from orchestrator.core.ledger import TimeClass
from trainers import contract

S = 1_000_000_000


def test_the_account_is_an_exact_partition_over_phases_and_incarnations() -> None:
    account = RankAccount(0, since_ns=0)
    account.begin(1 * S)
    account.hear(contract.PhaseChanged("training", 2 * S), 2 * S)
    account.end(5 * S, stopping=False, finished=False)
    account.begin(6 * S)
    account.hear(contract.PhaseChanged("recomputing", 7 * S), 7 * S)
    account.end(8 * S, stopping=False, finished=True)
    told = account.clock.at(10 * S)
    assert told.total_ns == 10 * S
    assert {name: ns // S for name, ns in told.ns.items()} == {
        TimeClass.STARTING: 4,
        TimeClass.TRAINING: 3,
        TimeClass.RECOMPUTING: 1,
        TimeClass.IDLE: 2,
    }


def test_only_the_first_step_of_an_incarnation_must_be_heard() -> None:
    account = RankAccount(0, since_ns=0)
    account.begin(0)
    assert account.hear(contract.Step(step=1, epoch=0, at_ns=0), 1)
    assert not account.hear(contract.Step(step=2, epoch=0, at_ns=0), 2)
    account.begin(3)
    assert account.hear(contract.Step(step=2, epoch=0, at_ns=0), 4)


def test_a_phase_told_again_is_a_sign_of_life_and_moves_no_time() -> None:
    account = RankAccount(0, since_ns=0)
    account.begin(0)
    evaluating = contract.PhaseChanged("evaluating", 1 * S)
    account.hear(evaluating, 1 * S)
    account.hear(evaluating, 9 * S)
    assert account.view(10 * S).silent_s == 1.0
    account.stop(10 * S)
    account.hear(evaluating, 11 * S)
    assert {name: ns // S for name, ns in account.clock.at(12 * S).ns.items()} == {
        TimeClass.STARTING: 1,
        TimeClass.EVALUATING: 9,
        TimeClass.STOPPING: 2,
    }


def test_a_hung_worker_lost_its_time_from_its_last_sign_on() -> None:
    account = RankAccount(0, since_ns=0)
    account.begin(0)
    account.hear(contract.PhaseChanged("training", 1 * S), 1 * S)
    account.hear(contract.Step(step=1, epoch=0, at_ns=2 * S), 2 * S)
    account.declare_hung(10 * S)
    assert account.clock.at(10 * S).seconds(TimeClass.HUNG) == 8.0
