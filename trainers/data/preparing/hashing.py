"""Hashes of rows by their content, the same in every process: for duplicates, splits and samples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from trainers.data.sampler import Unsigned, mix

_NULL = np.uint64(0xA5A5A5A5A5A5A5A5)


def hash_rows(table: pa.Table, columns: Sequence[str]) -> Unsigned:
    """One number [rows] a row. Rows get the same one when they hold the same values in `columns`."""
    total = np.zeros(table.num_rows, dtype=np.uint64)
    for place, name in enumerate(columns):
        total = mix(place + 1, total ^ hash_column(table[name]))
    return total


def hash_column(column: pa.ChunkedArray) -> Unsigned:
    """One number [rows] a value; nulls and NaN have one of their own."""
    array = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    if isinstance(array, pa.FixedShapeTensorArray):
        return _hash_bytes([row.tobytes() for row in array.to_numpy_ndarray()])
    if pa.types.is_string(array.type) or pa.types.is_binary(array.type):
        encoded = array.cast(pa.binary()).dictionary_encode()
        values = _hash_bytes([each.as_py() for each in encoded.dictionary])
        places = encoded.indices.fill_null(len(values)).to_numpy(zero_copy_only=False)
        strings: Unsigned = np.append(values, _NULL)[places]
        return strings
    numbers = array.cast(pa.timestamp("us")) if pa.types.is_date(array.type) else array
    numbers = numbers.cast(pa.int64()) if pa.types.is_timestamp(numbers.type) else numbers
    numbers = numbers.cast(pa.float64(), safe=False) if not pa.types.is_integer(numbers.type) else numbers
    missing = pc.is_null(numbers, nan_is_null=True).to_numpy(zero_copy_only=False)
    filled = numbers.fill_null(0).to_numpy(zero_copy_only=False)
    if filled.dtype.kind == "f":
        filled = filled.astype(np.float64) + 0.0  # one zero
        bits = filled.view(np.uint64)
    else:
        bits = filled.astype(np.int64).view(np.uint64) if filled.dtype != np.uint64 else filled
    hashed = mix(0, bits)
    hashed[missing] = _NULL
    return hashed


def _hash_bytes(values: Sequence[bytes]) -> Unsigned:
    return np.fromiter((xxhash.xxh3_64_intdigest(each) for each in values), dtype=np.uint64, count=len(values))
