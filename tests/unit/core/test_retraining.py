"""Whether to retrain: every answer with its reason."""

from __future__ import annotations

import datetime
from dataclasses import replace

import pytest

from orchestrator.core.cron import next_after, parse_cron
from orchestrator.core.prospects import Proof
from orchestrator.core.retraining import (
    Action,
    Because,
    Cause,
    Mode,
    Policy,
    QuietHours,
    Retraining,
    Situation,
    Trigger,
    decide,
    due,
)

DAY = 86_400.0
NOW = datetime.datetime(2026, 3, 10, 12, 30, tzinfo=datetime.UTC).timestamp()
DRIFT = Trigger(Cause.DRIFT, "drift/1", NOW, "drift (major): height", severity=3)
PERSON = Trigger(Cause.MANUAL, "manual/1", NOW, "asked for by ada")
POLICY = Policy(
    causes=frozenset({Cause.DRIFT, Cause.SCHEDULE, Cause.DATA_VOLUME}),
    mode=Mode.AUTO,
    cooldown_s=DAY,
    least_new_rows=1_000,
    monthly_runs=3,
    monthly_cost=100.0,
)
QUIET = Situation(now=NOW, new_rows=5_000)


def before(days: float, key: str = "earlier", done: bool = True, cost: float = 10.0) -> Retraining:
    at = NOW - days * DAY
    return Retraining(f"run-{key}", key, at, at + 600 if done else None, cost)


@pytest.mark.parametrize(
    ("trigger", "policy", "situation", "action", "because", "words"),
    [
        (DRIFT, POLICY, QUIET, Action.RETRAIN, Because.ACCEPTED, "retrains: drift"),
        (DRIFT, replace(POLICY, mode=Mode.APPROVE), QUIET, Action.ASK, Because.ACCEPTED, "waits for approval"),
        (DRIFT, replace(POLICY, mode=Mode.DRY_RUN), QUIET, Action.TELL, Because.ACCEPTED, "would retrain"),
        (PERSON, replace(POLICY, mode=Mode.APPROVE), QUIET, Action.RETRAIN, Because.ACCEPTED, "ada"),
        (PERSON, replace(POLICY, mode=Mode.DRY_RUN), QUIET, Action.TELL, Because.ACCEPTED, "dry run"),
        (replace(DRIFT, cause=Cause.ALERT), POLICY, QUIET, Action.REFUSE, Because.NOT_ENABLED, "alert is not among"),
        (
            DRIFT,
            POLICY,
            replace(QUIET, past=[before(9, "drift/1")]),
            Action.REFUSE,
            Because.DUPLICATE,
            "started run-drift/1",
        ),
        (
            DRIFT,
            POLICY,
            replace(QUIET, past=[before(9, done=False)]),
            Action.REFUSE,
            Because.IN_PROGRESS,
            "still under way",
        ),
        (replace(DRIFT, broken_data=True), POLICY, QUIET, Action.REFUSE, Because.BROKEN_DATA, "mend their source"),
        (
            replace(DRIFT, severity=1),
            replace(POLICY, least_severity=2),
            QUIET,
            Action.REFUSE,
            Because.TOO_MILD,
            "for 2 and more",
        ),
        (DRIFT, POLICY, replace(QUIET, past=[before(0.5)]), Action.WAIT, Because.COOLDOWN, "cooling down until"),
        (DRIFT, POLICY, replace(QUIET, new_rows=999), Action.WAIT, Because.TOO_LITTLE_DATA, "999 new rows"),
        (DRIFT, POLICY, replace(QUIET, of_images=True), Action.REFUSE, Because.UNLEARNABLE, "learns from images"),
        (
            PERSON,
            POLICY,
            replace(QUIET, of_images=True),
            Action.REFUSE,
            Because.UNLEARNABLE,
            "submit a run of its name",
        ),
        (
            DRIFT,
            replace(POLICY, mode=Mode.APPROVE),
            replace(QUIET, rows=600, proof=Proof(100, 0.15)),
            Action.WAIT,
            Because.TOO_LITTLE_DATA,
            "of 600 rows about 90 would be held out for the proof",
        ),
        (
            DRIFT,
            POLICY,
            replace(QUIET, rows=5_000, proof=Proof(100, 0.15, reference_rows=85)),
            Action.REFUSE,
            Because.UNPROVABLE,
            "could never be promoted: the champion's own data have 85 rows held out",
        ),
        (
            DRIFT,
            POLICY,
            replace(QUIET, past=[before(2, "a"), before(3, "b"), before(4, "c")]),
            Action.WAIT,
            Because.BUDGET_SPENT,
            "all 3 retrainings",
        ),
        (
            DRIFT,
            POLICY,
            replace(QUIET, past=[before(2, cost=70.0)], expected_cost=40.0),
            Action.WAIT,
            Because.BUDGET_SPENT,
            "70.00 of 100.00",
        ),
        (
            DRIFT,
            replace(POLICY, quiet=(QuietHours(720, 780),)),
            QUIET,
            Action.WAIT,
            Because.QUIET_HOURS,
            "until 2026-03-10 13:00",
        ),
    ],
)
def test_every_decision_has_its_reason(
    trigger: Trigger, policy: Policy, situation: Situation, action: Action, because: Because, words: str
) -> None:
    decision = decide(trigger, policy, situation)
    assert (decision.action, decision.because) == (action, because)
    assert words in decision.words


