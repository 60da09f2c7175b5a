"""How each kind of file becomes Arrow tables, a piece at a time."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet
from safetensors import SafetensorError, safe_open

from trainers.data.flights import read_flights
from trainers.data.reading.files import SOURCE, File, opened, told
from trainers.errors import BadConfig

SUFFIXES: Mapping[str, tuple[str, ...]] = {
    "parquet": (".parquet", ".pq"),
    "csv": (".csv", ".tsv"),
    "json": (".jsonl", ".ndjson"),
    "text": (".txt",),
    "numpy": (".npz",),
    "safetensors": (".safetensors",),
    "arrow": (".arrow", ".feather", ".ipc"),
    "image": (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"),
}
_BLOCK_BYTES = 16 * 2**20  # of CSV, JSONL and text at a time
_ARRAY_BYTES = 32 * 2**20  # of arrays at a time
_ARRAY_ROWS = 16_384  # of arrays in a piece
_IMAGES = 256  # in a piece
_DECODED_IMAGES = 32  # at a time
_ARROW_FILE = b"ARROW1"


@dataclass(frozen=True)
class Fragment:
    """A piece of a source that can be read on its own."""

    file: File
    kind: str
    part: int | None = None  # a row group, or where a piece of arrays begins
    first_row: int = 0  # of the piece within its file
    schema: pa.Schema | None = None  # of all files of a source whose own types are guesses
    images: tuple[File, ...] = ()


def kind_of(file: File) -> str | None:
    return next((kind for kind, suffixes in SUFFIXES.items() if file.suffix in suffixes), None)


def cut(file: File, kind: str, types: Mapping[str, pa.DataType]) -> list[Fragment]:
    """A file in pieces: by row group, by rows of its arrays, or whole where it can be streamed only from its start."""
    if kind == "parquet":
        with opened(file) as stream:
            data = pa.parquet.ParquetFile(stream).metadata
            lengths = [data.row_group(number).num_rows for number in range(data.num_row_groups)]
        starts = np.cumsum([0, *lengths]).tolist()
        return [Fragment(file, kind, number, starts[number]) for number in range(len(lengths))]
    if kind == "safetensors":
        with told(file.url, "read"):
            length = _length(_arrays_of(file, kind), file)
        return [Fragment(file, kind, start, start) for start in range(0, length, _ARRAY_ROWS)]
    return [Fragment(file, kind)]


def typed_fragments(files: Sequence[File], kind: str, types: Mapping[str, pa.DataType]) -> list[Fragment]:
    """CSV and JSONL say nothing of types: they are those of the first blocks of all files, unless `types` says so."""
    schemas = []
    for file in files:
        with told(file.url, "read"):
            first = next(iter(_typed_batches(Fragment(file, kind, schema=pa.schema(list(types.items()))))), None)
        if first is not None:
            schemas.append(first.schema)
    if not schemas:
        raise BadConfig(SOURCE, files[0].url, "holds no rows")
    with told(files[0].url, "join"):
        joined = pa.unify_schemas(schemas, promote_options="permissive")
    fields = [pa.field(each.name, pa.string() if pa.types.is_null(each.type) else each.type) for each in joined]
    return [Fragment(file, kind, schema=pa.schema(fields)) for file in files]


def image_fragments(files: Sequence[File]) -> list[Fragment]:
    return [
        Fragment(files[start], "image", part=start, images=tuple(files[start : start + _IMAGES]))
        for start in range(0, len(files), _IMAGES)
    ]


def hugging_face_files(source: str) -> list[File] | None:
    """The Arrow files of a data set that `datasets` saved to a directory; None when it is none. Raises BadConfig."""
    root = Path(source.removeprefix("file://")).expanduser().absolute()
    state = root / "state.json"
    if not state.is_file() or not (root / "dataset_info.json").is_file():
        return None
    try:
        names = [root / each["filename"] for each in json.loads(state.read_text())["_data_files"]]
        return [File(str(name), name.stat().st_size) for name in names]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadConfig(SOURCE, str(state), f"does not name the files of a data set: {error!r}") from error


def _parquet(piece: Fragment) -> Iterator[pa.Table]:
    with opened(piece.file) as stream:
        file = pa.parquet.ParquetFile(stream)
        for batch in file.iter_batches(row_groups=[piece.part]):
            yield pa.Table.from_batches([batch])


def _typed(piece: Fragment) -> Iterator[pa.Table]:
    for batch in _typed_batches(piece):
        yield pa.Table.from_batches([batch])


def _typed_batches(piece: Fragment) -> Iterator[pa.RecordBatch]:
    known = piece.schema if piece.schema is not None else pa.schema([])
    with opened(piece.file) as stream:
        if piece.kind == "csv":
            yield from pa.csv.open_csv(
                stream,
                read_options=pa.csv.ReadOptions(block_size=_BLOCK_BYTES, use_threads=False),
                parse_options=pa.csv.ParseOptions(delimiter="\t" if piece.file.suffix == ".tsv" else ","),
                convert_options=pa.csv.ConvertOptions(column_types=known, strings_can_be_null=True),
            )
        else:
            yield from pa.json.open_json(
                stream,
                read_options=pa.json.ReadOptions(block_size=_BLOCK_BYTES, use_threads=False),
                parse_options=pa.json.ParseOptions(explicit_schema=known),
            )


def _text(piece: Fragment) -> Iterator[pa.Table]:
    row, rest = 0, b""
    with opened(piece.file) as stream:
        while block := stream.read(_BLOCK_BYTES):
            *lines, rest = (rest + block).split(b"\n")
            yield _lines(piece, lines, row)
            row += len(lines)
        if rest:
            yield _lines(piece, [rest], row)


def _lines(piece: Fragment, lines: Sequence[bytes], first_row: int) -> pa.Table:
    texts = []
    for number, line in enumerate(lines, first_row):
        try:
            texts.append(line.rstrip(b"\r").decode())
        except UnicodeDecodeError as error:
            raise BadConfig(SOURCE, piece.file.url, f"row {number}: must be UTF-8: {error}") from error
    return pa.table({"text": pa.array(texts, pa.string())})


def _arrow(piece: Fragment) -> Iterator[pa.Table]:
    with opened(piece.file) as stream:
        begins = stream.read(len(_ARROW_FILE))
        stream.seek(0)
        if begins == _ARROW_FILE:
            file = pa.ipc.open_file(stream)
            batches: Iterator[pa.RecordBatch] = (file.get_batch(each) for each in range(file.num_record_batches))
        else:
            batches = iter(pa.ipc.open_stream(stream))
        for batch in batches:
            yield pa.Table.from_batches([batch])


def _arrays(piece: Fragment) -> Iterator[pa.Table]:
    """A compressed archive can only be read whole; safetensors are mapped into memory and read piece by piece."""
    arrays = _arrays_of(piece.file, piece.kind)
    length = _length(arrays, piece.file)
    first, last = (0, length) if piece.part is None else (piece.part, min(piece.part + _ARRAY_ROWS, length))
    row_bytes = sum(array[:1].nbytes for array in arrays.values()) if length else 1
    rows = max(1, min(_ARRAY_ROWS, _ARRAY_BYTES // max(row_bytes, 1)))
    for start in range(first, last, rows):
        yield arrow_table({name: array[start : min(start + rows, last)] for name, array in arrays.items()})


def _length(arrays: Mapping[str, Any], file: File) -> int:
    shapes = {name: array.get_shape() if hasattr(array, "get_shape") else array.shape for name, array in arrays.items()}
    lengths = {name: shape[0] if len(shape) else None for name, shape in shapes.items()}
    if len(set(lengths.values())) != 1 or None in lengths.values():
        raise BadConfig(SOURCE, file.url, f"its arrays must have one first dimension, not {lengths}")
    return int(next(iter(lengths.values())) or 0)


def _arrays_of(file: File, kind: str) -> dict[str, Any]:
    """The arrays of a file by name; those of safetensors are read when they are sliced."""
    if not file.is_local:
        raise BadConfig(SOURCE, file.url, "arrays are read from local files only: copy it to a path of every node")
    try:
        if kind == "safetensors":
            tensors: Any = safe_open(file.url, framework="numpy")
            return {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118
        with np.load(file.url, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (SafetensorError, zipfile.BadZipFile, EOFError) as error:
        raise BadConfig(SOURCE, file.url, f"cannot read it: {error}") from error


def arrow_table(arrays: Mapping[str, Any]) -> pa.Table:
    """Arrays [n, ...] as columns: plain ones, or fixed-shape tensors where they have more than one dimension."""
    columns = {}
    for name, array in arrays.items():
        array = np.ascontiguousarray(array)
        if array.ndim == 0:
            raise ValueError(f"{name} is a single value, not an array [n, ...]")
        tensor = array.ndim > 1
        columns[name] = pa.FixedShapeTensorArray.from_numpy_ndarray(array) if tensor else pa.array(array)
    return pa.table(columns)


def _images(piece: Fragment) -> Iterator[pa.Table]:
    for start in range(0, len(piece.images), _DECODED_IMAGES):
        files = piece.images[start : start + _DECODED_IMAGES]
        paths = [file.url for file in files]
        labels = [Path(path).parent.name for path in paths]
        bodies = pa.array([_body(file) for file in files], pa.binary())
        yield pa.table({"image": bodies, "label": pa.array(labels), "path": pa.array(paths)})


def _body(file: File) -> bytes:
    if not file.size_bytes:
        return b""
    with opened(file) as stream:
        return bytes(stream.read())


def _sklearn(piece: Fragment) -> Iterator[pa.Table]:
    from sklearn import datasets  # a second of imports, which only this kind needs

    name = piece.file.url.partition("://")[2]
    known = ("breast_cancer", "diabetes", "digits", "iris", "wine")
    if name not in known:
        raise BadConfig(SOURCE, piece.file.url, f"must be one of {', '.join('sklearn://' + each for each in known)}")
    bunch = getattr(datasets, f"load_{name}")()
    if name == "digits":
        yield arrow_table({"image": (bunch.images / 16).astype(np.float32), "target": bunch.target})
        return
    features = {str(each).replace(" ", "_"): bunch.data[:, place] for place, each in enumerate(bunch.feature_names)}
    yield arrow_table({**features, "target": bunch.target})


def _flights(piece: Fragment) -> Iterator[pa.Table]:
    yield pa.Table.from_pandas(read_flights(piece.file.url), preserve_index=False)


READERS: Mapping[str, Callable[[Fragment], Iterator[pa.Table]]] = {
    "parquet": _parquet,
    "csv": _typed,
    "json": _typed,
    "text": _text,
    "numpy": _arrays,
    "safetensors": _arrays,
    "arrow": _arrow,
    "image": _images,
    "sklearn": _sklearn,
    "flights": _flights,
}
"""From the kind of a fragment to what reads it."""
