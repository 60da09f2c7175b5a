"""Answers in shadow are counted beside the champion's, whatever comes first, and not of rows that were learned from."""

from __future__ import annotations

import itertools

import pytest

from orchestrator.core.recall import Paired
from orchestrator.drift import shadows as module
from orchestrator.drift.shadows import Shadows

EVENTS = {
    "champion": lambda each: each.answered(1, ["a", "b", "c"], ["yes", "yes", "no"], 100.0),
    "shadow": lambda each: each.answered(2, ["c", "a", "b"], ["no", "yes", "no"], 101.0),
    "labels": lambda each: each.labelled(["b", "c", "a"], ["no", "yes", "yes"]),
}


@pytest.mark.parametrize("order", list(itertools.permutations(EVENTS)))
def test_each_request_counts_once_in_whatever_order_its_answers_and_its_label_come(order: tuple[str, ...]) -> None:
    shadows = Shadows(1, {2: 50.0})
    for name in (*order, *order):  # told twice, as replicas that lost the reply do
        EVENTS[name](shadows)
    assert shadows.rows == 3
    assert shadows.compared() == [Paired(2, rows=3, gained=1, lost=0)]  # both right on a, both wrong on c
    assert (shadows.rows, shadows.compared()) == (0, [])


def test_rows_that_a_version_may_have_learned_from_do_not_count_for_it() -> None:
    shadows = Shadows(1, {2: 100.0, 3: 100.5})
    for version in (1, 2, 3):
        shadows.answered(version, ["a"], ["yes"], 100.2)
    shadows.labelled(["a"], ["yes"])
    assert shadows.compared() == [Paired(2, 1, 0, 0)]


def test_a_version_that_does_not_stand_by_and_rows_without_an_answer_are_passed_over() -> None:
    shadows = Shadows(1, {2: 0.0})
    shadows.answered(1, ["a", None, "c"], ["yes", "yes", None], 1.0)
    shadows.answered(9, ["a"], ["no"], 1.0)
    shadows.labelled(["a", "c", None], ["yes", "no", "no"])
    assert (shadows.rows, shadows.compared()) == (0, [])


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_REQUESTS", 10)
    shadows, requests = Shadows(1, {2: 0.0}), [str(each) for each in range(30)]
    shadows.answered(1, requests, ["yes"] * 30, 1.0)
    shadows.answered(2, requests[20:], ["yes"] * 10, 1.0)
    shadows.labelled(requests[20:], ["yes"] * 10)
    assert shadows.rows == 10
    assert len(shadows._requests) == 10
