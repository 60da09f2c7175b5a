"""Windows and verdicts: what is told, when, and that nothing is told where nothing moved."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from orchestrator.drift.sketches import REFERENCE_K, Column, TableSummary
from orchestrator.drift.tests import Evidence
from orchestrator.drift.verdicts import History, Policy, Severity, Status, Verdict, judge
from orchestrator.drift.windows import Cut, Window, Windows

POLICY = Policy()


def table(columns: dict[str, Column], k: int = REFERENCE_K) -> TableSummary:
    made = TableSummary(k=k)
    made.update(columns)
    return made


def usual(rows: int, seed: int = 0) -> dict[str, Column]:
    generator = np.random.default_rng(seed)
    words = np.array(["red", "green", "blue"], dtype=object)
    return {
        "height": generator.normal(170.0, 10.0, rows),
        "weight": generator.lognormal(4.0, 0.3, rows),
        "colour": words[generator.choice(3, rows, p=[0.6, 0.3, 0.1])],
    }


REFERENCE = table(usual(5_000, seed=99))


def run(windows: list[dict[str, Column]], policy: Policy = POLICY) -> list[Verdict]:
    history, verdicts = History(), []
    for place, columns in enumerate(windows):
        verdict, history = judge(REFERENCE, [Window(60.0 * place, 60.0 * place + 59, table(columns))], history, policy)
        verdicts.append(verdict)
    return verdicts


def moved(rows: int, seed: int) -> dict[str, Column]:
    columns = usual(rows, seed)
    return {**columns, "height": columns["height"] + 8.0}  # type: ignore[operator]


def test_what_stands_still_is_stable() -> None:
    verdicts = run([usual(500, seed) for seed in range(20)])
    assert {each.status for each in verdicts} == {Status.STABLE}
    assert {"ks", "psi", "wasserstein", "rank_sum"} <= {each.test for each in verdicts[0].evidence["height"]}


def test_drift_is_suspected_first_and_told_once_it_lasts_with_what_moved_and_since_when() -> None:
    verdicts = run([usual(500, 0), moved(500, 1), moved(500, 2)])
    assert [each.status for each in verdicts] == [Status.STABLE, Status.SUSPECTED, Status.DRIFT]
    finding = verdicts[2].findings[0]
    assert (finding.feature, finding.test, finding.severity) == ("height", "distribution", Severity.MAJOR)
    assert (finding.streak.windows, finding.streak.since) == (2, 60.0)
    assert "height: median 17" in verdicts[2].words
    assert "since 1970-01-01 00:01:00 UTC" in verdicts[2].words


def test_one_odd_window_is_no_drift() -> None:
    verdicts = run([usual(500, 0), moved(500, 1), usual(500, 2), moved(500, 3)])
    assert Status.DRIFT not in {each.status for each in verdicts}


def test_the_levels_of_all_windows_add_up_to_alpha() -> None:
    levels = [each.level for each in run([usual(300, seed) for seed in range(12)])]
    assert levels[0] > levels[1] > levels[11] > 0
    assert sum(levels) < POLICY.alpha
    assert sum(POLICY.alpha / (2.612375348685488 * t**1.5) for t in range(1, 200_000)) == pytest.approx(0.01, rel=0.002)


def test_a_poisoned_window_is_a_data_fault_and_no_drift() -> None:
    def poisoned(seed: int) -> dict[str, Column]:
        columns = usual(1_000, seed)
        columns["height"][::100] = 1e12  # type: ignore[index]
        return columns

    last = run([poisoned(0), poisoned(1)])[-1]
    assert last.status is Status.DATA_FAULT
    assert {(each.feature, each.test) for each in last.findings} == {("height", "range")}
    assert "1e+12" in last.words


def test_an_all_missing_feature_is_a_data_fault() -> None:
    last = run([{**usual(500, seed), "weight": np.full(500, np.nan)} for seed in (0, 1)])[-1]
    assert last.status is Status.DATA_FAULT
    assert "weight: missing in 100.0% of the rows, before in 0.0%" in last.words


def test_another_schema_is_a_data_fault_at_once() -> None:
    columns = usual(500, 0)
    del columns["weight"]
    columns["height"] = ["tall"] * 500
    columns["age"] = np.ones(500)
    (verdict,) = run([columns])
    assert verdict.status is Status.DATA_FAULT
    words = {each.words for each in verdict.findings}
    assert words == {
        "weight is no longer there",
        "height was a number and is a category now",
        "age is new: the model was not trained with it",
    }


def test_a_schema_that_is_broken_is_no_drift_whatever_lasts_beside_it() -> None:
    def renamed(seed: int) -> dict[str, Column]:
        columns = moved(500, seed)
        columns["Weight "] = columns.pop("weight")
        return columns

    last = run([renamed(0), renamed(1), renamed(2)])[-1]
    assert last.status is Status.DATA_FAULT
    assert "weight is no longer there: is it what comes as 'Weight ' now?" in last.words
    assert "height: median" in last.words
    assert [each.feature for each in last.findings if each.test == "schema"] == ["weight"]


def test_many_columns_that_went_are_told_in_one_breath() -> None:
    (verdict,) = run([{name.upper(): values for name, values in usual(500, 0).items()}])
    assert "3 columns are no longer there (colour, height, weight): colour is no longer there" in verdict.words
    assert verdict.words.count("no longer") == 2


def test_a_column_more_is_told_and_stops_nothing() -> None:
    (verdict,) = run([{**usual(500, 0), "age": np.ones(500)}])
    assert verdict.status is Status.STABLE
    assert [each.feature for each in verdict.findings] == ["age"]


def test_new_categories_are_drift() -> None:
    def purple(seed: int) -> dict[str, Column]:
        columns = usual(500, seed)
        columns["colour"][:50] = "purple"  # type: ignore[index]
        return columns

    last = run([purple(0), purple(1)])[-1]
    assert last.status is Status.DRIFT
    assert "have values that the reference has not: purple" in last.words


def test_a_tiny_change_is_not_told_however_many_rows_show_it() -> None:
    generator = np.random.default_rng(5)
    reference = table({"x": generator.normal(size=200_000)})
    live = Window(0.0, 1.0, table({"x": generator.normal(0.06, 1.0, 200_000)}))
    verdict, _ = judge(reference, [live], History(), POLICY)
    assert verdict.status is Status.STABLE
    assert min(each.p for each in verdict.evidence["x"]) < 1e-10


def test_too_few_rows_are_not_judged_and_none_are_blind() -> None:
    history = History(judged=3)
    few, after = judge(REFERENCE, [Window(0.0, 60.0, table(usual(50, 0)))], history, POLICY)
    none, _ = judge(REFERENCE, [Window(0.0, 60.0)], history, POLICY)
    assert (few.status, none.status) == (Status.TOO_FEW, Status.BLIND)
    assert after == history
    assert "50 rows, at least 200" in few.words
    assert "blind: no rows between" in none.words


def test_evidence_beside_the_features_joins_the_judgement() -> None:
    history, verdicts = History(), []
    for _ in range(2):
        window = Window(0.0, 1.0, table(usual(500, 0)))
        worse = {"performance": Evidence("performance", 0.12, 1e-9, 500, 5_000, detail="error rate 0.1 -> 0.22")}
        verdict, history = judge(REFERENCE, [window], history, POLICY, worse)
        verdicts.append(verdict)
    assert verdicts[-1].status is Status.DRIFT
    assert "error rate 0.1 -> 0.22" in verdicts[-1].words


def test_many_features_together_are_more_severe() -> None:
    def all_moved(seed: int) -> dict[str, Column]:
        columns = usual(2_000, seed)
        return {**columns, "height": columns["height"] + 3.5, "weight": columns["weight"] * 1.1}  # type: ignore[operator]

    last = run([all_moved(0), all_moved(1)], dataclasses.replace(POLICY, persistence=1))[-1]
    assert {each.severity for each in last.findings} == {Severity.MODERATE}
    assert last.severity is Severity.MAJOR


def test_longer_spans_find_what_no_single_window_shows() -> None:
    windows, history, statuses, alone = Windows(Cut(rows=300)), History(), [], []
    for place in range(8):
        columns = usual(300, place)
        columns["height"] = columns["height"] + 2.2  # type: ignore[operator]
        for _ in windows.add(columns, np.arange(300.0) + 300 * place):
            spans = windows.spans()
            verdict, history = judge(REFERENCE, spans, history, POLICY)
            statuses.append(verdict.status)
            alone.append(judge(REFERENCE, spans[:1], History(place), POLICY)[0].status)
    assert Status.DRIFT in statuses
    assert alone.count(Status.STABLE) > 5


def test_windows_end_after_their_rows_and_keep_their_times() -> None:
    windows = Windows(Cut(by="count", rows=400))
    ended = windows.add(usual(1_000), np.arange(1_000.0))
    assert [(each.rows, each.start, each.end) for each in ended] == [(400, 0.0, 399.0), (400, 400.0, 799.0)]
    assert windows.open[0].rows == 200


def test_windows_of_time_wait_for_late_rows_and_count_those_that_came_too_late() -> None:
    windows = Windows(Cut(by="time", length_s=60.0, late_s=30.0))
    assert windows.add({"x": np.ones(3)}, np.array([10.0, 70.0, 50.0])) == []
    assert windows.add({"x": np.ones(1)}, np.array([5.0])) == []
    (first,) = windows.add({"x": np.ones(1)}, np.array([95.0]))
    assert (first.rows, first.start, first.end) == (3, 0.0, 60.0)
    assert windows.add({"x": np.ones(2)}, np.array([20.0, 96.0])) == []
    assert windows.late == 1
    (second,) = windows.ended_by(130.0)
    assert second.rows == 3


@pytest.mark.parametrize("times", [[1.0], [1.0, math.nan, 2.0]])
def test_every_row_has_one_finite_time(times: list[float]) -> None:
    with pytest.raises(ValueError, match="every row has one finite time"):
        Windows(Cut()).add({"x": np.ones(3)}, np.array(times))


def test_what_the_newest_window_does_not_hold_is_not_seen_in_it_however_long_it_lasted_before() -> None:
    windows, history = Windows(Cut(rows=300)), History()
    for place in range(4):
        columns = moved(300, place)
        if place == 3:
            columns["height"] = np.full(300, math.nan)
        (_,) = windows.add(columns, np.arange(300.0) + 300 * place)
        verdict, history = judge(REFERENCE, windows.spans(), history, POLICY)
        told = {each.test for each in verdict.findings if each.feature == "height"}
        assert ("distribution" in told, "missing" in told) == (place < 3, place == 3)
