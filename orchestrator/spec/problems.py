"""From pydantic's errors to problems in the words of the run file."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import reduce
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from orchestrator.errors import Problem
from orchestrator.spec.reading import printable, shorten
from trainers.catalogue import RECIPES

Place = tuple[str | int, ...]
"""Where in a document: the keys of mappings, and the numbers of entries of lists."""


NO_KEY = "is not a known key"
"""How whatever is said of an unknown key begins."""


class Disagreement(ValueError):
    """Values that are right each by itself, and wrong together."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(str(each) for each in problems))


def problems_of(
    error: ValidationError, model: type[BaseModel], document: Mapping[str, Any], *, agreement: bool = True
) -> list[Problem]:
    """One Problem per wrong place of `document`, in the order of the file's sections, none twice.

    `agreement`: also what the sections of the whole document disagree on.
    """
    found: list[Problem] = []
    for each in error.errors(include_url=False):
        cause = each.get("ctx", {}).get("error")
        if isinstance(cause, Disagreement):
            found.extend(cause.problems if each["loc"] or agreement else ())
        else:
            found.append(_problem(each, model, document))
    return list(dict.fromkeys(found))


def intended(error: ValidationError, model: type[BaseModel]) -> set[Place]:
    """The places of known keys that unknown ones may have been meant for."""
    unknown = (tuple(each["loc"]) for each in error.errors(include_url=False) if each["type"] == "extra_forbidden")
    return {place for each in unknown if (place := _intended(each, model)) is not None}


def suggest(word: str, known: Iterable[str]) -> str:
    """A half sentence that names the nearest known word, or all of them."""
    words = sorted(known)
    near = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else f"known: {', '.join(words)}"


def not_reported(path: str, metric: str, recipe: str | None) -> Iterator[Problem]:
    """Of a recipe all metrics are known; of code of your own the first report tells."""
    if recipe is not None and metric not in (known := RECIPES[recipe].metrics):
        yield Problem(path, shorten(metric), f"is not reported by {recipe}, {suggest(metric, known)}")


def path_text(location: Sequence[str | int]) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return printable(text.removeprefix(".")) or "run file"


def _problem(error: Any, model: type[BaseModel], document: Mapping[str, Any]) -> Problem:
    location, value = tuple(error["loc"]), error["input"]
    if location[1:] and location[-1] == "[key]" and error["type"] != "extra_forbidden":
        location = location[:-1]  # pydantic's mark for a mapping's key that is itself wrong: the path shows it
        value = reduce(lambda section, part: section[part], location, document)
    got = "nothing" if error["type"] == "missing" else shorten(value)
    return Problem(path_text(location), got, _message(error, location, model))


def _message(error: Any, location: Place, model: type[BaseModel]) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown_key(location, model)
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        return f"must be one of {context['expected']}"
    if kind in _PLAIN:
        return _PLAIN[kind].format(**context)
    return str(error["msg"]).replace("Input should", "should")


def without_credentials(path: str, url: str) -> str:
    """The URL as it is. Raises Disagreement, which shows nothing of what it refuses."""
    if not (match := _CREDENTIALS.match(url)):
        return url
    advice = (
        "must not hold credentials, for whoever may see the run would read them: keep them by `evertrain secret put NAME` "
        "and name them under secrets (S3: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY), or give the nodes a role"
    )
    raise Disagreement([Problem(path, shorten(f"{match[1]}***@{url[match.end() :]}"), advice)])


_CREDENTIALS = re.compile(r"([a-z][a-z0-9+.-]*://)[^/]*:(?!\d+/).*@")  # a key of S3 may hold "/"; host:9000/ is a port
_PLAIN: Mapping[str, str] = {
    "missing": "is required",
    "string_type": "must be text: put it in quotes",
    "string_too_short": "must not be empty",
    "string_pattern_mismatch": "must match {pattern}",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "dict_type": "must be a mapping (key: value)",
    "model_type": "must be a mapping (key: value)",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "too_long": "must have at most {max_length} entries, has {actual_length}",
    "too_short": "must have at least {min_length} entries, has {actual_length}",
}


def _unknown_key(location: Place, model: type[BaseModel]) -> str:
    place = _intended(location, model)
    if place is not None and place[:-1] != location[:-1]:
        return f"{NO_KEY} here, did you mean {path_text(place)}?"
    return f"{NO_KEY}, {suggest(str(location[-1]), _keys(_section_at(location[:-1], model)))}"


def _intended(location: Place, model: type[BaseModel]) -> Place | None:
    """A key of the same section that is spelt like it, or one of that name elsewhere."""
    key, known = str(location[-1]), _keys(_section_at(location[:-1], model))
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    elsewhere = [(name, key) for name, other in _all_sections(model) if key in other.model_fields]
    if elsewhere and key not in known and not difflib.get_close_matches(key, known, n=1, cutoff=0.8):
        return elsewhere[0]
    return (*location[:-1], near[0]) if near else None


def _keys(section: type[BaseModel]) -> list[str]:
    """As they are written in a file."""
    return sorted(field.alias or name for name, field in section.model_fields.items())


def _section_at(location: Place, model: type[BaseModel]) -> type[BaseModel]:
    section = model
    for part in location:
        section = next(sections_of(section, str(part)), section)
    return section


def sections_of(model: type[BaseModel], field: str) -> Iterator[type[BaseModel]]:
    """The section classes that a field may hold: none or one."""
    annotation = model.model_fields[field].annotation if field in model.model_fields else None
    candidates = (annotation, *get_args(annotation))
    return iter([each for each in candidates if isinstance(each, type) and issubclass(each, BaseModel)])


def _all_sections(model: type[BaseModel]) -> list[tuple[str, type[BaseModel]]]:
    return [(name, section) for name in model.model_fields for section in sections_of(model, name)]
