"""Who of a population goes on from whom."""

from __future__ import annotations

import random
from typing import Any

import pytest

from orchestrator.core.population import select
from orchestrator.core.sweeps import Trial, TrialState


def trial(number: int, *values: float, **changes: Any) -> Trial:
    curve = tuple(enumerate(values, 1))
    return Trial(number, {}, **{"state": TrialState.RUNNING, "curve": curve, "seal": f"seal-{number}", **changes})


def donor(trials: list[Trial], number: int, report: int = 2, mode: Any = "max", seed: int = 0) -> int | None:
    found = select(trials, number, report, mode, random.Random(seed)).donor
    return None if found is None else found.number


EIGHT = [trial(number, 0.1, number / 10) for number in range(8)]


@pytest.mark.parametrize("number", range(8))
def test_the_worst_quarter_goes_on_from_the_best_one(number: int) -> None:
    found = {donor(EIGHT, number, seed=seed) for seed in range(20)}
    assert found == ({6, 7} if number < 2 else {None})
    found = {donor(EIGHT, number, mode="min", seed=seed) for seed in range(20)}
    assert found == ({0, 1} if number > 5 else {None})


def test_a_head_start_is_no_merit() -> None:
    ahead = trial(2, 0.1, 0.2, 0.9, 0.9)
    trials = [trial(0, 0.5, 0.5), trial(1, 0.4, 0.4), ahead]
    assert donor(trials, 1) is None
    assert donor(trials, 2) == 0


def test_nobody_goes_on_from_who_has_ended_or_sealed_nothing_and_the_words_say_so() -> None:
    worst = trial(0, 0.1)
    for best in (trial(1, 0.9, state=TrialState.COMPLETED), trial(1, 0.9, seal=None)):
        selection = select([worst, best], 0, 1, "max", random.Random(0))
        assert selection.donor is None
        assert "no better trial of 2 still trains and has a checkpoint" in selection.words
    assert donor([worst, trial(1, 0.9, state=TrialState.INFEASIBLE)], 0, 1) is None
    assert donor([worst], 0, 1) is None
    over = trial(1, 0.5, 0.9)
    assert select([worst, over], 0, 1, "max", random.Random(0), last=2).donor is None
    assert select([worst, over], 0, 1, "max", random.Random(0), last=3).donor == over
    assert donor([worst, trial(2, 0.1)], 0, 1) is None, "nobody changes places with an equal"
    words = select([worst, trial(1, 0.9)], 0, 1, "max", random.Random(0)).words
    assert "it goes on from trial 1, which had 0.9" in words
