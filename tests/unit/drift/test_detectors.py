"""Detectors of concept drift: thresholds, delays, and false alarms on streams that stand still."""

from __future__ import annotations

import json

import numpy as np
import pytest

from orchestrator.drift.detectors import FalseAlarms, PageHinkley, adwin, hddm_a, threshold


def errors(seed: int, *rates: tuple[int, float]) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return np.concatenate([(generator.random(items) < rate).astype(float) for items, rate in rates])


def test_the_threshold_gives_the_run_length_that_was_asked_for() -> None:
    limit, generator = threshold(0.2, 0.2, 300.0), np.random.default_rng(0)
    lengths = []
    for _ in range(300):
        total, length = 0.0, 0
        while total <= limit:
            total = max(0.0, total + float(generator.random() < 0.2) - 0.3)
            length += 1
        lengths.append(length)
    assert np.mean(lengths) == pytest.approx(300.0, rel=0.25)


@pytest.mark.parametrize("rate", [0.01, 0.2, 0.5])
def test_rarer_false_alarms_ask_for_a_higher_threshold(rate: float) -> None:
    limits = [threshold(rate, 0.1, length) for length in (1e3, 1e5, 1e7)]
    assert limits == sorted(limits)
    assert limits[0] < limits[2]


@pytest.mark.parametrize("make", [PageHinkley, adwin, hddm_a])
def test_a_rise_is_told_with_its_beginning_and_both_rates(make: object) -> None:
    alarm = make().update(errors(3, (4_000, 0.1), (2_000, 0.4)))  # type: ignore[operator]
    assert alarm is not None
    assert 4_000 < alarm.item < 4_400
    assert alarm.before == pytest.approx(0.1, abs=0.03)
    assert "the error rate rose from" in alarm.words


def test_page_hinkley_knows_where_the_rise_began_and_to_what() -> None:
    alarms = [PageHinkley().update(errors(seed, (4_000, 0.1), (2_000, 0.4))) for seed in range(9)]
    told = [(alarm.since_item, alarm.after) for alarm in alarms if alarm is not None]
    assert len(told) == 9
    assert abs(np.median([since for since, _ in told]) - 4_000) < 60  # its last zero may lie a little before the rise
    assert 0.25 < np.median([after for _, after in told]) < 0.45


@pytest.mark.parametrize("make", [PageHinkley, adwin])
def test_falling_errors_raise_no_alarm(make: object) -> None:
    assert make().update(errors(5, (3_000, 0.4), (3_000, 0.1))) is None  # type: ignore[operator]


def test_streams_that_stand_still_raise_alarms_no_more_often_than_stated() -> None:
    often = FalseAlarms(probability=0.2, items=2_000)
    alarms = sum(PageHinkley(often).update(errors(seed, (2_000, 0.15))) is not None for seed in range(60))
    assert alarms <= 20  # 12 may be expected at most; more than 20 has a probability of 0.005


def test_a_reference_lets_it_judge_from_the_first_item() -> None:
    alarm = PageHinkley(items=5_000, errors=250.0).update(errors(6, (150, 0.5)))
    assert alarm is not None
    assert alarm.item < 100


def test_state_goes_through_json_and_goes_on() -> None:
    stream = errors(7, (3_000, 0.1), (2_000, 0.3))
    whole, first = PageHinkley(), PageHinkley()
    first.update(stream[:3_100])
    second = PageHinkley.from_state(json.loads(json.dumps(first.state())), first.alarms)
    assert second.update(stream[3_100:]) == whole.update(stream)


def test_losses_beyond_one_are_refused() -> None:
    with pytest.raises(ValueError, match="divide losses by their greatest value"):
        PageHinkley().update(np.array([0.5, 3.0]))


@pytest.mark.parametrize("wrong", [(0.0, 10), (1.0, 10), (0.1, 0)])
def test_a_probability_in_no_items_is_refused(wrong: tuple[float, int]) -> None:
    with pytest.raises(ValueError, match="a probability between 0 and 1"):
        FalseAlarms(*wrong)
