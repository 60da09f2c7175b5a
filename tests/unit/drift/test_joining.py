"""Answers and late labels: bounded, and fair."""

from __future__ import annotations

import json

from orchestrator.drift.joining import MOST_EARLY, MOST_WAITING, Joined, Joining


def answered(joining: Joining, names: range, prefix: str = "r") -> list[Joined]:
    requests = [f"{prefix}{name}" for name in names]
    return list(joining.answered(requests, ["cat"] * len(requests), [0.9] * len(requests)))


def labelled(joining: Joining, names: range, prefix: str = "r") -> list[Joined]:
    requests = [f"{prefix}{name}" for name in names]
    return list(joining.labelled(requests, ["dog"] * len(requests)))


def test_a_label_finds_its_answer_and_an_answer_its_label() -> None:
    joining = Joining()
    assert answered(joining, range(3)) == []
    assert labelled(joining, range(2, 5)) == [Joined("cat", "dog", 0.9)]
    assert answered(joining, range(3, 4)) == [Joined("cat", "dog", 0.9)]
    assert (len(joining.waiting), joining.unknown) == (2, 1)


def test_a_second_label_is_one_of_an_unknown_request() -> None:
    joining = Joining()
    answered(joining, range(1))
    assert len(labelled(joining, range(1))) == 1
    assert labelled(joining, range(1)) == []
    assert joining.unknown == 1


def test_of_more_answers_than_can_wait_a_fair_sample_waits_however_late_labels_come() -> None:
    joining = Joining()
    many = 10 * MOST_WAITING
    for start in range(0, many, 10_000):
        answered(joining, range(start, start + 10_000))
    assert MOST_WAITING / 2.2 < len(joining.waiting) <= MOST_WAITING
    oldest, newest = (labelled(joining, part) for part in (range(20_000), range(many - 20_000, many)))
    assert 0.9 < len(oldest) / len(newest) < 1.1
    assert joining.unknown == 0, "a request outside of the sample is no unknown one"


def test_labels_of_unknown_requests_are_counted_and_bounded() -> None:
    joining = Joining()
    labelled(joining, range(3 * MOST_EARLY))
    assert (joining.unknown, len(joining.early)) == (3 * MOST_EARLY, MOST_EARLY)


def test_what_has_no_request_no_answer_or_no_label_joins_nothing() -> None:
    joining = Joining()
    assert list(joining.answered([None, "a"], ["cat", None], [None, None])) == []
    assert list(joining.labelled([None, "a"], ["cat", None])) == []
    assert (joining.waiting, joining.unknown) == ({}, 0)


def test_its_state_is_json_and_goes_on() -> None:
    joining = Joining()
    answered(joining, range(5))
    labelled(joining, range(7, 9))
    again = Joining.from_state(json.loads(json.dumps(joining.state())))
    assert again == joining
    assert len(labelled(again, range(5))) == 5
