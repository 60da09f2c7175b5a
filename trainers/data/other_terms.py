"""Rows of prepared data as another preparation makes them: what a model needs that was trained on other data."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import torch

from trainers.config import Data
from trainers.data.prepare import prepare
from trainers.data.prepared import Columns
from trainers.data.preparing import checks, survey
from trainers.data.preparing.transform import Fitted, apply
from trainers.data.reading.tables import fragments
from trainers.data.sampler import Indices
from trainers.errors import BadConfig


def rows_in_terms_of(fitted: Fitted, data: Data, part: str, places: Indices) -> Columns:
    """The examples at `places` [n] of one part of `data`, read from the source again and transformed by `fitted`; without
    targets, which only their own preparation has words for.

    Raises BadConfig where the source is not there any more or lacks a column.
    """
    numbers = prepare(data).rows_of(part)[places]
    order = np.argsort(numbers, kind="stable")
    tables = list(_chosen(data, numbers[order]))
    if sum(each.num_rows for each in tables) != len(numbers):
        raise BadConfig("data.source", data.source, "holds other rows than when it was prepared")
    table = pa.concat_tables(tables, promote_options="permissive")
    if fitted.roles.label in table.column_names:
        table = table.drop_columns([fitted.roles.label])
    try:
        arrays = apply(table, fitted)
    except KeyError as error:
        raise BadConfig("data.source", data.source, f"has no column {error} that the other model takes") from error
    columns = {}
    for name, array in arrays.items():
        placed = np.empty_like(array)
        placed[order] = array
        columns[name] = torch.from_numpy(placed)
    return Columns(columns, len(numbers))


def _chosen(data: Data, numbers: Indices) -> Iterator[pa.Table]:
    """The rows of the source with these numbers, which ascend."""
    first = 0
    types = {name: rule.type for name, rule in data.columns.items() if rule.type}
    for piece in fragments(data.source, types):
        for raw, place in survey.places(piece):
            start, end = np.searchsorted(numbers, [first, first + raw.num_rows])
            if start < end:
                table, _ = checks.typed(raw, data, place)
                yield table.take(numbers[start:end] - first)
            first += raw.num_rows
