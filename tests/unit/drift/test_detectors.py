"""Detectors of concept drift: thresholds, delays, and false alarms on streams that stand still."""

from __future__ import annotations

import json

import numpy as np
import pytest
from river import drift

from orchestrator.drift.bounds import Adwin, HddmA
from orchestrator.drift.concept import Concept, begun, resumed
from orchestrator.drift.detectors import FalseAlarms, PageHinkley, threshold


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


@pytest.mark.parametrize("make", [PageHinkley, Adwin, HddmA])
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


@pytest.mark.parametrize("make", [PageHinkley, Adwin])
def test_falling_errors_raise_no_alarm(make: object) -> None:
    assert make().update(errors(5, (3_000, 0.4), (3_000, 0.1))) is None  # type: ignore[operator]


def test_streams_that_stand_still_raise_alarms_no_more_often_than_stated() -> None:
    often = FalseAlarms(probability=0.2, items=2_000)
    alarms = sum(PageHinkley(often).update(errors(seed, (2_000, 0.15))) is not None for seed in range(60))
    assert alarms <= 20  # 12 may be expected at most; more than 20 has a probability of 0.005


@pytest.mark.parametrize(("shift", "rate"), [(None, 1.0), (0.5, 0.8)])
def test_a_model_that_errs_so_often_that_no_rise_is_possible_is_watched_on(shift: float | None, rate: float) -> None:
    detector = PageHinkley(items=1000, errors=1000 * rate, shift=shift)
    assert detector.update(np.ones(300)) is None
    assert detector.seen == 300


def test_a_reference_lets_it_judge_from_the_first_item() -> None:
    alarm = PageHinkley(items=5_000, errors=250.0).update(errors(6, (150, 0.5)))
    assert alarm is not None
    assert alarm.item < 100


@pytest.mark.parametrize("concept", ["page_hinkley", "adwin", "hddm_a"])
def test_state_goes_through_json_and_goes_on(concept: Concept) -> None:
    stream = errors(7, (3_000, 0.1), (2_000, 0.3))
    whole, first = begun(concept, FalseAlarms(), None), begun(concept, FalseAlarms(), None)
    first.update(stream[:3_100])
    second = resumed(concept, json.loads(json.dumps(first.state())), FalseAlarms(), None)
    assert second.update(stream[3_100:]) == whole.update(stream)


def test_adwin_remembers_a_stream_in_the_logarithm_of_its_items() -> None:
    detector = Adwin()
    assert detector.update(errors(8, (20_000, 0.2))) is None
    assert detector.width == 20_000
    assert sum(map(len, detector.levels)) <= 6 * 15


@pytest.mark.parametrize(("ours", "river"), [(Adwin, "ADWIN"), (HddmA, "HDDMA")])
def test_alarms_come_where_rivers_do(ours: type[Adwin] | type[HddmA], river: str) -> None:
    """River's, as it is installed for the benchmarks, at the same confidence."""
    known = FalseAlarms()
    for seed in range(6):
        stream = errors(seed, (2_000, 0.1), (1_500, 0.25))
        peer = drift.ADWIN(delta=0.01) if river == "ADWIN" else drift.binary.HDDMA(drift_confidence=0.01 / 10_000**0.75)
        raised = None
        for place, value in enumerate(stream, 1):
            peer.update(bool(value) if river == "HDDMA" else value)
            if peer.drift_detected:
                raised = place
                break
        alarm = ours(known).update(stream)
        assert alarm is not None
        assert alarm.item == raised


def test_losses_beyond_one_are_refused() -> None:
    with pytest.raises(ValueError, match="divide losses by their greatest value"):
        PageHinkley().update(np.array([0.5, 3.0]))


@pytest.mark.parametrize("wrong", [(0.0, 10), (1.0, 10), (0.1, 0)])
def test_a_probability_in_no_items_is_refused(wrong: tuple[float, int]) -> None:
    with pytest.raises(ValueError, match="a probability between 0 and 1"):
        FalseAlarms(*wrong)
