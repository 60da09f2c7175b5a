"""Passages of the standard library's help and the words of a text: what a rank learns from, and the planner counts.
Standard library only."""

from __future__ import annotations

import pydoc_data.topics
import re
import textwrap
from collections import Counter
from collections.abc import Iterator

_TOPICS = 8
_SHORTEST, _LONGEST = 40, 160  # characters of a passage
_WORDS = re.compile(r"\w+|[^\w\s]")  # a run of letters and digits, or one sign


def help_text() -> str:
    """All of it, which grows from one Python to the next."""
    return "\n\n".join(text for _, text in sorted(pydoc_data.topics.topics.items()))


def labelled_passages() -> list[tuple[str, str]]:
    """Of the topics with most of them, each with its topic. What stands twice anywhere is left out."""
    passages = {name: list(_passages(text)) for name, text in sorted(pydoc_data.topics.topics.items())}
    times = Counter(each for those in passages.values() for each in those)
    own = {name: [each for each in those if times[each] == 1] for name, those in passages.items()}
    largest = sorted(own, key=lambda name: len(own[name]), reverse=True)[:_TOPICS]
    return [(text, name) for name in sorted(largest) for text in own[name]]


def words(text: str) -> list[str]:
    """In lower case, signs each alone; a text of blanks only is one blank word."""
    return _WORDS.findall(text.lower()) or [""]


def _passages(text: str) -> Iterator[str]:
    for paragraph in text.split("\n\n"):
        yield from (each for each in textwrap.wrap(paragraph, _LONGEST) if len(each) >= _SHORTEST)
