"""All features at once, performance before labels come, and reading a version's profile."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from orchestrator.drift.estimation import Confidences, estimated_accuracy, estimated_drop, measured_drop
from orchestrator.drift.multivariate import classifier_test, empty, learn, mmd
from orchestrator.drift.reference import CONFIDENCE, PREDICTION, ProfileError, read_profile
from orchestrator.drift.tests import Evidence
from trainers.data.preparing.profile import FORMAT, category, number


def pairs(generator: np.random.Generator, rows: int, correlation: float) -> np.ndarray:
    return generator.multivariate_normal([0, 0, 0], [[1, correlation, 0], [correlation, 1, 0], [0, 0, 1]], rows)


def discrepancy(reference: np.ndarray, live: np.ndarray) -> Evidence:
    embedding = learn(reference, seed=1)
    halves = [empty(embedding), empty(embedding)]
    for half, rows in zip(halves, (live[::2], live[1::2]), strict=True):
        half.update(embedding, rows)
    halves[0].merge(halves[1])
    return mmd(embedding, halves[0])


def classified(reference: np.ndarray, live: np.ndarray) -> Evidence:
    return classifier_test(reference, live, seed=1)


@pytest.mark.parametrize("test", [discrepancy, classified])
def test_a_lost_correlation_is_seen_though_no_single_feature_moved(test: object) -> None:
    generator = np.random.default_rng(0)
    found = test(pairs(generator, 2_000, 0.8), pairs(generator, 1_000, 0.0))  # type: ignore[operator]
    assert found.p < 1e-4


@pytest.mark.parametrize("test", [discrepancy, classified])
def test_nothing_is_seen_where_nothing_moved(test: object) -> None:
    generator = np.random.default_rng(1)
    found = [test(pairs(generator, 800, 0.8), pairs(generator, 400, 0.8)).p for _ in range(20)]  # type: ignore[operator]
    assert sum(p < 0.05 for p in found) <= 4


@pytest.mark.parametrize("test", [discrepancy, classified])
def test_constant_and_missing_columns_are_taken(test: object) -> None:
    generator = np.random.default_rng(2)
    rows = pairs(generator, 600, 0.5)
    rows[:, 1], rows[:, 2] = 7.0, np.nan
    assert test(rows[:400], rows[400:]).p > 0.001  # type: ignore[operator]


def test_the_same_seed_gives_the_same_answer() -> None:
    rows = pairs(np.random.default_rng(3), 600, 0.5)
    assert classified(rows[:300], rows[300:]) == classified(rows[:300], rows[300:])


def confidences(generator: np.random.Generator, rows: int, hard: float, *, labels: bool) -> tuple[Confidences, float]:
    """Of a model that is right as often as it is confident, with a share of hard rows."""
    sure = np.where(generator.random(rows) < hard, generator.uniform(0.4, 0.6, rows), generator.uniform(0.9, 1.0, rows))
    right = generator.random(rows) < sure
    made = Confidences()
    made.update(sure, right if labels else None)
    return made, float(right.mean())


def test_accuracy_is_estimated_before_labels_come() -> None:
    generator = np.random.default_rng(4)
    reference, _ = confidences(generator, 5_000, 0.1, labels=True)
    window, truth = confidences(generator, 2_000, 0.5, labels=False)
    estimate = estimated_accuracy(reference, window)
    assert abs(estimate.accuracy - truth) < 4 * (estimate.error + np.sqrt(truth * (1 - truth) / 2_000))
    drop = estimated_drop(reference, window)
    assert drop.p < 1e-20
    assert drop.effect == pytest.approx(0.18, abs=0.03)


def test_no_drop_is_estimated_where_confidence_stays() -> None:
    generator = np.random.default_rng(5)
    reference, _ = confidences(generator, 5_000, 0.2, labels=True)
    drops = [estimated_drop(reference, confidences(generator, 500, 0.2, labels=False)[0]).p for _ in range(40)]
    assert sum(p < 0.05 for p in drops) <= 7


def test_labels_show_a_higher_error_rate() -> None:
    assert measured_drop(60, 300, 500, 5_000).p < 1e-5
    assert measured_drop(30, 300, 500, 5_000).p > 0.3


def profile() -> dict[str, object]:
    """Made by the very functions that training makes it with."""
    values = np.append(np.random.default_rng(6).normal(10.0, 2.0, 5_000), [np.nan] * 3)
    carriers = category(Counter({"UA": 3_000, "DL": 2_000, "AA": 3}), 0)
    return {
        "format": FORMAT,
        "rows": 5_003,
        "numbers": {"delay": number(values, k=800)},
        "categories": {"carrier": carriers},
        "predictions": {"part": "test", "rows": 5_003, "label": carriers, "confidence": number(values, k=350)},
    }


def test_a_versions_profile_is_a_reference() -> None:
    table = read_profile(profile())
    assert set(table.columns) == {"delay", "carrier", PREDICTION, CONFIDENCE}
    delay, carrier = table.columns["delay"], table.columns["carrier"]
    assert (delay.rows, delay.missing, carrier.rows) == (5_003, 3, 5_003)
    assert delay.deviation == pytest.approx(2.0, abs=0.1)  # type: ignore[union-attr]
    assert float(delay.ranks(np.array([10.0]))[0]) == pytest.approx(0.5, abs=0.03)  # type: ignore[union-attr]
    assert carrier.values == {"UA": 3_000, "DL": 2_000, "AA": 3}  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 1}, "format 1, 2 is needed"),
        ({"numbers": {"delay": {"count": 3}}}, "column delay cannot be read"),
        ({"numbers": {}, "categories": {}, "predictions": None}, "nothing to watch"),
    ],
)
def test_a_profile_that_is_none_is_refused_with_the_place(change: dict[str, object], words: str) -> None:
    with pytest.raises(ProfileError, match=words):
        read_profile({**profile(), **change})
