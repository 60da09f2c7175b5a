"""Live rows as Arrow: what is taken, what is refused in words, and what the judges read."""

from __future__ import annotations

import datetime
import struct
from typing import Any

import numpy as np
import pandas
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.drift.batches import MOST_ROWS, BatchError, check_batch, read_batch, write_batch
from orchestrator.drift.sketches import Coded, TableSummary

NOW = 1.8e9


def stream(columns: dict[str, Any]) -> bytes:
    """As another writer than ours may send them."""
    table = pa.table(columns)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    return bytes(sink.getvalue())


def texts(column: Any) -> list[str | None]:
    assert isinstance(column, Coded)
    return [None if code < 0 else column.words[code] for code in column.codes]


ROWS: dict[str, Any] = {
    "age": [41, None, 7],
    "height": [1.5, 1.6, 1.7],
    "income": np.array([1.5, np.nan, -2.0]),
    "member": [True, False, None],
    "city": ["Oslo", None, "Oslo"],
    "(request)": ["a", "b", "c"],
    "(time)": [NOW - 2, None, NOW - 1],
    "(prediction)": [1, 0, 1],
    "(confidence)": [0.9, 0.5, None],
    "(label)": [None, 1, 0],
}


def test_rows_are_read_as_the_judges_take_them() -> None:
    data = write_batch(ROWS)
    assert check_batch(data, "rows", NOW) == 3
    batch = read_batch(data, NOW)

    assert batch.rows == 3
    np.testing.assert_array_equal(batch.columns["age"], [41, np.nan, 7])
    np.testing.assert_array_equal(batch.columns["income"], [1.5, np.nan, -2])
    np.testing.assert_array_equal(batch.columns["member"], [1, 0, np.nan])
    assert texts(batch.columns["city"]) == ["Oslo", None, "Oslo"]
    assert texts(batch.columns["(prediction)"]) == ["1", "0", "1"]
    np.testing.assert_array_equal(batch.times, [NOW - 2, NOW, NOW - 1])
    assert batch.requests == ["a", "b", "c"]
    assert texts(batch.labels) == [None, "1", "0"]
    table = TableSummary()
    table.update(batch.columns)
    assert (table.rows, table.columns["age"].missing, table.columns["city"].missing) == (3, 1, 1)


def test_a_category_that_was_sent_as_a_number_is_read_as_a_text() -> None:
    batch = read_batch(write_batch({"month": [1, 2, 1], "day": [1, 2, 3]}), NOW, categories={"month"})
    assert texts(batch.columns["month"]) == ["1", "2", "1"]
    assert isinstance(batch.columns["day"], np.ndarray)


def test_fractions_that_a_model_estimates_stay_numbers() -> None:
    batch = read_batch(write_batch({"(prediction)": [1.5, 2.5], "(label)": [1.0, None]}), NOW)
    np.testing.assert_array_equal(batch.columns["(prediction)"], [1.5, 2.5])
    np.testing.assert_array_equal(batch.labels, [1.0, np.nan])


@pytest.mark.parametrize(
    "values",
    [
        ["x", 1, None],
        [1, "x", None],
        [np.float32(1), 2, "y"],
        ["\x00", "ü", "🚂"],
        pandas.Series(["a", "b", None]),
        pandas.Series([1.0, np.nan, 2.0]),
        np.array([1, 2, 3], dtype=np.int8),
        np.array(["a", "b", "c"]),
        (True, False, True),
    ],
)
def test_whatever_a_program_holds_can_be_written(values: Any) -> None:
    data = write_batch({"x": values})
    assert check_batch(data, "rows", NOW) == 3
    assert set(read_batch(data, NOW).columns) == {"x"}


def test_what_is_no_column_is_refused_by_name() -> None:
    with pytest.raises(BatchError, match="these columns make no batch"):
        write_batch({"x": [1, 2], "y": [1]})


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([0.5, 1.5]), [0.5, 1.5]),
        (pa.array([1_700_000_000, None]), [1.7e9, NOW]),
        (pa.array([datetime.datetime(2023, 11, 14, 22, 13, 20, 500_000), None]), [1_700_000_000.5, NOW]),
        (pa.array([1_700_000_000_000, None], pa.timestamp("ms", "Europe/Oslo")), [1.7e9, NOW]),
        (pa.nulls(2), [NOW, NOW]),
    ],
)
def test_times_are_seconds_since_the_epoch_and_now_where_there_is_none(column: Any, expected: list[float]) -> None:
    data = stream({"x": [1, 2], "(time)": column})
    assert check_batch(data, "rows", NOW) == 2
    np.testing.assert_array_equal(read_batch(data, NOW).times, expected)


def test_batches_of_several_pieces_and_dictionaries_are_read_whole() -> None:
    pieces = pa.chunked_array([pa.array(words).dictionary_encode() for words in (["a", "b"], ["c", None, "a"])])
    data = stream({"x": pieces, "y": range(5)})
    assert check_batch(data, "rows", NOW) == 5
    batch = read_batch(data, NOW)
    assert texts(batch.columns["x"]) == ["a", "b", "c", None, "a"]
    np.testing.assert_array_equal(batch.columns["y"], range(5))


