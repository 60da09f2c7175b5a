"""What is wrong with values, and in which rows: found table by table, judged over all of them."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image, UnidentifiedImageError

from trainers.config import Column, Data
from trainers.data.preparing.roles import Roles
from trainers.data.reading.tables import TYPES
from trainers.errors import BadConfig

Mask = npt.NDArray[np.bool_]

ROWS_NAMED = 5
"""So many rows of each finding are named."""


@dataclass(frozen=True)
class Finding:
    """A rule of the run file that rows break. `rows` names the first of them, by file and number from 0."""

    path: str  # of the rule in the run file
    column: str
    expected: str
    count: int
    rows: tuple[str, ...]
    got: Any = None  # the first row's value

    def __str__(self) -> str:
        more = ", ..." if self.count > len(self.rows) else ""
        noun = "row" if self.count == 1 else "rows"
        value = f", the first {self.got!r}" if self.got is not None else ""
        where = f": {_named(self.rows)}{more}" if self.rows else ""
        return f"{self.path}: {self.column} {self.expected}: {self.count} {noun}{value}{where}"


def _named(rows: Sequence[str]) -> str:
    """Rows of one file with its name once."""
    files = {row.rpartition(" row ")[0] for row in rows}
    if len(rows) == 1 or len(files) != 1 or "" in files:
        return ", ".join(rows)
    return f"{files.pop()} rows {', '.join(row.rpartition(' ')[2] for row in rows)}"


class BadData(BadConfig):
    """The data break rules of the run file. `findings` holds each rule with its rows."""

    def __init__(self, source: str, findings: Sequence[Finding]) -> None:
        super().__init__("data", source, "; ".join(map(str, findings)))
        self.findings = tuple(findings)


@dataclass(frozen=True)
class Place:
    """Where the rows of a table come from."""

    url: str
    first_row: int
    paths: tuple[str, ...] = ()  # of images, whose names say more than numbers

    def row(self, number: int) -> str:
        return self.paths[number] if self.paths else f"{self.url} row {self.first_row + number}"


def joined(findings: Iterable[Finding]) -> list[Finding]:
    """Findings of one rule and column become one."""
    merged: dict[tuple[str, str], Finding] = {}
    for each in findings:
        before = merged.get((each.path, each.column))
        merged[each.path, each.column] = (
            each
            if before is None
            else Finding(
                each.path,
                each.column,
                each.expected,
                before.count + each.count,
                (before.rows + each.rows)[:ROWS_NAMED],
                before.got,
            )
        )
    return list(merged.values())


def typed(table: pa.Table, data: Data, place: Place) -> tuple[pa.Table, list[Finding]]:
    """The table with every column of the type that the run file declares, and the values that are of no such type.

    These become nulls.
    """
    findings = []
    for name, rule in data.columns.items():
        if rule.type is None or table[name].type == TYPES[rule.type]:
            continue
        column, wrong = _cast(table[name], TYPES[rule.type])
        if wrong.any():
            findings.append(_finding(f"data.columns.{name}.type", name, f"must be a {rule.type}", table, wrong, place))
        table = table.set_column(table.column_names.index(name), name, column)
    return table, findings


def _cast(column: pa.ChunkedArray, wanted: pa.DataType) -> tuple[pa.ChunkedArray, Mask]:
    try:
        return column.cast(wanted), np.zeros(len(column), dtype=bool)
    except pa.ArrowNotImplementedError:
        values: list[Any] = [None] * len(column)
    except pa.ArrowInvalid:
        values = [_cast_one(each, wanted) for each in column]
    cast = pa.chunked_array([pa.array(values, wanted)])
    wrong: Mask = pc.is_null(cast).to_numpy() & ~pc.is_null(column).to_numpy()
    return cast, wrong


def _cast_one(value: pa.Scalar, wanted: pa.DataType) -> Any:
    try:
        return value.cast(wanted).as_py()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None


def value_findings(table: pa.Table, data: Data, place: Place) -> Iterator[Finding]:
    """Values outside of what the run file allows. Nulls are judged on their own."""
    for name, rule in data.columns.items():
        for key, expected, wrong in _broken(table[name], rule):
            if wrong.any():
                yield _finding(f"data.columns.{name}.{key}", name, expected, table, wrong, place)


def _broken(column: pa.ChunkedArray, rule: Column) -> Iterator[tuple[str, str, Mask]]:
    if rule.min is not None:
        yield "min", f"must be at least {rule.min:g}", _true(pc.less(column, rule.min))
    if rule.max is not None:
        yield "max", f"must be at most {rule.max:g}", _true(pc.greater(column, rule.max))
    if rule.values is not None:
        allowed = pc.is_in(column, value_set=pa.array(rule.values).cast(column.type), skip_nulls=False)
        names = ", ".join(map(str, rule.values[:20])) + (", ..." if len(rule.values) > 20 else "")
        yield "values", f"must be one of {names}", _true(pc.and_(pc.invert(allowed), pc.is_valid(column)))


def missing(table: pa.Table, columns: Sequence[str]) -> dict[str, Mask]:
    """Which rows of each column hold a null or NaN; columns without any are left out."""
    masks = {
        name: _true(pc.is_null(table[name], nan_is_null=pa.types.is_floating(table[name].type))) for name in columns
    }
    return {name: mask for name, mask in masks.items() if mask.any()}


def infinite(table: pa.Table, columns: Sequence[str]) -> dict[str, Mask]:
    """Which rows of each column hold an infinite number; columns without any are left out."""
    floating = [name for name in columns if pa.types.is_floating(table[name].type)]
    masks = {name: _true(pc.is_inf(table[name])) for name in floating}
    return {name: mask for name, mask in masks.items() if mask.any()}


def not_finite_tensors(table: pa.Table, column: str) -> Mask:
    """Rows whose array holds NaN or infinity: there is no filling of them."""
    array = tensors(table, column)
    if array.dtype.kind != "f":
        return np.zeros(len(array), dtype=bool)
    wrong: Mask = ~np.isfinite(array.reshape(len(array), -1)).all(axis=1)
    return wrong


def tensors(table: pa.Table, column: str) -> npt.NDArray[Any]:
    """A column of fixed-shape tensors as one array [rows, ...]."""
    chunks = [chunk.to_numpy_ndarray() for chunk in table[column].chunks]
    array: npt.NDArray[Any] = chunks[0] if len(chunks) == 1 else np.concatenate(chunks)
    return array


def decode_all(table: pa.Table, column: str) -> tuple[Mask, set[tuple[bool, int, int]]]:
    """Which images cannot be decoded, and of the others whether they are grey, their height and their width."""
    corrupt = np.zeros(table.num_rows, dtype=bool)
    shapes = set()
    for number, body in enumerate(table[column]):
        image = decoded(body.as_py())
        if image is None:
            corrupt[number] = True
        else:
            shapes.add((image.mode in ("1", "L", "I;16"), image.height, image.width))
    return corrupt, shapes


def decoded(body: bytes | None) -> Image.Image | None:
    """None for what is no image, or not a whole one."""
    try:
        image = Image.open(io.BytesIO(body or b""))
        image.load()
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
    return image


def findings_of(path: str, expected: str, masks: Mapping[str, Mask], table: pa.Table, place: Place) -> list[Finding]:
    return [_finding(path, name, expected, table, mask, place) for name, mask in masks.items() if mask.any()]


def _finding(path: str, column: str, expected: str, table: pa.Table, wrong: Mask, place: Place) -> Finding:
    rows = np.flatnonzero(wrong)
    value = table[column][int(rows[0])].as_py() if _short(table[column].type) else None
    named = tuple(place.row(int(each)) for each in rows[:ROWS_NAMED])
    return Finding(path, column, expected, len(rows), named, value)


def _short(kind: pa.DataType) -> bool:
    return not (pa.types.is_binary(kind) or isinstance(kind, pa.FixedShapeTensorType))


def _true(mask: pa.ChunkedArray) -> Mask:
    result: Mask = pc.fill_null(mask, False).to_numpy()
    return result


def label_findings(counts: Mapping[Any, int], roles: Roles, data: Data) -> Iterator[Finding]:
    """One class alone teaches nothing, and a class that is rarer than wanted too little."""
    if not roles.classes or roles.label is None or not counts:
        return
    total, (rarest, least) = sum(counts.values()), min(counts.items(), key=lambda pair: pair[1])
    if len(counts) == 1:
        yield Finding("data.label", roles.label, "must name at least two classes", total, (), rarest)
    elif least < data.checks.balance * total:
        expected = f"must hold at least {data.checks.balance:.2%} of each class, not {least / total:.2%}"
        yield Finding("data.checks.balance", roles.label, expected, least, (), rarest)