def test_a_person_is_told_that_nothing_could_be_proven_and_has_it_trained_all_the_same() -> None:
    for proof, words in (
        (Proof(100, 0.15), "of 60 rows about 9 would be held out"),
        (Proof(100, 0.15, reference_rows=85), "the champion's own data have 85"),
    ):
        for mode, action in ((Mode.APPROVE, Action.RETRAIN), (Mode.DRY_RUN, Action.TELL)):
            decision = decide(PERSON, replace(POLICY, mode=mode), replace(QUIET, rows=60, proof=proof))
            assert f"asked for by ada; what it makes could only be promoted by hand: {words}" in decision.words
            assert decision.action is action


@pytest.mark.parametrize(
    "policy", [replace(POLICY, cooldown_s=30 * DAY), replace(POLICY, quiet=(QuietHours(0, 0),)), POLICY]
)
def test_what_waits_is_accepted_at_the_time_that_it_was_told(policy: Policy) -> None:
    situation = replace(QUIET, past=[before(1.5, "a"), before(2, "b"), before(3, "c")])
    first = decide(DRIFT, policy, situation)
    assert first.action is Action.WAIT
    assert first.again_at is not None
    if policy.quiet:
        return  # the whole day: no time is right
    assert decide(DRIFT, policy, replace(situation, now=first.again_at - 60)).because is first.because
    assert decide(DRIFT, policy, replace(situation, now=first.again_at)).because is not first.because


def test_a_person_is_held_to_the_running_one_and_the_budget_only() -> None:
    held = replace(POLICY, quiet=(QuietHours(0, 0),))
    assert decide(PERSON, held, replace(QUIET, new_rows=0, past=[before(0.1)])).action is Action.RETRAIN
    assert decide(PERSON, held, replace(QUIET, past=[before(1, done=False)])).because is Because.IN_PROGRESS
    spent = [before(1, "a"), before(2, "b"), before(3, "c")]
    assert decide(PERSON, held, replace(QUIET, past=spent)).because is Because.BUDGET_SPENT


def test_a_budget_begins_anew_with_the_month_of_its_own_clock() -> None:
    past = [before(10.6, "a"), before(10.7, "b"), before(10.8, "c")]  # 27 and 28 February
    assert decide(DRIFT, POLICY, replace(QUIET, past=past)).action is Action.RETRAIN


def test_quiet_hours_go_over_midnight_in_local_time() -> None:
    night = QuietHours(22 * 60, 6 * 60)
    assert [night.minutes_left(minute) for minute in (21 * 60 + 59, 22 * 60, 5 * 60 + 59, 6 * 60)] == [0, 480, 1, 0]
    asleep = replace(POLICY, quiet=(night,), utc_offset_s=10 * 3600.0)  # 22:30 there
    assert decide(DRIFT, asleep, QUIET).again_at == NOW + 7.5 * 3600


def test_a_schedule_and_a_volume_come_due_once() -> None:
    policy = replace(POLICY, schedule=parse_cron("0 3 * * *"), volume_rows=5_000)
    triggers = due(policy, QUIET, since=NOW - DAY)
    assert [each.cause for each in triggers] == [Cause.SCHEDULE, Cause.DATA_VOLUME]
    assert due(policy, replace(QUIET, now=NOW + 60), since=NOW - DAY)[0].key == triggers[0].key
    after = replace(QUIET, past=[Retraining("run", triggers[0].key, NOW, NOW + 60)], new_rows=0)
    assert due(policy, after, since=NOW - DAY) == []


def test_rows_ask_again_when_they_have_doubled_whatever_came_of_the_last_time() -> None:
    policy = replace(POLICY, volume_rows=100)
    keys = [due(policy, replace(QUIET, new_rows=rows), since=NOW - DAY)[0].key for rows in (100, 199, 200, 399, 400)]
    assert [keys.index(each) for each in keys] == [0, 0, 2, 2, 4]


def test_a_schedule_goes_on_after_a_time_that_started_nothing() -> None:
    policy = replace(POLICY, schedule=parse_cron("0 3 * * *"))
    (first,) = due(policy, QUIET, since=NOW - DAY)
    assert due(policy, QUIET, NOW - DAY, first.at) == []
    (second,) = due(policy, replace(QUIET, now=NOW + DAY), NOW - DAY, first.at)
    assert second.at == first.at + DAY


@pytest.mark.parametrize(
    ("cron", "expected"),
    [
        ("30 12 * * *", "2026-03-11 12:30"),
        ("*/20 * * * *", "2026-03-10 12:40"),
        ("0 3 * * 1", "2026-03-16 03:00"),
        ("0 0 1 * *", "2026-04-01 00:00"),
        ("0 0 29 2 *", "2028-02-29 00:00"),
        ("15 8-9,18 * 3 2-4", "2026-03-10 18:15"),
        ("0 0 13 * 5", "2026-03-13 00:00"),
        ("0 0 11 * 5", "2026-03-11 00:00"),
        ("0 12 * * 7", "2026-03-15 12:00"),
    ],
)
def test_the_next_time_of_a_schedule(cron: str, expected: str) -> None:
    at = next_after(parse_cron(cron), NOW)
    assert at is not None
    assert datetime.datetime.fromtimestamp(at, datetime.UTC).strftime("%Y-%m-%d %H:%M") == expected


@pytest.mark.parametrize(
    "wrong", ["", "* * * *", "60 * * * *", "* * * 13 *", "*/0 * * * *", "5-1 * * * *", "a * * * *"]
)
def test_what_is_no_schedule_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="must"):
        parse_cron(wrong)


def test_a_day_that_no_month_has_is_refused() -> None:
    with pytest.raises(ValueError, match="no month has"):
        parse_cron("0 0 31 2,4 *")
