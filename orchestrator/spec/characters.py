"""Text that a run file can spell by an escape, and that nothing behind it can carry."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic_core import PydanticSerializationError, to_json

from orchestrator.errors import Problem
from orchestrator.spec.problems import path_text
from orchestrator.spec.reading import shorten

_HALF = re.compile("[\ud800-\udfff]")
_NUL = "\0"
_NUL_IN_JSON = b"\\u0000"


def uncarried(document: Mapping[str, Any]) -> list[Problem]:
    """Every key and value with half of a surrogate pair, which UTF-8 cannot write, or with a NUL, at which arguments,
    environments and paths end.
    """
    # Nearly no run file holds one, and the encoder, which escapes a NUL and refuses halves, is many times as fast.
    try:
        clean = _NUL_IN_JSON not in to_json(document)
    except PydanticSerializationError:
        clean = False
    return [] if clean else list(_look(document, ()))


def _look(value: Any, place: tuple[str | int, ...]) -> Iterator[Problem]:
    if isinstance(value, str):
        yield from _look_at_text(value, place)
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield from _look_at_text(str(key), (*place, key))
            yield from _look(each, (*place, key))
    elif isinstance(value, list | tuple):
        for number, each in enumerate(value):
            yield from _look(each, (*place, number))


def _look_at_text(text: str, place: tuple[str | int, ...]) -> Iterator[Problem]:
    if half := _HALF.search(text):
        wrong = (
            f"holds {shorten(half[0])}, half of a surrogate pair and no character: remove it, or write the character"
        )
        yield Problem(path_text(place), shorten(text), wrong)
    if _NUL in text:
        wrong = "holds a NUL, which no environment, argument or path can carry: remove it"
        yield Problem(path_text(place), shorten(text), wrong)
