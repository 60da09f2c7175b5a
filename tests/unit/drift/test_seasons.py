"""Windows judged against the same hour or day before, learned from live traffic."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from orchestrator.drift.batches import Batch
from orchestrator.drift.rows import Layout
from orchestrator.drift.seasons import LEAST_ROWS, Season, Seasons, season_of
from orchestrator.drift.sketches import REFERENCE_K, TableSummary
from orchestrator.drift.together import RowReference
from orchestrator.drift.verdicts import Policy
from orchestrator.drift.watch import Judged, Reference, Rules, Watch
from orchestrator.drift.watch_state import restored, saved, seasonal
from orchestrator.drift.windows import Cut, Window

HOUR, DAY = 3_600.0, 86_400.0
ROWS = 600  # of an hour
START = 10 * DAY


def rows(seed: int, hour: int, *, moved: float = 0.0, rows: int = ROWS) -> dict[str, Any]:
    """Nights are colder, and more of what is asked is asked in the evening."""
    generator = np.random.default_rng(seed)
    evening = 0.8 if hour >= 18 else 0.2
    return {
        "warmth": generator.normal(5.0 + 10.0 * (6 <= hour < 18), 2.0, rows) + moved,
        "size": generator.lognormal(1.0, 0.5, rows),
        "kind": np.where(generator.random(rows) < evening, "film", "news").tolist(),
    }


def reference() -> Reference:
    """Of days alone, as it may be trained: at noon."""
    made, table = rows(99, 12, rows=3_000), TableSummary(k=REFERENCE_K)
    table.update(made)
    layout = Layout(("warmth", "size", "kind"), {"kind": ("news", "film")})
    return Reference(1, table, rows=RowReference(layout, layout.coded(made, np.arange(1_200))))


REFERENCE = reference()


def feed(watched: Watch, day: int, hour: int, **changes: Any) -> list[Judged]:
    made = rows(100 * day + hour, hour, **changes)
    times = START + day * DAY + hour * HOUR + np.linspace(0.0, HOUR - 1, len(made["size"]))
    watched.rows(Batch(len(times), made, times), times[-1], times[-1])
    return watched.passed(times[-1] + 6 * HOUR)


def begin(season: Season = "hour", length_s: float = HOUR) -> Watch:
    return Watch.begin(REFERENCE, Rules(Cut("time", length_s=length_s), season=season), START)


def test_nights_are_drift_against_the_training_profile_and_none_against_nights() -> None:
    watched, told = begin(), []
    for day in range(5):
        told += [each.judgement for hour in (12, 20) for each in feed(watched, day, hour)]
    noons, nights = told[::2], told[1::2]
    assert {each.status for each in noons} == {"stable"}
    assert [each.status for each in nights[:2]] == ["suspected", "suspected"]
    assert {each.status for each in nights[2:]} == {"stable"}
    assert "against the training profile, for of this hour of the day 0 of 1,000 rows are known, from 0 of 2 days" in (
        nights[0].words
    )
    assert "600 of 1,000 rows are known, from 1 of 2 days" in nights[1].words
    assert nights[2].words.endswith("against the same hour of the day before: 1,200 rows of 2 days")
    assert nights[2].evidence["against"] == "against the same hour of the day before: 1,200 rows of 2 days"
    assert "p" in nights[2].evidence["together"][0]


def test_a_change_within_a_season_is_found_and_not_learned() -> None:
    watched = begin()
    for day in range(3):
        feed(watched, day, 20)
    judged = [feed(watched, day, 20, moved=3.0)[0].judgement for day in range(3, 7)]
    assert [each.status for each in judged] == ["suspected", "drift", "drift", "drift"]
    assert "warmth: median" in judged[-1].words
    assert watched.seasons.parts[20].table.rows == 2 * ROWS


def test_broken_windows_are_not_learned() -> None:
    watched = begin()

    def broken(day: int, change: Any) -> Judged:
        made = rows(day, 20)
        change(made)
        times = START + day * DAY + 20 * HOUR + np.linspace(0.0, HOUR - 1, ROWS)
        watched.rows(Batch(ROWS, made, times), times[-1], times[-1])
        (judged,) = watched.passed(times[-1] + HOUR)
        return judged

    def absurd(made: dict[str, Any]) -> None:
        made["size"][::100] = 1e12

    def lacking(made: dict[str, Any]) -> None:
        del made["size"]

    def empty(made: dict[str, Any]) -> None:
        made["size"] = np.full(ROWS, np.nan)

    for day, change in enumerate((absurd, lacking, empty)):
        broken(day, change)
    assert watched.seasons.parts == {}


def test_seasons_outlive_a_restart_and_what_they_hold_is_told_of_for_pictures() -> None:
    whole, broken = begin(), begin()
    expected, found = [], []
    for day in range(4):
        expected += feed(whole, day, 20)
        found += feed(broken, day, 20)
        broken = restored(json.loads(json.dumps(saved(broken))), REFERENCE, broken.rules)
    assert [each.judgement.status for each in found] == [each.judgement.status for each in expected]
    assert [each.judgement.evidence["against"] for each in found] == [
        each.judgement.evidence["against"] for each in expected
    ]
    assert [each.judgement.evidence["together"] for each in found] == [
        each.judgement.evidence["together"] for each in expected
    ]
    table = seasonal(saved(broken), broken.rules, START + 20 * HOUR)
    assert table is not None
    assert table.rows == 2 * ROWS
    assert seasonal(saved(broken), broken.rules, START + 12 * HOUR) is None


def test_one_day_however_full_is_not_how_days_are() -> None:
    watched = begin(length_s=HOUR / 4)
    times = START + 20 * HOUR + np.linspace(0.0, HOUR - 1, 4 * ROWS)
    watched.rows(Batch(4 * ROWS, rows(1, 20, rows=4 * ROWS), times), times[-1], times[-1])
    watched.passed(times[-1] + HOUR)
    part = watched.seasons.parts[20]
    assert (part.table.rows, part.cycles, part.full) == (4 * ROWS, 1, False)


@pytest.mark.parametrize(("season", "parts"), [("hour", 24), ("weekday", 7), ("hour_of_week", 168)])
def test_all_seasons_together_are_bounded(season: Season, parts: int) -> None:
    generator = np.random.default_rng(0)
    table, known = TableSummary(), TableSummary()
    made = {f"n{place}": generator.normal(size=5_000) for place in range(12)}
    made |= {f"c{place}": [str(each) for each in generator.integers(0, 3_000, 5_000)] for place in range(8)}  # type: ignore[misc]
    table.update(made)
    known.merge(table)
    seasons = Seasons(season)
    for week in range(3):
        seasons.learn(Window(START + week * 7 * DAY, START, table), known)
    (part,) = seasons.parts.values()
    assert part.full
    assert part.table.rows == 10_000 > LEAST_ROWS
    assert parts * len(json.dumps(part.state())) < 8 * 2**20


@pytest.mark.parametrize(("season", "number"), [("none", 0), ("hour", 13), ("weekday", 3), ("hour_of_week", 85)])
def test_seasons_are_counted_from_monday_midnight(season: Season, number: int) -> None:
    assert season_of(13 * HOUR, season) == number  # 1970-01-01 was a Thursday
    assert season_of(13 * HOUR - 2 * HOUR, season, 2 * HOUR) == number


def test_false_alarms_stay_below_their_rate_over_seasons() -> None:
    """Once each season is full nothing but chance decides."""
    policy, alarmed = Policy(alpha=0.2, persistence=1, least_effect=0.0, least_share=0.0), 0
    for seed in range(20):
        watched = Watch.begin(REFERENCE, Rules(Cut("time", length_s=HOUR), policy, season="hour"), START)
        told = []
        for day in range(4):
            for hour in (12, 20):
                made = rows(1_000 * seed + 10 * day + hour, hour)
                times = START + day * DAY + hour * HOUR + np.linspace(0.0, HOUR - 1, ROWS)
                watched.rows(Batch(ROWS, made, times), times[-1], times[-1])
                told += watched.passed(times[-1] + HOUR)
        alarmed += any("before" in each.judgement.words and each.judgement.status != "stable" for each in told)
    assert alarmed <= 9  # 4 are expected at most; more than 9 have a probability of 0.003
