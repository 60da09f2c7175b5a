"""The base of every section of a run file, and the plain kinds of value that sections share."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from orchestrator.spec.unread import Unread

LARGEST_COUNT = 2**31 - 1
"""Progress tells of epochs and workers in 32 bits, and of products of two counts in 64."""

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


class Section(BaseModel):
    """Unknown keys are refused, values never change, and numbers are finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    together: ClassVar[bool] = False  # its keys say one thing together: where they disagree, none of them can be read

    def says(self, name: str) -> bool:
        """Whether the key has a value, right or wrong."""
        return self.__dict__.get(name, name) is not None

    if not TYPE_CHECKING:

        def __getattr__(self, name):
            if name in type(self).model_fields:  # one that is not there was wrong: see `partial`
                raise Unread(name)
            return super().__getattr__(name)


def _not_a_lookalike(value: Any) -> Any:
    # pydantic would read `true` as 1 and "5" as 5: in a run file both are mistakes worth a word.
    if isinstance(value, bool | str):
        raise ValueError("must be a number, without quotes")
    return value


def _label(value: Any) -> Any:
    if isinstance(value, str) and not _LABEL.fullmatch(value):
        raise ValueError(
            "must be 1 to 63 lower-case letters, digits and hyphens, beginning and ending with a letter or digit"
        )
    return value


def of_numbers(number: int, meaning: str) -> BeforeValidator:
    """A list of so many numbers; which of them is missing would be a guess."""

    def check(value: Any) -> Any:
        if not isinstance(value, list | tuple) or len(value) != number:
            raise ValueError(f"must be a list of {number} numbers ({meaning})")
        return value

    return BeforeValidator(check)


Whole = Annotated[int, BeforeValidator(_not_a_lookalike)]
Count = Annotated[Whole, Field(le=LARGEST_COUNT)]
Number = Annotated[float, BeforeValidator(_not_a_lookalike)]
Label = Annotated[str, BeforeValidator(_label)]
