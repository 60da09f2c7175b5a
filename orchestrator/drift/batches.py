"""Live rows as they travel and are kept: an Arrow IPC stream with a column for each feature, and columns of ours.

    (request)      text       what a late label is joined by
    (time)         timestamp  or seconds since the epoch; default: when the server received the row
    (prediction)   anything   what the model answered
    (confidence)   number     how sure it was, 0 to 1
    (label)        anything   what was true

Features are named as in the profile; a column of vectors, lists of one length, holds embeddings. A batch of (request) and
(label) alone carries labels that became known later; with (prediction) beside them, and (confidence), they are joined
already. Answers and labels that are whole numbers, booleans or texts name classes and are read as texts; fractions are
numbers.

Bytes may come from a stranger. `check_batch` looks at every offset in them (Arrow's readers do not), so that nothing which
passed it can lead a later reader out of its buffers.

A batch of (request) and (prediction) alone, sent as `shadow`, is what a version that stands by would have answered.
"""

from __future__ import annotations

import contextlib
import struct
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.drift.arrow_messages import is_compressed
from orchestrator.drift.looks import looks
from orchestrator.drift.reference import CONFIDENCE, PREDICTION
from orchestrator.drift.rows import Vectors
from orchestrator.drift.sketches import Coded, Column, Floats

REQUEST, TIME, LABEL = "(request)", "(time)", "(label)"
OURS = (REQUEST, TIME, PREDICTION, CONFIDENCE, LABEL)

MOST_ROWS = 50_000
MOST_COLUMNS = 10_000
MOST_DIMENSIONS = 4_096
"""Of a vector."""
AHEAD_S = 86_400.0
"""A replica's clock may be so far ahead of the server's; a time beyond that is no time in seconds."""

Kind = Literal["rows", "labels", "shadow"]

_WHAT: Mapping[Kind, str] = {"rows": "rows", "labels": "labels", "shadow": "answers in shadow"}
_UNWRITABLE = (pa.ArrowException, TypeError, ValueError, OverflowError)


class BatchError(ValueError):
    """A batch that cannot be kept; says which column, what it holds and what it should hold."""


@dataclass(frozen=True)
class Batch:
    """Rows as the judges take them. `columns`: features, and what the model answered."""

    rows: int
    columns: Mapping[str, Column]
    times: Floats  # [rows], seconds since the epoch
    requests: list[str | None] | None = None  # [rows]
    labels: Column | None = None  # [rows]
    vectors: Mapping[str, Vectors] = field(default_factory=dict)  # [rows, dimensions]; NaN where a row has none


# ---- writing -------------------------------------------------------------------------------------------------------


def write_batch(columns: Mapping[str, Any]) -> bytes:
    """Columns of one length by name, each whatever `pyarrow.array` takes. A column of images, each an array [height, width]
    with channels first, last or none, in the units of the training data, goes as what they look like (`looks`). Raises
    BatchError.
    """
    arrays = {name: _written(name, values) for name, values in _without_images(columns).items()}
    try:
        batch = pa.record_batch(list(arrays.values()), names=[str(name) for name in arrays])
    except _UNWRITABLE as error:
        raise BatchError(f"these columns make no batch: {error}") from None
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    return bytes(sink.getvalue())


def _without_images(columns: Mapping[str, Any]) -> dict[str, Any]:
    """What images look like in the place of their pixels."""
    written: dict[str, Any] = {}
    for name, values in columns.items():
        if not _holds_images(values):
            written[name] = values
            continue
        try:
            seen = looks(values)
        except ValueError as error:
            raise BatchError(f"column {name}: {error}") from None
        if twice := seen.keys() & (written.keys() | columns.keys()):
            raise BatchError(f"column {name} holds images, and {min(twice)} is there already: send either")
        written |= seen
    return written


def _holds_images(values: Any) -> bool:
    dimensions: int = getattr(values, "ndim", 1)
    if dimensions > 1 or not isinstance(values, Sequence):
        return dimensions > 2
    first = next((each for each in values if each is not None), None)
    return getattr(first, "ndim", 0) >= 2


def _written(name: str, values: Any) -> Any:
    """Texts become dictionaries: few of them fill a column. Of a column that holds several types, texts are made."""
    array = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    if isinstance(array, np.ndarray) and array.ndim == 2:
        flat = pa.array(np.ascontiguousarray(array, dtype=np.float32).reshape(-1))
        return pa.FixedSizeListArray.from_arrays(flat, array.shape[1])
    if not isinstance(array, pa.Array):
        try:
            array = pa.array(array, from_pandas=True)
        except _UNWRITABLE:
            array = _of_several_types(name, array)
    if name != REQUEST and (pa.types.is_string(array.type) or pa.types.is_large_string(array.type)):
        return array.dictionary_encode()
    return array


