"""A document with wrong keys, read as far as it is right, so that one reading tells all that is wrong with it.

pydantic looks at what keys must agree on only where every key is right. Here a section keeps its right keys, whoever asks
it for one of the others gets Unread, and each rule says what it can say without them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cache
from typing import Any, TypeVar, get_origin

from pydantic import TypeAdapter, ValidationError

from orchestrator.errors import Problem
from orchestrator.spec.problems import Disagreement, Place, intended, path_text, problems_of, sections_of
from orchestrator.spec.reading import shorten
from orchestrator.spec.section import Section
from orchestrator.spec.unread import Unread

S = TypeVar("S", bound=Section)


def all_problems(model: type[Section], document: Mapping[str, Any], unread: Collection[Place] = ()) -> list[Problem]:
    """Of keys by themselves, then of those that must agree. `unread`: places that `document` lacks because what stood there
    was wrong.
    """
    found: list[Problem] = []
    doubtful = set(unread)
    try:
        model.model_validate(document)
    except ValidationError as error:
        found = problems_of(error, model, document, agreement=False)
        doubtful |= intended(error, model)
    else:
        if not doubtful:
            return []
    reader = _Reader(doubtful)
    reader.section(model, document, ())
    once: dict[tuple[str, str], Problem] = {}
    for each in (*found, *reader.disagreements):
        once.setdefault((each.path, each.message), each)
    return list(once.values())


def unread_places(section: Section, place: Place = ()) -> Iterator[Place]:
    """Where a section that was read in part has nothing to read."""
    for name, field in type(section).model_fields.items():
        at = (*place, field.alias or name)
        value = section.__dict__.get(name)
        if name not in section.__dict__:
            yield at
        elif isinstance(value, Section):
            yield from unread_places(value, at)
        elif isinstance(value, dict):
            for key, each in value.items():
                if isinstance(each, Section):
                    yield from unread_places(each, (*at, key))


class _Reader:
    def __init__(self, doubtful: Collection[Place]) -> None:
        """`doubtful`: places whose value is not known, unless the document has it all the same."""
        self._doubtful = doubtful
        self.disagreements: list[Problem] = []

    def section(self, model: type[S], raw: Mapping[str, Any], place: Place) -> S:
        """With the keys that are right. Adds what those of it, and of the sections in it, disagree on."""
        values: dict[str, Any] = {}
        unread = []
        for name, field in model.model_fields.items():
            key = field.alias or name
            try:
                if key in raw or (*place, key) in self._doubtful or self._doubts_below((*place, key)):
                    values[key] = self._value(model, name, raw, (*place, key))
                elif field.is_required():
                    raise Unread
            except Unread:
                unread.append(name)
        given = {name for name, field in model.model_fields.items() if (field.alias or name) in raw}
        made = model.model_construct(given, **values)
        for name in unread:
            made.__dict__.pop(name, None)
        found = list(_own(made, raw, place))
        self.disagreements += found
        if found and model.together:
            made.__dict__.clear()
        return made

    def _value(self, model: type[Section], name: str, raw: Mapping[str, Any], place: Place) -> Any:
        """Raises Unread for what is no such value, and has no keys that may be right by themselves."""
        key = place[-1]
        if key not in raw and place in self._doubtful:
            raise Unread
        if not self._doubts_below(place):
            try:
                return _adapter(model, name).validate_python(raw[str(key)])
            except ValidationError:
                pass
        inner = next(sections_of(model, name), None)
        value = raw.get(str(key), {})
        if inner is None or not isinstance(value, Mapping) or not issubclass(inner, Section):
            raise Unread
        if get_origin(model.model_fields[name].annotation) is not dict:
            return self.section(inner, value, place)
        if not value:
            raise Unread
        return {member: self._member(inner, each, (*place, member)) for member, each in value.items()}

    def _member(self, model: type[S], raw: Any, place: Place) -> S:
        """One that is no mapping is there all the same, for whoever asks for its name."""
        if isinstance(raw, Mapping):
            return self.section(model, raw, place)
        nothing = model.model_construct()
        nothing.__dict__.clear()
        return nothing

    def _doubts_below(self, place: Place) -> bool:
        return any(len(each) > len(place) and each[: len(place)] == place for each in self._doubtful)


def _own(section: Section, raw: Mapping[str, Any], place: Place) -> Iterator[Problem]:
    for rule in _rules(type(section)):
        try:
            rule(section)
        except Unread:
            continue
        except Disagreement as error:
            yield from error.problems
        except ValueError as error:
            yield Problem(path_text(place), shorten(raw), str(error))


@cache
def _rules(model: type[Section]) -> tuple[Callable[[Section], Section], ...]:
    """What its keys must agree on: the validators that look at the whole section."""
    validators = model.__pydantic_decorators__.model_validators.values()
    return tuple(each.func for each in validators if each.info.mode == "after")


@cache
def _adapter(model: type[Section], name: str) -> TypeAdapter[Any]:
    return TypeAdapter(model.model_fields[name].rebuild_annotation())
