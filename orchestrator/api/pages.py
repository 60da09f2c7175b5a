"""Pages of a listing that the store answers whole: versions of models, tokens. A message has a size limit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from orchestrator.api.parts import bad_request

PAGE = 1000

T = TypeVar("T")


def page_of(items: Sequence[T], key: Callable[[T], str], after: str) -> tuple[Sequence[T], str]:
    """The items behind the one of that key, in the order given, and the next page's `after`; "" with the last one.

    None of them ever goes, so that the last one shown is found again and nothing new shifts the rest. Raises InvalidSpec.
    """
    start = 0
    if after:
        start = next((place for place, each in enumerate(items, 1) if key(each) == after), 0)
        if not start:
            raise bad_request("page", after, "use the next_page of an earlier answer, or leave it empty")
    shown = items[start : start + PAGE]
    return shown, key(shown[-1]) if start + PAGE < len(items) else ""
