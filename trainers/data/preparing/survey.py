"""The first pass over a source: is it what the run file says, which rows stay, and by what they are split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trainers.config import Data
from trainers.data.preparing import checks
from trainers.data.preparing.checks import Finding, Mask, Place
from trainers.data.preparing.hashing import hash_column, hash_rows
from trainers.data.preparing.roles import Roles
from trainers.data.preparing.splitting import Keys
from trainers.data.reading.formats import Fragment
from trainers.data.reading.tables import stream
from trainers.data.sampler import Unsigned, mix

_SPLIT_SEED = 0x5B117  # not the run's: runs that differ in their seed stay comparable


@dataclass
class Survey:
    """What one fragment holds. Arrays have an element for each of its rows."""

    rows: int = 0
    findings: list[Finding] = field(default_factory=list)
    nulls: dict[str, Finding] = field(default_factory=dict)  # by column, judged as a share of all rows
    dropped: dict[str, int] = field(default_factory=dict)  # rows by the policy that drops them
    image_shapes: set[tuple[bool, int, int]] = field(default_factory=set)  # grey, height, width
    keep: Mask = field(default_factory=lambda: np.zeros(0, dtype=bool))
    content: Unsigned = field(default_factory=lambda: np.zeros(0, dtype=np.uint64))
    keys: Keys = field(default_factory=lambda: np.zeros(0))
    strata: Unsigned = field(default_factory=lambda: np.zeros(0, dtype=np.uint64))


def places(piece: Fragment) -> Iterator[tuple[pa.Table, Place]]:
    """The tables of a fragment, and where their rows come from."""
    row = piece.first_row
    for table in stream(piece):
        paths = tuple(table["path"].to_pylist()) if piece.kind == "image" else ()
        yield table, Place(piece.file.url, row, paths)
        row += table.num_rows


def survey(piece: Fragment, roles: Roles, data: Data) -> Survey:
    """Look at every row of a fragment. Raises BadConfig where it cannot be read at all."""
    total = Survey()
    parts: list[tuple[Mask, Unsigned, Keys, Unsigned]] = []
    for raw, place in places(piece):
        table, wrong = checks.typed(raw, data, place)
        total.rows += table.num_rows
        total.findings += [*wrong, *checks.value_findings(table, data, place)]
        keep = _kept(table, place, roles, data, total)
        content = hash_rows(table, roles.content)
        parts.append((keep, content, *_keys(table, content, data, place, total)))
    if parts:
        total.keep, total.content, total.keys, total.strata = (
            np.concatenate(each) for each in zip(*parts, strict=True)
        )
    total.findings = checks.joined(total.findings)
    return total


def _kept(table: pa.Table, place: Place, roles: Roles, data: Data, total: Survey) -> Mask:
    """Which rows the cleaning policies leave; what they refuse is added to the findings."""
    keep = np.ones(table.num_rows, dtype=bool)
    clean = data.clean

    def judge(policy: str, key: str, expected: str, masks: dict[str, Mask]) -> None:
        nonlocal keep
        if policy == "refuse":
            total.findings += checks.findings_of(f"data.clean.{key}", expected, masks, table, place)
        elif policy == "drop":
            wrong = np.any(list(masks.values()), axis=0) if masks else np.zeros(len(keep), dtype=bool)
            total.dropped[key] = total.dropped.get(key, 0) + int((wrong & keep).sum())
            keep = keep & ~wrong

    if roles.image is not None:
        corrupt, shapes = checks.decode_all(table, roles.image)
        total.image_shapes |= shapes
        judge(clean.corrupt, "corrupt", "must be an image that can be decoded", {roles.image: corrupt})
    infinite = checks.infinite(table, roles.content)
    judge(clean.infinite, "infinite", "must be finite", infinite)
    missing = checks.missing(table, roles.content)
    for name, mask in missing.items():
        _count_nulls(name, mask, table, place, data, total)
    if clean.infinite == "missing":
        missing = {
            name: missing.get(name, False) | infinite.get(name, np.zeros(table.num_rows, dtype=bool))
            for name in {**missing, **infinite}
        }
    fillable = {*roles.numbers, *roles.categories}
    for_ever = {name: mask for name, mask in missing.items() if name not in fillable}
    judge("drop" if clean.nulls == "drop" else "refuse", "nulls", "must not be missing", for_ever)
    judge(
        clean.nulls, "nulls", "must not be missing", {name: each for name, each in missing.items() if name in fillable}
    )
    if roles.tensor is not None:
        wrong = {roles.tensor: checks.not_finite_tensors(table, roles.tensor)}
        judge(clean.infinite, "infinite", "must hold finite numbers only", wrong)
    return keep


def _count_nulls(name: str, mask: Mask, table: pa.Table, place: Place, data: Data, total: Survey) -> None:
    rule = data.columns.get(name)
    if rule is not None and rule.nulls is not None:
        expected = f"must be missing in at most {rule.nulls:.2%} of the rows"
        (found,) = checks.findings_of(f"data.columns.{name}.nulls", expected, {name: mask}, table, place)
        known = [total.nulls[name]] if name in total.nulls else []
        (total.nulls[name],) = checks.joined([*known, found])


def _keys(table: pa.Table, content: Unsigned, data: Data, place: Place, total: Survey) -> tuple[Keys, Unsigned]:
    """By what the rows are ordered, and within what they are split: see `trainers.data.preparing.splitting`."""
    by = data.split_by
    strata = np.zeros(table.num_rows, dtype=np.uint64)
    if by is not None and by.time is not None:
        if (lost := checks.missing(table, [by.time])) or not _orders(table[by.time].type):
            lost = lost or {by.time: np.ones(table.num_rows, dtype=bool)}
            expected = "must be a time or a number in every row (say so in data.columns)"
            total.findings += checks.findings_of("data.split_by.time", expected, lost, table, place)
            return np.zeros(table.num_rows), strata
        return _as_numbers(table[by.time]), strata
    if by is not None and by.group is not None:
        content = hash_column(table[by.group])
    elif by is not None and by.stratify is not None:
        strata = hash_column(table[by.stratify])
    return mix(_SPLIT_SEED, content).astype(np.float64), strata


def _orders(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_timestamp(kind) or pa.types.is_date(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)
    )


def _as_numbers(column: pa.ChunkedArray) -> Keys:
    if pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("us"))
    whole = column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column
    numbers: Keys = whole.cast(pa.float64(), safe=False).to_numpy()
    return numbers


def label_counts(table: pa.Table, label: str) -> Counter[Any]:
    """How many rows each value of the label has."""
    counted = pc.value_counts(table[label])
    return Counter({each["values"].as_py(): each["counts"].as_py() for each in counted})