def test_a_column_of_nothing_is_left_to_be_counted_as_missing() -> None:
    batch = read_batch(write_batch({"x": [1, 2], "y": [None, None]}), NOW)
    assert set(batch.columns) == {"x"}


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"x": [{"a": 1.0}, {"a": 2.0}]}, r"column x holds struct<.*: numbers, booleans or texts are needed"),
        ({"x": [[1.0], [2.0]]}, r"column x holds vectors of 1: 2 to 4,096 numbers are taken"),
        ({"x": [[1.0, 2.0], [2.0]]}, "vectors are lists of numbers, all of one length, none missing"),
        ({"x": [[1.0, None], [2.0, 1.0]]}, "all of one length, none missing"),
        ({"x": [["a", "b"]]}, "vectors are lists of numbers"),
        ({"(prediction)": [[1.0, 2.0]]}, r"column \(prediction\) holds list"),
        ({"x": [1], "(time)": [1.8e12]}, r"\(time\) holds 1.8e\+12: seconds since the epoch are needed"),
        ({"x": [1], "(time)": [-1]}, r"\(time\) holds -1: seconds"),
        ({"x": [1], "(time)": [float("inf")]}, r"\(time\) holds inf"),
        ({"x": [1], "(time)": ["yesterday"]}, r"\(time\) holds string: timestamps are needed"),
        ({"x": [1, 2], "(confidence)": [0.5, 93.0]}, r"goes from 0.5 to 93: it must lie between 0 and 1"),
        ({"x": [1], "(confidence)": ["high"]}, "numbers from 0 to 1 are needed"),
        ({"x": [1], "(request)": [1.5]}, r"\(request\) holds double"),
        ({"x": [1], "(score)": [1]}, r"column \(score\) is none of \(request\), \(time\)"),
        ({"(request)": ["a"], "(time)": [1]}, "neither a feature nor a"),
        ({"x": []}, "has 0 rows: send 1 to 50,000"),
        ({"x": np.zeros(MOST_ROWS + 1)}, "has 50,001 rows"),
        ({f"x{n}": [1] for n in range(10_001)}, "has 10,001 columns"),
    ],
)
def test_rows_that_mean_nothing_are_refused_in_words(columns: dict[str, Any], words: str) -> None:
    with pytest.raises(BatchError, match=words):
        check_batch(stream(columns), "rows", NOW)


def test_a_name_that_is_there_twice_is_refused() -> None:
    batch = pa.record_batch([pa.array([1]), pa.array([2])], names=["x", "x"])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    with pytest.raises(BatchError, match="column x is there twice"):
        check_batch(bytes(sink.getvalue()), "rows", NOW)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"(request)": ["a"]}, r"\(label\) lacks"),
        ({"(request)": ["a", None], "(label)": [1, 2]}, r"1 labels have no \(request\)"),
        ({"(request)": ["a"], "(label)": [1], "age": [3]}, "came with the feature age"),
    ],
)
def test_labels_that_cannot_be_joined_are_refused(columns: dict[str, Any], words: str) -> None:
    with pytest.raises(BatchError, match=words):
        check_batch(stream(columns), "labels", NOW)


def test_labels_come_alone_or_with_what_was_answered() -> None:
    alone: dict[str, Any] = {"(request)": [7, 8], "(label)": [True, False]}
    for columns in (alone, {**alone, "(prediction)": [True, True], "(confidence)": [0.6, 0.7]}):
        data = stream(columns)
        assert check_batch(data, "labels", NOW) == 2
        assert read_batch(data, NOW).requests == ["7", "8"]
    assert texts(read_batch(data, NOW).columns["(prediction)"]) == ["true", "true"]


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
@pytest.mark.parametrize("words", [False, True])
def test_a_batch_that_could_become_any_size_is_refused_before_it_is_read(codec: str, words: bool) -> None:
    column = pa.array(["a" * 1_000] * 1_000).dictionary_encode() if words else pa.array(np.zeros(10**6))
    batch = pa.record_batch([column], names=["x"])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=pa.ipc.IpcWriteOptions(compression=codec)) as writer:
        writer.write_batch(batch)
    with pytest.raises(BatchError, match="the batch is compressed: send it as it is"):
        check_batch(bytes(sink.getvalue()), "rows", NOW)


WHOLE = write_batch(ROWS)


@pytest.mark.parametrize(
    "data", [b"", b"\x00" * 100, b"junk", WHOLE[:10], WHOLE[: len(WHOLE) // 2], b"\xff" * 8 + WHOLE]
)
def test_bytes_that_are_no_stream_are_refused(data: bytes) -> None:
    with pytest.raises(BatchError, match=r"no Arrow IPC stream|0 rows"):
        check_batch(data, "rows", NOW)


def test_an_offset_that_leads_out_of_the_buffers_is_found() -> None:
    data = stream({"x": ["abc", "de"]})
    damaged = data.replace(struct.pack("<3i", 0, 3, 5), struct.pack("<3i", 0, 3, 2**31 - 1))
    assert damaged != data
    with pytest.raises(BatchError, match="the batch is damaged"):
        check_batch(damaged, "rows", NOW)


@settings(max_examples=300, deadline=None)
@given(place=st.integers(0, len(WHOLE) - 1), value=st.integers(0, 255), more=st.integers(0, 3))
def test_a_damaged_stream_is_refused_or_read_and_never_anything_else(place: int, value: int, more: int) -> None:
    data = WHOLE[:place] + bytes([value]) * (more + 1) + WHOLE[place + more + 1 :]
    try:
        rows = check_batch(data, "rows", NOW)
    except BatchError:
        return
    assert read_batch(data, NOW).rows == rows
