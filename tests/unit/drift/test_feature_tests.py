"""Tests of one feature, against scipy's on the same rows, and on streams where nothing has moved."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from orchestrator.drift import distributions
from orchestrator.drift.sketches import REFERENCE_K, CategorySummary, NumberSummary, Summary
from orchestrator.drift.tests import Evidence, deciding, describing


def number(values: object, k: int = 4_000) -> NumberSummary:
    made = NumberSummary(k=k)
    made.update(np.asarray(values, dtype=np.float64))
    return made


def category(values: list[str | None]) -> CategorySummary:
    made = CategorySummary()
    made.update(values)
    return made


def compared(reference: Summary, current: Summary) -> dict[str, Evidence]:
    return {each.test: each for each in (*deciding(reference, current), *describing(reference, current))}


@pytest.mark.parametrize("degrees", [1, 3, 9, 40])
@pytest.mark.parametrize("statistic", [0.01, 1.0, 12.0, 80.0, 400.0])
def test_the_chi_squared_tail_is_scipys(statistic: float, degrees: int) -> None:
    exact = stats.chi2.sf(statistic, degrees)
    assert distributions.chi_squared_tail(statistic, degrees) == pytest.approx(exact, rel=1e-10, abs=1e-15)


@pytest.mark.parametrize(("distance", "size"), [(0.01, 300), (0.05, 500), (0.1, 1_000), (0.2, 800)])
def test_the_kolmogorov_tail_is_scipys_limit(distance: float, size: int) -> None:
    limit = stats.kstwobign.sf(distance * math.sqrt(size))
    assert distributions.kolmogorov_tail(distance, size) == pytest.approx(limit, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("table", [(7, 500, 3, 9_000), (495, 500, 8_600, 9_000), (0, 10, 5, 10), (40, 60, 300, 600)])
def test_shares_are_compared_by_fishers_exact_test(table: tuple[int, int, int, int]) -> None:
    hits, rows, known, reference = table
    exact = stats.fisher_exact([[hits, rows - hits], [known, reference - known]], alternative="greater").pvalue
    assert distributions.more_often(*table) == pytest.approx(exact, rel=1e-9)


def test_many_hits_are_compared_by_the_normal_limit() -> None:
    near = distributions.more_often(2_100, 20_000, 2_000, 20_000)
    exact = stats.fisher_exact([[2_100, 17_900], [2_000, 18_000]], alternative="greater").pvalue
    assert near == pytest.approx(exact, rel=0.1)


def test_exceeding_the_maximum_is_as_likely_as_drawing_the_greatest() -> None:
    generator = np.random.default_rng(0)
    draws = generator.random((20_000, 30))
    often = ((draws[:, :10] > draws[:, 10:].max(axis=1, keepdims=True)).sum(axis=1) >= 2).mean()
    assert distributions.beyond_the_maximum(2, 10, 20) == pytest.approx(often, abs=0.01)


def test_effects_and_significance_are_near_scipys_on_the_rows_themselves() -> None:
    generator = np.random.default_rng(1)
    before, now = generator.normal(size=3_000), generator.normal(0.15, 1.1, 1_500)
    found = compared(number(before), number(now))
    ks, rank_sum = stats.ks_2samp(before, now), stats.mannwhitneyu(now, before)
    assert found["ks"].effect == pytest.approx(ks.statistic, abs=0.01)
    assert math.log(found["ks"].p) == pytest.approx(math.log(ks.pvalue), rel=0.2)
    assert found["rank_sum"].effect == pytest.approx(2 * rank_sum.statistic / (3_000 * 1_500) - 1, abs=0.01)
    assert math.log(found["rank_sum"].p) == pytest.approx(math.log(rank_sum.pvalue), rel=0.05)
    unit = (np.quantile(before, 0.75) - np.quantile(before, 0.25)) / 1.349
    assert found["wasserstein"].effect == pytest.approx(stats.wasserstein_distance(before, now) / unit, rel=0.15)


def test_categories_are_compared_by_chi_squared() -> None:
    before, now = ["a"] * 500 + ["b"] * 300 + ["c"] * 200, ["a"] * 210 + ["b"] * 190 + ["c"] * 100
    exact = stats.chi2_contingency([[500, 300, 200], [210, 190, 100]], correction=False)
    found = compared(category([*before]), category([*now]))
    assert found["chi_squared"].p == pytest.approx(exact.pvalue)
    by_hand = (0.42 - 0.5) * math.log(0.42 / 0.5) + (0.38 - 0.3) * math.log(0.38 / 0.3)
    assert found["psi"].effect == pytest.approx(by_hand, rel=0.02)


def test_one_row_of_what_is_rare_does_not_outweigh_all_others_and_many_rows_of_it_show() -> None:
    words = [f"w{place}" for place in range(20)]
    before = category([word for word in words for _ in range(2_500)] + ["rare"])
    one = category([*[word for word in words for _ in range(25)][1:], "rare"])
    assert compared(before, one)["chi_squared"].p > 0.01
    many = category([word for word in words for _ in range(24)] + ["rare"] * 20)
    assert compared(before, many)["chi_squared"].p < 1e-20
    of_two = compared(category(["a"] * 50_000 + ["rare"] * 5), category(["a"] * 470 + ["rare"] * 30))["chi_squared"]
    assert of_two.p < 1e-20
    assert of_two.effect == pytest.approx(0.06, abs=0.001)


def test_categories_with_rare_ones_raise_no_more_alarms_than_they_say_where_nothing_moved() -> None:
    generator, rounds = np.random.default_rng(5), 1_000
    shares = np.append(np.full(20, 0.049995), 0.0001)
    names = [f"w{place}" for place in range(len(shares))]

    def drawn(rows: int) -> Any:
        times = generator.multinomial(rows, shares)
        return category([name for name, count in zip(names, times, strict=True) for _ in range(count)])

    reference = drawn(50_000)
    found = np.array([compared(reference, drawn(500))["chi_squared"].p for _ in range(rounds)])
    for level in (0.05, 0.001):
        assert (found <= level).sum() <= stats.binom.ppf(0.9999, rounds, level)


def test_small_p_values_are_no_more_frequent_than_they_say_where_nothing_moved() -> None:
    generator, rounds = np.random.default_rng(2), 300
    small: dict[str, int] = {}
    for _ in range(rounds):
        reference, current = (number(generator.normal(size=rows), k) for rows, k in ((4_000, REFERENCE_K), (500, 350)))
        for name, each in compared(reference, current).items():
            small[name] = small.get(name, 0) + (each.p <= 0.05)
    allowed = stats.binom.ppf(0.9999, rounds, 0.05)
    assert {name: times for name, times in small.items() if times > allowed} == {}
    assert small["rank_sum"] > 0


def test_a_large_sample_alone_is_no_effect() -> None:
    generator = np.random.default_rng(3)
    sketches = [number(generator.normal(size=500_000), 350) for _ in range(2)]
    assert compared(*sketches)["ks"].p > 0.05


@pytest.mark.parametrize(("constant", "p"), [(5.0, 1.0), (6.0, 0.0)])
def test_a_constant_feature_stays_or_moves(constant: float, p: float) -> None:
    found = compared(number(np.full(1_000, 5.0)), number(np.full(500, constant)))
    assert found["ks"].p == pytest.approx(p, abs=1e-9)
    assert found["ks"].effect == 1.0 - p


def test_an_all_missing_feature_shows_in_the_missing_rate_alone() -> None:
    (only,) = compared(number(np.arange(1_000.0)), number(np.full(300, np.nan))).values()
    assert only.test == "missing"
    assert only.effect == 1.0
    assert only.p < 1e-100


def test_absurd_values_show_in_the_range_and_move_no_distribution() -> None:
    generator = np.random.default_rng(4)
    live = generator.normal(size=1_000)
    live[::100] = 1e30
    found = compared(number(generator.normal(size=5_000)), number(live))
    assert found["range"].p < 1e-5
    assert found["range"].effect == pytest.approx(0.01, abs=0.002)
    assert min(found["ks"].p, found["rank_sum"].p) > 0.01
    assert found["wasserstein"].effect < 0.2


def test_infinite_numbers_are_out_of_range() -> None:
    live = np.arange(1_000.0)
    live[:20] = np.inf
    found = compared(number(np.arange(1_000.0)), number(live))["range"]
    assert found.p < 1e-4
    assert "20 of them infinite" in found.detail


def test_new_categories_are_named_and_rare_old_ones_are_none() -> None:
    before: list[str | None] = [*(["a"] * 900), *(["b"] * 90), *(f"rare {each}" for each in range(10))]
    found = compared(category(before), category(["a"] * 280 + ["new"] * 20))["new_categories"]
    assert found.p < 1e-6
    assert found.detail == "new"
    assert compared(category(before), category(["a"] * 297 + ["rare x"] * 3))["new_categories"].p > 0.05


def test_summaries_of_two_kinds_are_not_compared() -> None:
    assert compared(number([1.0]), category(["a"])) == {}
