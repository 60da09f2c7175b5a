"""What each column of a source is to a training: the label, or one kind of feature."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

from trainers.config import Data
from trainers.data.reading.tables import TYPES
from trainers.errors import BadConfig

USUAL_LABELS = ("label", "target", "y")
"""Taken for the label, the first that there is, where the run file names none."""


@dataclass(frozen=True)
class Roles:
    """Columns by what becomes of them. At most one of `numbers` with `categories`, `text`, `image` and `tensor`."""

    label: str | None
    classes: bool  # the label names classes; else it is a number to be estimated
    numbers: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    text: str | None = None
    image: str | None = None
    tensor: str | None = None

    @property
    def features(self) -> tuple[str, ...]:
        return (*self.numbers, *self.categories, *(each for each in (self.text, self.image, self.tensor) if each))

    @property
    def content(self) -> tuple[str, ...]:
        """The columns by which two rows are the same."""
        return (*self.features, *((self.label,) if self.label else ()))


def roles_of(schema: pa.Schema, data: Data) -> Roles:
    """Raises BadConfig on columns that are not there, on features that no model takes together, and on steps for others."""
    label = data.label or next((each for each in USUAL_LABELS if each in schema.names), None)
    by = data.split_by
    named = {"data.label": data.label, **({f"data.split_by.{way}": getattr(by, way) for way in vars(by)} if by else {})}
    _insist(schema, [(path, name) for path, name in named.items() if name])
    _insist(schema, [(f"data.columns.{name}", name) for name in data.columns])
    _insist(schema, [("data.features", name) for name in data.features or ()])
    deciding = {by.group, by.time} if by else set()
    names = data.features or [each for each in schema.names if each not in {label, "path"} | deciding]
    if label in names:
        raise BadConfig("data.features", label, "is the label: a model would only have to copy it")
    if label is not None and _kind(schema, label, data, "data.label") not in ("number", "category", "text"):
        raise BadConfig("data.label", label, f"is of type {declared(schema, label, data)}: must be numbers or texts")
    kinds = {name: _kind(schema, name, data, "data.features") for name in names}
    groups = {kind: tuple(name for name in names if kinds[name] == kind) for kind in set(kinds.values())}
    single = [kind for kind in groups if kind not in ("number", "category")]
    if not names or len(single) > 1 or (single and (len(groups) > 1 or len(groups[single[0]]) > 1)):
        wanted = "must be one text, one image, one array of several dimensions, or numbers and categories"
        raise BadConfig("data.features", {name: kinds[name] for name in names}, f"{wanted}: name those to use")
    one = {kind: groups[kind][0] for kind in single}
    for step, kind in (("resize", "image"), ("tokenize", "text")):
        asked = getattr(data.steps, step) if data.steps is not None else None
        if asked is not None and kind not in one:
            words = f"is for {kind}s, and would do nothing: {names[0]} is of type {declared(schema, names[0], data)}"
            raise BadConfig(f"data.steps.{step}", asked, words)
    return Roles(
        label=label,
        classes=label is not None and not pa.types.is_floating(declared(schema, label, data)),
        numbers=groups.get("number", ()),
        categories=groups.get("category", ()),
        text=one.get("text"),
        image=one.get("image"),
        tensor=one.get("tensor"),
    )


def declared(schema: pa.Schema, name: str, data: Data) -> pa.DataType:
    """The type of a column by the run file, else by the source."""
    column = data.columns.get(name)
    return TYPES[column.type] if column is not None and column.type else schema.field(name).type


def _kind(schema: pa.Schema, name: str, data: Data, path: str) -> str:
    kind = declared(schema, name, data)
    if isinstance(kind, pa.FixedShapeTensorType):
        return "tensor"
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        return "number"
    if pa.types.is_string(kind):
        return "text" if data.steps is not None and data.steps.tokenize is not None else "category"
    if pa.types.is_binary(kind):
        return "image"
    raise BadConfig(path, name, f"is of type {kind}, which no model takes: name the columns to use")


def _insist(schema: pa.Schema, named: Iterable[tuple[str, str]]) -> None:
    for path, name in named:
        if name not in schema.names:
            raise BadConfig(path, name, f"is not a column; there are {', '.join(schema.names)}")
