"""Summaries: what they keep, that they merge, and that bytes of a stranger are refused."""

from __future__ import annotations

import contextlib
import json
import math
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.drift.sketches import (
    EXTREMES,
    CategorySummary,
    Coded,
    NumberSummary,
    SketchError,
    TableSummary,
)


def summary(values: object) -> NumberSummary:
    made = NumberSummary()
    made.update(np.asarray(values, dtype=np.float64))
    return made


def test_numbers_are_summed_up_with_their_moments_range_and_gaps() -> None:
    values = np.random.default_rng(0).normal(1e6, 1.0, 20_000)
    made = summary([*values, math.nan, math.inf, -math.inf])
    assert (made.count, made.missing, made.infinite) == (20_000, 1, 2)
    assert made.mean == pytest.approx(values.mean(), rel=1e-12)
    assert made.deviation == pytest.approx(values.std(), rel=1e-6)
    assert (made.low, made.high) == (values.min(), values.max())


def test_ranks_are_within_the_rank_error_and_exact_while_few() -> None:
    values = np.random.default_rng(1).lognormal(size=100_000)
    made = summary(values)
    at = np.quantile(values, [0.01, 0.25, 0.5, 0.9, 0.999])
    exact = np.array([(values <= each).mean() for each in at])
    assert np.abs(made.ranks(at) - exact).max() <= 2 * made.rank_error
    few = summary(values[:100])
    assert few.rank_error == 0
    assert few.ranks(at) == pytest.approx([(values[:100] <= each).mean() for each in at])


def test_the_extremes_are_kept_exactly_through_batches_and_merges() -> None:
    values = np.random.default_rng(2).standard_t(2, size=9_000)
    whole = summary(values[:3_000])
    whole.update(values[3_000:6_000])
    whole.merge(summary(values[6_000:]))
    assert whole.lowest.tolist() == np.sort(values)[:EXTREMES].tolist()
    assert whole.highest.tolist() == np.sort(values)[-EXTREMES:].tolist()


def test_merged_parts_are_as_the_whole() -> None:
    values = np.random.default_rng(3).normal(5.0, 2.0, 30_000)
    merged = NumberSummary()
    for part in np.split(values, 10):
        merged.merge(summary(part))
    assert merged.count == 30_000
    assert merged.mean == pytest.approx(values.mean())
    assert merged.deviation == pytest.approx(values.std())
    at = np.array([3.0, 5.0, 8.0])
    assert merged.ranks(at) == pytest.approx([(values <= each).mean() for each in at], abs=2 * merged.rank_error)


def test_memory_does_not_grow_with_rows() -> None:
    small, large = TableSummary(), TableSummary()
    generator = np.random.default_rng(4)
    for table, batches in ((small, 10), (large, 300)):
        for _ in range(batches):
            ids = [f"user {number}" for number in generator.integers(0, 10**9, 1_000)]
            table.update({"number": generator.normal(size=1_000), "user": ids})
    assert len(large.to_bytes()) < 1.3 * len(small.to_bytes()) < 40_000


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from("abcdefghij"), max_size=200), st.integers(1, 5))
def test_a_frequent_category_is_counted_within_the_error(values: list[str], most: int) -> None:
    halves = [CategorySummary(most=most), CategorySummary(most=most)]
    for place, half in enumerate(halves):
        half.update(values[place::2])
    halves[0].merge(halves[1])
    made = halves[0]
    assert made.count == len(values)
    assert len(made.values) <= most
    for value in "abcdefghij":
        assert made.values.get(value, 0) <= values.count(value) <= made.values.get(value, 0) + made.error
    assert made.error * (most + 1) <= len(values)


def test_codes_texts_and_missing_values_are_one_to_a_category() -> None:
    coded, plain = CategorySummary(), CategorySummary()
    coded.update(Coded(np.array([0, 1, 1, -1]), ["x", "y"]))
    plain.update(np.array(["x", "y", "y", None], dtype=object))
    assert coded == plain
    plain.update([math.nan])  # type: ignore[list-item]
    assert plain.missing == 2


def test_a_code_without_a_word_is_refused() -> None:
    with pytest.raises(SketchError, match="code 2 is beyond the 2 words"):
        CategorySummary().update(Coded(np.array([2]), ["x", "y"]))


def test_a_column_that_is_not_in_a_batch_is_missing_in_it() -> None:
    table = TableSummary()
    table.update({"a": np.ones(3)})
    table.update({"b": ["x", "y"]})
    other = TableSummary()
    other.update({"c": np.ones(4)})
    table.merge(other)
    assert {name: (each.count, each.missing) for name, each in table.columns.items()} == {
        "a": (3, 6),
        "b": (2, 7),
        "c": (4, 5),
    }


def test_what_is_refused_changes_nothing() -> None:
    table = TableSummary()
    table.update({"a": np.ones(3), "b": np.ones(3)})
    before = table.to_bytes()
    with pytest.raises(SketchError, match="b has 2 rows, a 3"):
        table.update({"a": np.ones(3), "b": np.ones(2)})
    with pytest.raises(SketchError, match="b held numbers before and holds texts now"):
        table.update({"a": np.ones(1), "b": ["text"]})
    other = TableSummary()
    other.update({"b": ["text"], "a": np.ones(1)})
    with pytest.raises(SketchError, match="b is of kind number here and category there"):
        table.merge(other)
    assert table.to_bytes() == before


def test_bytes_go_and_come_back() -> None:
    table = TableSummary()
    table.update({"a": np.arange(5_000.0), "b": ["x", None] * 2_500, "empty": np.full(5_000, np.nan)})
    again = TableSummary.from_bytes(table.to_bytes())
    assert again.to_bytes() == table.to_bytes()
    again.merge(table)
    assert again.rows == 10_000


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_no_bytes_raise_anything_but_a_sketch_error(data: st.DataObject) -> None:
    table = TableSummary()
    table.update({"a": np.arange(50.0), "b": ["x"] * 50})
    good = table.to_bytes()
    place = data.draw(st.integers(0, len(good) - 1))
    bad = good[:place] + data.draw(st.binary(max_size=8)) + good[place + data.draw(st.integers(0, 8)) :]
    with contextlib.suppress(SketchError):
        TableSummary.from_bytes(bad)


@pytest.mark.parametrize(
    ("column", "facts"),
    [
        ("a", {"missing": "many"}),
        ("a", {"infinite": -1}),
        ("a", {"count": 0, "missing": None}),
        ("a", {"mean": "5"}),
        ("a", {"spread": -1.0}),
        ("a", {"extremes": [-16, 48]}),
        ("b", {"error": "none"}),
        ("b", {"missing": 0.5}),
        ("b", {"values": {"x": "50"}}),
        ("b", {"values": {"x": 60, "y": -10}}),
    ],
)
def test_counts_of_a_stranger_that_nobody_could_add_to_are_refused(column: str, facts: dict[str, object]) -> None:
    table = TableSummary()
    table.update({"a": np.arange(50.0), "b": ["x"] * 50})
    good = table.to_bytes()
    (length,) = struct.unpack_from("<I", good, 4)
    head = json.loads(good[8 : 8 + length])
    next(each for each in head["columns"] if each["name"] == column)["facts"] |= facts
    text = json.dumps(head).encode()
    with pytest.raises(SketchError):
        TableSummary.from_bytes(good[:4] + struct.pack("<I", len(text)) + text + good[8 + length :])
