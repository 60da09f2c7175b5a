"""The page of a sweep: what must be on it, whatever became of the trials."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import pytest

from orchestrator.cli.sweep_page import Against, front_of, page
from orchestrator.core.sweeps import Stage, Sweep, Trial, TrialState

NASTY = '<script>alert("&")</script>'
SPACE: dict[str, Any] = {
    "train.lr": {"log": [1e-5, 1e-1]},
    "train.optimizer": {"choice": ["adamw", "sgd"]},
    "train.momentum": {"uniform": [0.0, 0.9], "when": {"train.optimizer": "sgd"}},
    "model.width": {"choice": [8, 16]},
}


def trial(number: int, *values: float, momentum: float | None = None, **facts: Any) -> Trial:
    point = {"train.lr": 10 ** -(1 + number % 4), "train.optimizer": "adamw", "model.width": 8 * (1 + number % 2)}
    if momentum is not None:
        point |= {"train.optimizer": "sgd", "train.momentum": momentum}
    curve = tuple(enumerate(values, start=1))
    return Trial(number, point, **{"state": TrialState.COMPLETED, "run_id": f"run-{number}", "curve": curve, **facts})


def sweep(*trials: Trial, **facts: Any) -> Sweep:
    known: dict[str, Any] = {
        "id": "s1",
        "project": "default",
        "name": "digits",
        "state": "SUCCEEDED",
        "reason": "",
        "metric": "val_accuracy",
        "mode": "max",
        "algorithm": "tpe",
        "scheduler": "asha",
        "wanted": 64,
        "space": SPACE,
    }
    return Sweep(**{**known, "trials": trials, **facts})


def pictures(text: str) -> list[ElementTree.Element]:
    """Each is XML by itself: what is not escaped in it would not parse."""
    return [ElementTree.fromstring(each) for each in re.findall(r"<svg.*?</svg>", text, re.DOTALL)]


def words(text: str) -> str:
    shown: list[str] = []
    parser = HTMLParser()
    parser.handle_data = shown.append  # type: ignore[method-assign]
    parser.feed(text)
    return " ".join(shown)


def section(text: str, heading: str) -> str:
    return next(part for part in text.split("<h2>") if part.startswith(heading))


def many(count: int = 24) -> list[Trial]:
    return [
        trial(
            number,
            *(0.1 + 0.02 * number for _ in range(1 + number % 5)),
            momentum=0.1 * (number % 9) if number % 3 else None,
            metrics={"val_loss": 1.0 / (1 + number)},
            seconds={"training": 10.0 + number},
            cost=0.25,
        )
        for number in range(count)
    ]


def test_the_best_trial_stands_at_the_top_and_leads_the_table() -> None:
    text = page(sweep(*many()))
    best = section(text, "Best trial")
    assert "run-23" in best
    assert "0.56" in best
    assert re.search(r"<tr class=best><td class=number>23</td>", section(text, "24 trials"))
    rows = re.findall(r"<tr(?: class=best)?><td class=number>(\d+)</td>", section(text, "24 trials"))
    assert [int(each) for each in rows] == list(range(23, -1, -1))


def test_less_is_better_where_the_sweep_says_so() -> None:
    assert "run-0" in section(page(sweep(*many(), mode="min")), "Best trial")


def test_every_trial_is_a_line_in_both_pictures_and_a_point_of_the_third() -> None:
    text = page(sweep(*many()))
    tags = [[each.tag for each in picture] for picture in pictures(text)]
    assert len(tags) == 4
    assert [each.count("polyline") for each in tags] == [24, 0, 24, 0]
    assert tags[3].count("circle") == 24


def test_importance_is_shown_for_conditional_parameters_too() -> None:
    shown = words(section(page(sweep(*many())), "Importance"))
    for path in SPACE:
        assert path in shown
    assert "among the 16 trials that have it" in shown


def test_a_parameter_that_does_not_count_for_a_trial_is_a_gap_and_no_number() -> None:
    text = page(sweep(trial(0, 0.5), trial(1, 0.6, momentum=0.3)))
    assert "does not count for that trial" in text
    lines = [each for each in pictures(text)[0] if each.tag == "polyline"]
    heights = [[float(pair.split(",")[1]) for pair in each.attrib["points"].split()] for each in lines]
    assert heights[0][2] > max(heights[1])
    assert "<td>-</td>" in section(text, "2 trials")


def test_names_and_reasons_of_users_are_text_and_no_markup() -> None:
    space = {**SPACE, NASTY: {"choice": ["a", NASTY]}}
    tried = [
        Trial(
            each.number, {**each.point, NASTY: NASTY}, each.state, curve=each.curve, reason=NASTY, metrics={NASTY: 1.0}
        )
        for each in many(12)
    ]
    text = page(sweep(*tried, name=NASTY, metric=NASTY, space=space, reason=NASTY), Against(NASTY))
    assert "<script" not in text
    assert pictures(text)
    assert NASTY in words(text)


def test_the_page_needs_nothing_from_elsewhere() -> None:
    text = page(sweep(*many()))
    assert not re.search(r"<(script|link|img|iframe)|https?://|@import|url\(", text)


def test_one_trial_is_enough_for_a_page() -> None:
    text = page(sweep(trial(0, 0.5)))
    assert "run-0" in section(text, "Best trial")
    assert "too few trials" in section(text, "Importance")
    assert len(pictures(text)) == 2, "no work is known, so there is no front"


def test_a_sweep_whose_trials_all_failed_says_why() -> None:
    failed = [trial(each, state=TrialState.INFEASIBLE, reason="model.width: not divisible") for each in range(4)]
    text = page(sweep(*failed, state="FAILED"))
    assert "No trial has a value of val_accuracy" in text
    assert "model.width: not divisible" in section(text, "Best trial")
    assert section(text, "4 trials").count("infeasible") == 4
    assert pictures(text) == []


def test_a_sweep_without_trials_has_a_page() -> None:
    assert "None yet" in page(sweep(state="QUEUED"))


def test_a_value_that_is_no_number_does_not_bend_the_pictures() -> None:
    text = page(sweep(trial(0, 0.5, float("inf"), 0.7), trial(1, 0.6)))
    assert "nan" not in text
    assert "inf," not in text


@pytest.mark.parametrize(
    ("mode", "other_mode", "expected"),
    [("max", "min", [0, 2, 3]), ("min", "min", [0, 4]), ("max", "max", [1, 3]), ("min", "max", [1, 4])],
)
def test_the_front_holds_whom_nobody_beats_in_both(mode: Any, other_mode: Any, expected: list[int]) -> None:
    given = {0: (0.5, 1.0), 1: (0.6, 9.0), 2: (0.7, 2.0), 3: (0.9, 8.0), 4: (0.2, 8.5)}
    both = [(trial(number), value, other) for number, (value, other) in given.items()]
    assert sorted(each.number for each in front_of(both, mode, other_mode)) == expected


def test_a_second_metric_that_nobody_reports_is_answered_with_those_that_exist() -> None:
    text = page(sweep(*many()), Against("val_los"))
    assert "They report val_loss" in text
    assert "trials 23." in section(page(sweep(*many()), Against("val_loss")), "Pareto")


def test_a_trial_that_went_on_from_another_says_so() -> None:
    stages = (Stage({}), Stage({}, "/runs/run-0/x", 3, 0))
    shown = page(sweep(trial(0, 0.5), trial(1, 0.2, 0.6, generation=1, stages=stages)))
    assert "generations" in words(shown)
    assert "from trial 0 at report 2" in words(shown)
    assert "generations" not in words(page(sweep(trial(0, 0.5))))
