"""A version that stands by serves again where live rows show that it is better, hardly ever where they do not."""

from __future__ import annotations

import random

import pytest

from orchestrator.core.recall import Paired, Policy, chance, judge, last_served, standing_by
from orchestrator.core.records import AliasMove

SURE = Policy(versions=4, rows=200, confidence=0.95)


def compared(before: float, after: float, seed: int, rows: int = 200) -> Paired:
    """The champion is right with probability `before`, the other with `after`, each row by itself."""
    generator = random.Random(seed)
    answers = [(generator.random() < before, generator.random() < after) for _ in range(rows)]
    gained = sum(other and not champion for champion, other in answers)
    return Paired(2, rows, gained, sum(champion and not other for champion, other in answers))


@pytest.mark.parametrize(("gained", "lost", "probability"), [(0, 0, 1.0), (1, 0, 0.5), (4, 1, 6 / 32), (10, 0, 2**-10)])
def test_chance_is_the_tail_of_fair_coins(gained: int, lost: int, probability: float) -> None:
    assert chance(Paired(2, 100, gained, lost)) == pytest.approx(probability)


def test_an_equal_version_is_recalled_as_rarely_as_was_asked_for() -> None:
    recalled = sum(judge(1, [compared(0.8, 0.8, seed)], SURE).version == 2 for seed in range(400))
    assert recalled <= 33  # 20 are expected at most; 33 are three deviations above that


def test_a_better_version_is_recalled_nearly_always_and_a_worse_one_never() -> None:
    assert sum(judge(1, [compared(0.7, 0.85, seed)], SURE).version == 2 for seed in range(100)) >= 90
    assert not any(judge(1, [compared(0.85, 0.7, seed)], SURE).version for seed in range(100))


def test_the_one_that_gains_most_serves_and_of_equals_the_newest() -> None:
    pairs = [Paired(2, 200, 30, 5), Paired(3, 200, 40, 5), Paired(4, 200, 40, 5), Paired(5, 200, 60, 50)]
    assert judge(1, pairs, SURE).version == 4


def test_words_tell_what_was_counted_and_how_likely_it_is() -> None:
    found = judge(7, [Paired(3, 1200, 10, 0)], SURE)
    assert (
        "version 3 serves in place of version 7: of the newest 1,200 labelled rows it alone had 10 right" in found.words
    )
    assert "the champion alone 0; of equals so many would be 0.00098 likely" in found.words
    assert judge(7, [Paired(3, 1200, 5, 5)], SURE).words == "version 7 stays: none of 1 that stand by is surely better"


def test_those_stand_by_that_served_last_and_a_new_one_has_its_turn() -> None:
    served = {1: 10.0, 2: 90.0, 3: 20.0, 4: 80.0, 5: 100.0}
    assert standing_by(4, served, SURE) == [5, 3, 2]
    assert standing_by(1, served, SURE) == [5, 4, 2]


def test_a_version_served_last_when_the_champion_moved_away_from_it_and_else_counts_from_its_making() -> None:
    moves = [moved(3, before=2, at=90.0), moved(2, before=1, at=80.0), moved(1, before=2, at=70.0)]
    assert last_served({1: 10.0, 2: 20.0, 3: 30.0}, moves) == {1: 80.0, 2: 90.0, 3: 30.0}
    assert last_served({1: 10.0}, moves) == {1: 80.0}, "a version that is no more does not stand by"


def moved(version: int, *, before: int, at: float) -> AliasMove:
    return AliasMove("default", "flights", 1, "champion", version, before, at, "ada", "by hand")


def test_more_gained_and_lost_than_there_were_rows_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="6 rows gained and 5 lost of 10"):
        Paired(2, 10, 6, 5)
