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


class Disagreement(ValueError):
    """Values that are right each by itself, and wrong together."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(str(each) for each in problems))


def problems_of(error: ValidationError, model: type[BaseModel], document: Mapping[str, Any]) -> list[Problem]:
    """One Problem per wrong place of `document`, in the order of the file's sections, none twice."""
    found: list[Problem] = []
    for each in error.errors(include_url=False):
        cause = each.get("ctx", {}).get("error")
        if isinstance(cause, Disagreement):
            found.extend(cause.problems)
        else:
            found.append(_problem(each, model, document))
    return list(dict.fromkeys(found))


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


def _message(error: Any, location: Sequence[str | int], model: type[BaseModel]) -> str:
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


def _unknown_key(location: Sequence[str | int], model: type[BaseModel]) -> str:
    key = str(location[-1])
    section = model
    for part in location[:-1]:
        section = next(_sections(section, str(part)), section)
    if key not in section.model_fields:
        elsewhere = [f"{path}.{key}" for path, other in _all_sections(model) if key in other.model_fields]
        if elsewhere and not difflib.get_close_matches(key, section.model_fields, n=1, cutoff=0.8):
            return f"is not known here, did you mean {elsewhere[0]}?"
    return f"is not a known key, {suggest(key, section.model_fields)}"


def _sections(model: type[BaseModel], field: str) -> Iterator[type[BaseModel]]:
    """The section classes that a field may hold: none or one."""
    annotation = model.model_fields[field].annotation if field in model.model_fields else None
    candidates = (annotation, *get_args(annotation))
    return iter([each for each in candidates if isinstance(each, type) and issubclass(each, BaseModel)])


def _all_sections(model: type[BaseModel]) -> list[tuple[str, type[BaseModel]]]:
    return [(name, section) for name in model.model_fields for section in _sections(model, name)]
