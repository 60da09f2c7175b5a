"""What the rows of a model's first and last tensors stand for, when it begins with another model's weights.

Two vocabularies of one size fit each other's tensors and mean something else by every row of them; so do two tables with
as many columns. A sealed checkpoint keeps its task's notes, which say what was meant; a bare file of weights says nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from torch import nn

from trainers.config import InitFrom
from trainers.errors import BadConfig
from trainers.export import sealed_notes

_READ, _NAMED = 0, -1  # the tensor that reads the inputs, and the one that names the classes, among the model's
_TOLD = 4


class Meaning(NamedTuple):
    """`values` by number; `tensor` is the place of the tensor that knows them, among the model's."""

    what: str
    tensor: int
    values: Sequence[Any]


def insist_on_meaning(model: nn.Module, notes: Mapping[str, Any], init: InitFrom) -> None:
    """Refuse weights whose inputs or classes are others than this task's, unless `init_from.fresh` lets the tensor that
    knows them begin at random.

    `notes`: this task's. Raises BadConfig, and StorageError when the checkpoint's notes cannot be read.
    """
    if init.checkpoint is None:
        return
    theirs = {each.what: each for each in meanings(sealed_notes(init.checkpoint))}
    names = [name for name, _ in model.named_parameters()]
    for ours in meanings(notes):
        tensor = names[ours.tensor]
        begins_anew = any(fnmatchcase(tensor, each) for each in init.fresh)
        if ours.what in theirs and not begins_anew and (words := _difference(theirs[ours.what].values, ours.values)):
            advice = f"{words}: take the same {ours.what}, or name {tensor} under init_from.fresh"
            raise BadConfig(*init.named, f"knows other {ours.what} than these data: {advice}")


def meanings(notes: Mapping[str, Any]) -> Iterator[Meaning]:
    """What a task's notes say of its inputs and classes."""
    for name, what in (("vocabulary", "characters"), ("words", "words"), ("items", "items")):
        if name in notes:
            yield Meaning(what, _READ, notes[name])
    if "labels" in notes:
        yield Meaning("classes", _NAMED, notes["labels"])
    prepared: Mapping[str, Any] = notes.get("preparation", {})
    if prepared:
        roles = prepared["roles"]
        yield Meaning("columns", _READ, [*roles["numbers"], *roles["categories"]])
        for column, values in prepared["categories"].items():
            yield Meaning(f"values of {column}", _READ, values)
        yield Meaning("units of text", _READ, prepared["vocabulary"])


def _difference(theirs: Sequence[Any], ours: Sequence[Any]) -> str | None:
    """The first places that differ. Lengths alone are for the tensors' shapes to tell of."""
    if len(theirs) != len(ours):
        return None
    apart = [(old, new) for old, new in zip(theirs, ours, strict=True) if old != new]
    if not apart:
        return None
    some = ", ".join(f"{old!r} there is {new!r} here" for old, new in apart[:_TOLD])
    return some + (f", and {len(apart) - _TOLD} more" if len(apart) > _TOLD else "")
