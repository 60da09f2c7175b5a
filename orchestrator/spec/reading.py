"""From text to a plain mapping: YAML 1.2's core schema, without what makes YAML surprising.

`1e-3` is a number and `on` is text (YAML 1.1 has it the other way round); a key given twice, a tag, a second document and
a structure that only aliases make large are refused with line and column. JSON is YAML; it takes a faster way.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import yaml

from orchestrator.errors import InvalidSpec, Problem

MAX_TEXT_BYTES = 2**20
_MAX_DEPTH = 32
_MAX_NODES = 20_000

_MAX_DIGITS = 100
_INT = re.compile(r"[-+]?([0-9]+)|0o([0-7]+)|0x([0-9a-fA-F]+)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_mapping(text: str, *, source: str) -> dict[str, Any]:
    """The document of a run file. Raises InvalidSpec."""
    if len(text.encode("utf-8", "surrogatepass")) > MAX_TEXT_BYTES:
        raise _invalid(source, f"{len(text)} characters", "must be at most 1 MiB")
    document = _read_json(text, source) if text.lstrip().startswith("{") else None
    if document is None:
        document = _Reader(text, source).document()
    if not isinstance(document, dict):
        raise _invalid(source, shorten(document), "must be a mapping, beginning with a line such as `name: my-run`")
    return document


def shorten(value: Any) -> str:
    """A value as its user would recognize it, on one line."""
    if value is None:
        return "nothing"
    text = printable(json.dumps(value, ensure_ascii=False, default=str))
    return text if len(text) <= 80 else text[:77] + "..."


def printable(text: str) -> str:
    """With its escapes where UTF-8 has no character: a refusal that quotes such text must itself arrive."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\u0000")


def _invalid(path: str, got: str, message: str) -> InvalidSpec:
    return InvalidSpec([Problem(path, got, message)])


def _read_json(text: str, source: str) -> Any:
    """None where the text is not JSON: YAML's own reader then has the better word for it."""

    constants: list[str] = []  # NaN, Infinity, -Infinity

    def no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) < len(pairs):
            twice = next(key for key, times in Counter(key for key, _ in pairs).items() if times > 1)
            raise _invalid(source, shorten(twice), "is given twice in one mapping: keep one")
        return values

    try:
        document = json.loads(
            text, object_pairs_hook=no_twins, parse_constant=constants.append, parse_float=_finite, parse_int=_short
        )
    except (ValueError, RecursionError):
        return None
    if constants:  # in YAML they would be text, which is not what a program meant that writes JSON
        raise _invalid(source, constants[0], "has a number that is none: numbers must be finite")
    return None if _is_deep(document, _MAX_DEPTH) else document


def _is_deep(value: Any, levels: int) -> bool:
    if isinstance(value, dict | list):
        children = value.values() if isinstance(value, dict) else value
        return levels == 0 or any(_is_deep(each, levels - 1) for each in children)
    return False


def _short(text: str) -> int:
    if len(text.lstrip("-")) > _MAX_DIGITS:
        raise ValueError(text)
    return int(text)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


class _Reader:
    """Builds plain values from the parser's events; the depth and number of nodes are bounded, whatever the aliases."""

    def __init__(self, text: str, source: str) -> None:
        self._source = source
        self._events: Iterator[Any] = yaml.parse(text, Loader=_LOADER)
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._nodes = 0

    def document(self) -> Any:
        try:
            return self._document()
        except yaml.MarkedYAMLError as error:
            problem = f"is not YAML: {error.problem or error.context}"
            raise self._refuse(problem, error.problem_mark or error.context_mark) from None
        except (yaml.YAMLError, UnicodeError) as error:
            raise _invalid(self._source, "text", f"is not YAML: {' '.join(str(error).split())}") from None

    def _document(self) -> Any:
        next(self._events)  # start of the stream
        if isinstance(next(self._events), yaml.StreamEndEvent):
            raise _invalid(
                self._source, "an empty file", "must be a mapping, beginning with a line such as `name: my-run`"
            )
        value = self._value(next(self._events), 0)
        next(self._events)  # end of the document
        following = next(self._events)
        if not isinstance(following, yaml.StreamEndEvent):
            raise self._refuse("has a second document: one file describes one run", following.start_mark)
        return value

    def _value(self, event: Any, depth: int) -> Any:
        self._count(1, event)
        if depth > _MAX_DEPTH:
            raise self._refuse(f"is nested deeper than {_MAX_DEPTH} levels", event.start_mark)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        if event.tag not in (None, "tag:yaml.org,2002:str"):
            raise self._refuse(f"has the tag {event.tag}: write the plain value", event.start_mark)
        before = self._nodes
        if isinstance(event, yaml.ScalarEvent):
            value = self._scalar(event)
        elif isinstance(event, yaml.SequenceStartEvent):
            value = self._sequence(depth)
        else:
            value = self._mapping(depth)
        if event.anchor:
            self._anchors[event.anchor] = (value, self._nodes - before)
        return value

    def _alias(self, event: Any) -> Any:
        if event.anchor not in self._anchors:
            raise self._refuse(f"has the alias *{event.anchor} before or inside its anchor", event.start_mark)
        value, nodes = self._anchors[event.anchor]
        self._count(nodes, event)
        return value

    def _scalar(self, event: Any) -> Any:
        text: str = event.value
        if not event.implicit[0] or event.tag:
            return text
        if text in _WORDS:
            return _WORDS[text]
        if match := _INT.fullmatch(text):
            self._count_digits(match[match.lastindex or 0], event)
            return int(text, 10) if text.lstrip("-+").isdigit() else int(text, 0)
        if _FLOAT.fullmatch(text) and math.isfinite(number := float(text)):
            return number
        if _NOT_FINITE.fullmatch(text) or _FLOAT.fullmatch(text):
            raise self._refuse(f"has the number {shorten(text)}: numbers must be finite", event.start_mark)
        return text

    def _sequence(self, depth: int) -> list[Any]:
        values = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            values.append(self._value(event, depth + 1))
        return values

    def _mapping(self, depth: int) -> dict[str, Any]:
        values: dict[str, Any] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                raise self._refuse("has a key that is not plain text", event.start_mark)
            if event.value in values:
                raise self._refuse(
                    f"has the key {shorten(event.value)} twice in one mapping: keep one", event.start_mark
                )
            values[event.value] = self._value(next(self._events), depth + 1)
        return values

    def _count(self, nodes: int, event: Any) -> None:
        self._nodes += nodes
        if self._nodes > _MAX_NODES:
            raise self._refuse(f"has more than {_MAX_NODES} values (aliases counted)", event.start_mark)

    def _count_digits(self, digits: str, event: Any) -> None:
        if len(digits) > _MAX_DIGITS:
            words = f"has a whole number of {len(digits)} digits, at most {_MAX_DIGITS} are read"
            raise self._refuse(f"{words}: put it in quotes if it is text", event.start_mark)

    def _refuse(self, message: str, mark: Any) -> InvalidSpec:
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "somewhere"
        return _invalid(self._source, where, message)
