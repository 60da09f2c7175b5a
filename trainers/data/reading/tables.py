"""A source as tables: whole, or piece by piece where it is larger than memory.

    read_table("flights/*.parquet")          all rows, as one Arrow table
    for piece in fragments(source): ...      parts that can be read on their own, on any node
        for table in stream(piece): ...      at most a few tens of thousands of rows at a time

Arrays of more than one dimension (npz, safetensors, digits) are columns of fixed-shape tensors, images are columns of
encoded bytes with the name of their folder as `label`, and every line of a text file is a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa

from trainers.data.flights import FLIGHTS
from trainers.data.reading import formats
from trainers.data.reading.files import SOURCE, File, expand, is_directory, told
from trainers.data.reading.formats import Fragment
from trainers.errors import BadConfig

PACKAGED: Mapping[str, str] = {"sklearn": "sklearn://", "flights": FLIGHTS}
"""Kinds of sources that packages bring, and what their names begin with."""
TYPES: Mapping[str, pa.DataType] = {
    "number": pa.float64(),
    "integer": pa.int64(),
    "string": pa.string(),
    "boolean": pa.bool_(),
    "time": pa.timestamp("us"),
}
"""The types of a run file's `data.columns`, as Arrow's."""


def fragments(source: str, types: Mapping[str, str] | None = None) -> list[Fragment]:
    """The pieces of a source, in a fixed order. `types` gives columns of CSV and JSONL a type of `TYPES`.

    Raises BadConfig on what is missing, unknown, or not what its name says.
    """
    wanted = {name: TYPES[each] for name, each in (types or {}).items()}
    for packaged, beginning in PACKAGED.items():
        if source.startswith(beginning):
            return [Fragment(File(source, 0), packaged)]
    if "://" not in source.removeprefix("file://") and is_directory(source):
        if (Path(source.removeprefix("file://")) / "dataset_dict.json").is_file():
            raise BadConfig(
                SOURCE, source, f"holds several splits: name one of them, such as {source.rstrip('/')}/train"
            )
        if (files := formats.hugging_face_files(source)) is not None:
            return [piece for file in files for piece in formats.cut(file, "arrow", wanted)]
    files = expand(source)
    kinds = {formats.kind_of(file) for file in files}
    if None in kinds or len(kinds) != 1:
        strange = next((file.url for file in files if formats.kind_of(file) is None), files[0].url)
        told_kinds = ", ".join(sorted({suffix for suffixes in formats.SUFFIXES.values() for suffix in suffixes}))
        raise BadConfig(SOURCE, strange, f"a source has files of one kind, known by their names: {told_kinds}")
    (kind,) = kinds
    if kind == "image":
        return formats.image_fragments(files)
    if kind in ("csv", "json"):
        return formats.typed_fragments(files, kind, wanted)
    return [piece for file in files for piece in formats.cut(file, str(kind), wanted)]


def stream(piece: Fragment) -> Iterator[pa.Table]:
    """The rows of a fragment, in order. Raises BadConfig that names the file and, where it is known, the row."""
    with told(piece.file.url, "read"):
        for table in formats.READERS[piece.kind](piece):
            yield _plain(table)


def read_table(source: str, types: Mapping[str, str] | None = None) -> pa.Table:
    """All rows of a source in memory. Raises BadConfig."""
    tables = [table for piece in fragments(source, types) for table in stream(piece)]
    with told(source, "join"):
        return pa.concat_tables(tables, promote_options="permissive")


def _plain(table: pa.Table) -> pa.Table:
    """Encodings of the same values that files may choose freely give way to one."""
    columns = []
    for column in table.columns:
        kind = column.type
        if pa.types.is_dictionary(kind):
            column = column.cast(kind.value_type)
        if pa.types.is_large_string(column.type) or pa.types.is_string_view(column.type):
            column = column.cast(pa.string())
        elif pa.types.is_large_binary(column.type):
            column = column.cast(pa.binary())
        elif pa.types.is_decimal(column.type) or pa.types.is_float16(column.type):
            column = column.cast(pa.float64())
        elif pa.types.is_struct(column.type) and {"bytes", "path"} <= {field.name for field in column.type}:
            column = pa.chunked_array([chunk.field("bytes") for chunk in column.chunks], pa.binary())
        columns.append(column)
    return pa.table(columns, names=table.column_names)
