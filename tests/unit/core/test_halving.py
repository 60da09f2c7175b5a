"""Asynchronous halving: who goes on from where, in which words it is refused, and that a restart changes nothing."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest

from orchestrator.core.halving import Halving, milestones
from orchestrator.core.sweeps import Mode, Trial, TrialState


def halving(mode: Mode = "max", most: int = 81, known: tuple[Trial, ...] = ()) -> Halving:
    return Halving(mode, grace=1, reduction=3, most=most, known=known)


def course(of: Halving, number: int, value: Callable[[int], float], until: int = 81) -> tuple[int, str | None]:
    """Reports one after the other; the last one, and why the trial ended there."""
    for report in range(1, until + 1):
        if (why := of.hear(number, report, value(report))) is not None:
            of.end(number)
            return report, why
    if until == 81:
        of.end(number)
    return until, None


def test_trials_are_looked_at_in_rungs_and_halfway_between() -> None:
    assert milestones(1, 3, 81) == (1, 2, 3, 5, 9, 16, 27, 47)
    assert milestones(2, 4, 32) == (2, 4, 8, 16)
    assert milestones(5, 3, 5) == (5,)
    assert milestones(1, 2, 3) == (1, 2), "at its last report a trial ends by itself"


def test_of_many_alike_points_few_get_far_and_the_best_of_them_does() -> None:
    draw, race, reached = random.Random(0), halving(), {}
    for number in range(90):
        worth = draw.random()
        reached[worth] = course(race, number, lambda report, worth=worth: worth * (1 - 0.5 / report))[0]  # type: ignore[misc]
    assert reached[max(reached)] == 81
    assert sum(report > 9 for report in reached.values()) <= 15
    assert sum(report == 1 for report in reached.values()) >= 30


def test_a_better_one_that_began_later_ends_one_that_still_runs() -> None:
    race = halving()
    assert course(race, 0, lambda report: 0.5 + 0.001 * report, until=4) == (4, None)
    assert course(race, 1, lambda report: 0.7 + 0.001 * report, until=5) == (5, None)
    why = race.hear(0, 5, 0.505)
    assert why == "1 are ahead of it at report 5, and of 2 trials 1 may go on"


@pytest.mark.parametrize("mode", ["max", "min"])
def test_a_curve_that_is_flat_below_the_best_ends_though_nobody_is_ahead_of_it(mode: Mode) -> None:
    sign = 1 if mode == "max" else -1
    race = halving(mode)
    assert course(race, 0, lambda report: sign * 0.1 * math.log(report))[1] is None  # slow and steady: 0.44 at last
    report, why = course(race, 1, lambda report: sign * min(0.4, 0.3 * report))
    assert report == 9
    assert why == f"going on as since report 4 it would come to {sign * 0.4:g}, and {sign * 0.4394:g} is there"


def test_who_begins_slowly_is_not_taken_for_flat() -> None:
    race = halving()
    course(race, 0, lambda report: 0.5)
    for number in range(1, 40):  # there are many places
        race.hear(number, 1, 0.0)
        race.end(number)
    assert course(race, 99, lambda report: 0.5 if report < 9 else 0.5 + 0.1 * math.log(report / 8)) == (81, None)


def test_a_configuration_that_cannot_work_is_in_nobodys_way() -> None:
    race = halving()
    course(race, 0, lambda report: 0.9, until=40)
    race.end(0, infeasible=True)
    assert course(race, 1, lambda report: 0.5) == (81, None)
    assert race.hear(2, 1, math.nan) is None


def test_a_driver_started_again_decides_as_the_one_before_would_have() -> None:
    draw, race = random.Random(1), halving()
    curves = {number: [draw.random() * (1 - 0.5 / report) for report in range(1, 82)] for number in range(20)}
    known = []
    for number in range(19):
        report, why = course(race, number, lambda report, number=number: curves[number][report - 1])  # type: ignore[misc]
        state = TrialState.COMPLETED if why is None else TrialState.STOPPED
        known.append(Trial(number, {}, state, curve=tuple(enumerate(curves[number][:report], start=1))))
    again = halving(known=tuple(known))
    assert all(again.hear(each.number, report, value) is None for each in known for report, value in each.curve)
    assert course(again, 19, lambda report: curves[19][report - 1]) == course(
        race, 19, lambda report: curves[19][report - 1]
    )