def _of_several_types(name: str, values: Any) -> Any:
    plain = [each.item() if hasattr(each, "item") else each for each in values]
    with contextlib.suppress(*_UNWRITABLE):
        return pa.array(plain, from_pandas=True)
    try:
        return pa.array([None if each is None else str(each) for each in plain], pa.string())
    except _UNWRITABLE as error:
        raise BatchError(f"column {name} can be written neither as numbers nor as texts: {error}") from None


# ---- checking ------------------------------------------------------------------------------------------------------


def check_batch(data: bytes, kind: Kind, at: float) -> int:
    """The number of its rows, once all of it has been looked at. `at`: now. Raises BatchError."""
    if _compressed(data):
        raise BatchError("the batch is compressed: send it as it is, for nobody can tell how large it would become")
    table = _table(data)
    try:
        table.validate(full=True)
    except pa.ArrowException as error:
        raise BatchError(f"the batch is damaged: {error}") from None
    if not 0 < table.num_rows <= MOST_ROWS:
        raise BatchError(f"the batch has {table.num_rows:,} rows: send 1 to {MOST_ROWS:,}")
    _check_names(table.column_names, kind)
    for name in table.column_names:
        _check_column(name, table.column(name), at)
    if kind != "rows" and table.column(REQUEST).null_count:
        lacking = table.column(REQUEST).null_count
        raise BatchError(f"{lacking} {_WHAT[kind]} have no {REQUEST}: nothing can be joined to them")
    return int(table.num_rows)


def _compressed(data: bytes) -> bool:
    try:
        return is_compressed(data)
    except (pa.ArrowException, OSError, ValueError, KeyError, struct.error) as error:
        raise _no_stream(data, error) from None


def _table(data: bytes) -> Any:
    try:
        with pa.ipc.open_stream(data) as stream:
            table = stream.read_all()
        _ = table.column_names  # a name may be no UTF-8
        return table
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise _no_stream(data, error) from None


def _no_stream(data: bytes, error: Exception) -> BatchError:
    return BatchError(f"these {len(data):,} bytes are no Arrow IPC stream: {str(error) or type(error).__name__}")


def _check_names(names: list[str], kind: Kind) -> None:
    if len(names) > MOST_COLUMNS:
        raise BatchError(f"the batch has {len(names):,} columns: at most {MOST_COLUMNS:,} are taken")
    if len(set(names)) < len(names):
        ((twice, _),) = Counter(names).most_common(1)
        raise BatchError(f"column {twice} is there twice: name each once")
    strange = [name for name in names if name.startswith("(") and name.endswith(")") and name not in OURS]
    if strange:
        raise BatchError(f"column {strange[0]} is none of {', '.join(OURS)}: a feature has no parentheses around it")
    if kind != "rows":
        needed = LABEL if kind == "labels" else PREDICTION
        if lacking := {REQUEST, needed} - set(names):
            raise BatchError(
                f"{_WHAT[kind]} need the columns {REQUEST} and {needed}: {' and '.join(sorted(lacking))} lacks"
            )
        if extra := set(names) - set(OURS):
            raise BatchError(f"{_WHAT[kind]} came with the feature {min(extra)}: send features as rows")
    elif not set(names) - {REQUEST, TIME, LABEL}:
        raise BatchError(f"the rows have neither a feature nor a {PREDICTION}: there is nothing to watch")


def _check_column(name: str, column: Any, at: float) -> None:
    kind = column.type
    if name == REQUEST and not (_is_text(kind) or pa.types.is_integer(kind)):
        raise BatchError(f"{REQUEST} holds {kind}: texts are needed, or whole numbers")
    if _is_list(kind) and name not in OURS:
        _check_vectors(name, column)
    elif name == TIME:
        _check_times(column, at)
    elif name == CONFIDENCE:
        _check_confidence(column)
    elif not (_is_text(kind) or _is_number(kind) or pa.types.is_null(kind)):
        raise BatchError(
            f"column {name} holds {kind}: numbers, booleans or texts are needed; leave it out, or convert it"
        )


