"""A promotion that did harm is taken back, one that did none hardly ever."""

from __future__ import annotations

import random

import pytest

from orchestrator.core.probation import Answers, Policy, Standing, evidence, judge

BEFORE = Answers(1000, 100)
USUAL = Policy()


def live(rate: float, rows: int, seed: int, policy: Policy = USUAL, before: Answers = BEFORE) -> int | None:
    """After how many labelled rows the version is taken back, looked at after each; None: never."""
    generator, errors = random.Random(seed), 0
    for row in range(1, rows + 1):
        errors += generator.random() < rate
        verdict = judge(0.0, 60.0 * row / rows, before, Answers(row, errors), policy)
        if verdict.standing is Standing.ROLL_BACK:
            return row
    return None


def test_a_version_as_good_as_it_was_proven_is_taken_back_hardly_ever() -> None:
    assert [seed for seed in range(40) if live(0.1, 300, seed)] == []


def test_at_the_very_limit_false_alarms_are_held_although_each_row_is_looked_at() -> None:
    sure = Answers(10**9, 10**8)  # the rate is known: nothing is left but what was asked for
    policy = Policy(drop=0.0, false_alarms=0.05)
    alarms = sum(live(0.1, 300, seed, policy, sure) is not None for seed in range(100))
    assert alarms <= 11  # 5 are expected at most; 11 are three deviations above that


def test_a_version_that_errs_three_times_as_often_is_taken_back_soon() -> None:
    rows = sorted(live(0.3, 1000, seed) or 10**9 for seed in range(20))
    assert rows[10] <= 150
    assert rows[-1] <= 600


def test_words_tell_both_rates_and_the_allowance() -> None:
    verdict = judge(100.0, 200.0, BEFORE, Answers(400, 160), Policy(length_s=3600))
    assert verdict.standing is Standing.ROLL_BACK
    assert verdict.until == 3700.0
    assert "error rate 0.4 on 400 labelled rows, 0.1 on 1,000 before" in verdict.words


@pytest.mark.parametrize(
    ("now", "since", "standing", "words"),
    [
        (10.0, Answers(0, 0), Standing.WATCHING, "on probation"),
        (10.0, Answers(50, 6), Standing.WATCHING, "on probation"),
        (100.0, Answers(50, 6), Standing.PASSED, "has passed"),
        (100.0, Answers(0, 0), Standing.PASSED, "without a labelled row"),
    ],
)
def test_without_evidence_it_is_watched_until_its_probation_ends(
    now: float, since: Answers, standing: Standing, words: str
) -> None:
    verdict = judge(0.0, now, BEFORE, since, Policy(length_s=100.0))
    assert verdict.standing is standing
    assert words in verdict.words


def test_where_nothing_is_known_of_before_nothing_is_taken_back() -> None:
    assert judge(0.0, 1.0, Answers(0, 0), Answers(100, 100), Policy()).standing is Standing.WATCHING
    over = judge(0.0, 1e6, Answers(0, 0), Answers(100, 100), Policy())
    assert over.standing is Standing.PASSED
    assert over.words.startswith("its probation has ended: its live performance is not watched")


def test_no_probation_takes_nothing_back() -> None:
    assert judge(0.0, 1.0, BEFORE, Answers(100, 100), Policy(length_s=0.0)).standing is Standing.PASSED


def test_evidence_of_very_many_errors_is_more_than_any_limit() -> None:
    assert evidence(Answers(10**6, 5 * 10**5), 0.1) == float("inf")
    assert evidence(Answers(10**6, 10**5), 0.1) < 1


def test_more_errors_than_answers_are_refused() -> None:
    with pytest.raises(ValueError, match="7 errors in 3"):
        Answers(3, 7)
