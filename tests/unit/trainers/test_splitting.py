"""Splits: shares, strata, and that nothing leaks from one part to another."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from trainers.data.preparing.hashing import hash_rows
from trainers.data.preparing.splitting import assign, repeats

SHARES = (0.70, 0.15, 0.15)


def zeros(size: int) -> np.ndarray:
    return np.zeros(size, dtype=np.uint64)


def test_a_split_has_its_shares() -> None:
    parts = assign(np.random.default_rng(0).random(1000), zeros(1000), SHARES)
    assert np.bincount(parts).tolist() == [700, 150, 150]


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=80), st.sampled_from([SHARES, (0.5, 0.5, 0.0), (1.0, 0.0, 0.0)])
)
def test_rows_of_one_key_are_never_parted(keys: list[int], split: tuple[float, float, float]) -> None:
    parts = assign(np.array(keys, dtype=np.float64), zeros(len(keys)), split)
    assert all(len(set(parts[np.array(keys) == key])) <= 1 for key in set(keys))


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=80))
def test_parts_follow_the_order_of_the_keys(times: list[int]) -> None:
    keys = np.array(times, dtype=np.float64)
    parts = assign(keys, zeros(len(keys)), SHARES)
    ordered = parts[np.argsort(keys, kind="stable")]
    assert (np.diff(ordered.astype(int)) >= 0).all()


def test_every_stratum_is_split_by_the_same_shares() -> None:
    strata = np.repeat(np.array([7, 9, 11], dtype=np.uint64), [1000, 100, 20])
    parts = assign(np.random.default_rng(1).random(1120), strata, SHARES)
    for value, expected in ((7, [700, 150, 150]), (9, [70, 15, 15]), (11, [14, 3, 3])):
        assert np.bincount(parts[strata == value]).tolist() == expected


@given(st.permutations(range(40)))
def test_the_order_of_the_rows_does_not_matter(order: list[int]) -> None:
    keys = np.random.default_rng(2).random(40)
    assert (assign(keys[order], zeros(40), SHARES) == assign(keys, zeros(40), SHARES)[order]).all()


def test_only_later_copies_are_repeats() -> None:
    assert repeats(np.array([5, 3, 5, 5, 4], dtype=np.uint64)).tolist() == [False, False, True, True, False]


def test_rows_are_the_same_when_all_their_values_are() -> None:
    table = pa.table(
        {
            "n": [1.0, 1.0, None, float("nan"), -0.0, 0.0],
            "s": ["a", "b", None, None, "", ""],
            "b": [True, True, False, False, None, None],
            "i": pa.array([1, 1, 2, 2, 3, 3], pa.int16()),
        }
    )
    hashes = hash_rows(table, table.column_names)
    assert hashes[0] != hashes[1]
    assert hashes[2] == hashes[3]
    assert hashes[4] == hashes[5]
    assert (hash_rows(table, ["n", "s"]) != hash_rows(table, ["s", "n"]))[:2].all()