def _check_vectors(name: str, column: Any) -> None:
    lengths = pc.unique(pc.list_value_length(column.drop_null())).to_pylist()
    if not _is_number(column.type.value_type) or len(lengths) > 1 or pc.list_flatten(column).null_count:
        raise BatchError(
            f"column {name} holds {column.type}: vectors are lists of numbers, all of one length, none missing"
        )
    if lengths and not 2 <= lengths[0] <= MOST_DIMENSIONS:
        raise BatchError(f"column {name} holds vectors of {lengths[0]}: 2 to {MOST_DIMENSIONS:,} numbers are taken")


def _check_times(column: Any, at: float) -> None:
    if not (pa.types.is_timestamp(column.type) or _is_number(column.type) or pa.types.is_null(column.type)):
        raise BatchError(f"{TIME} holds {column.type}: timestamps are needed, or seconds since the epoch")
    times = _seconds(column)
    known = times[~np.isnan(times)]
    if len(known) and not (known.min() >= 0 and known.max() <= at + AHEAD_S):
        odd = float(known.max() if known.max() > at + AHEAD_S else known.min())
        raise BatchError(f"{TIME} holds {odd:.6g}: seconds since the epoch are needed, and it is {at:.0f} now")


def _check_confidence(column: Any) -> None:
    if not (_is_number(column.type) or pa.types.is_null(column.type)):
        raise BatchError(f"{CONFIDENCE} holds {column.type}: numbers from 0 to 1 are needed")
    values = _floats(column)
    known = values[~np.isnan(values)]
    if len(known) and not (known.min() >= 0 and known.max() <= 1):
        raise BatchError(f"{CONFIDENCE} goes from {known.min():.6g} to {known.max():.6g}: it must lie between 0 and 1")


def _is_text(kind: Any) -> bool:
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(value) or pa.types.is_large_string(value))


def _is_list(kind: Any) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _is_number(kind: Any) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


# ---- reading -------------------------------------------------------------------------------------------------------


def read_batch(data: bytes, at: float, categories: Container[str] = ()) -> Batch:
    """A batch that `check_batch` has passed. `at`: the time of rows that have none. `categories`: features that are read as
    texts whatever they were sent as. Raises BatchError for bytes of anything else.
    """
    table = _table(data)
    columns = {name: table.column(name) for name in table.column_names}
    times = _seconds(columns.pop(TIME)) if TIME in columns else np.full(table.num_rows, np.nan)
    requests = columns.pop(REQUEST).cast(pa.string()).to_pylist() if REQUEST in columns else None
    labels = _answers(columns.pop(LABEL)) if LABEL in columns else None
    vectors = {name: _vectors(columns.pop(name)) for name in list(columns) if _is_list(columns[name].type)}
    read = {
        name: _answers(column) if name == PREDICTION else _column(column, name in categories)
        for name, column in columns.items()
        if not pa.types.is_null(column.type)
    }
    return Batch(table.num_rows, read, np.where(np.isnan(times), at, times), requests, labels, vectors)


def _vectors(column: Any) -> Vectors:
    known = column.is_valid().to_numpy()
    numbers = np.array(pc.list_flatten(column).cast(pa.float32(), safe=False).to_numpy(), dtype=np.float32)
    vectors = np.full((len(column), len(numbers) // max(1, int(known.sum()))), np.nan, dtype=np.float32)
    vectors[known] = numbers.reshape(int(known.sum()), -1)
    return vectors


def _column(column: Any, as_texts: bool) -> Column:
    if _is_text(column.type) or as_texts:
        return _coded(column)
    return _floats(column)


def _answers(column: Any) -> Column:
    """Classes as texts; only fractions are numbers."""
    return _floats(column) if pa.types.is_floating(column.type) else _coded(column)


def _floats(column: Any) -> Floats:
    # A copy: Arrow's own memory is not to be written to, and sketches do not take such arrays.
    return np.array(column.cast(pa.float64(), safe=False).to_numpy(), dtype=np.float64)


def _coded(column: Any) -> Coded:
    if not pa.types.is_dictionary(column.type):
        column = column.cast(pa.string()).dictionary_encode()
    joined = column.unify_dictionaries().combine_chunks()
    if isinstance(joined, pa.ChunkedArray):  # of no rows
        joined = pa.array([], column.type)
    codes = joined.indices.cast(pa.int64()).fill_null(-1).to_numpy()
    return Coded(codes, joined.dictionary.to_pylist())


def _seconds(column: Any) -> Floats:
    if not pa.types.is_timestamp(column.type):
        return _floats(column)
    whole = pc.cast(column, pa.timestamp("us", column.type.tz), safe=False).cast(pa.int64())
    return _floats(whole) / 1e6
