"""What cannot be judged because a key that it hangs on is wrong itself."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.errors import Problem


class Unread(Exception):
    """A key was asked for whose value is wrong, of which the file's author is told anyway."""


def as_far_as_read(found: Iterator[Problem]) -> Iterator[Problem]:
    """What a rule finds until it asks for such a key. From there on it would judge a value that nobody knows."""
    try:
        yield from found
    except Unread:
        return
