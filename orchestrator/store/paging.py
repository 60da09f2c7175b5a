"""Page cursors: the number of the last run that was shown. Opaque to callers, so that it may change."""

from __future__ import annotations

import base64
import binascii

from orchestrator.errors import InvalidSpec, Problem

MAX_PAGE = 1000
_PREFIX = "r1:"


def cursor(number: int) -> str:
    return base64.urlsafe_b64encode(f"{_PREFIX}{number}".encode()).decode().rstrip("=")


def number(page: str) -> int | None:
    """None for the first page. Raises InvalidSpec for text that `cursor` did not write."""
    if not page:
        return None
    try:
        text = base64.urlsafe_b64decode(page + "=" * (-len(page) % 4)).decode("ascii")
        if text.startswith(_PREFIX) and text[len(_PREFIX) :].isdecimal():
            return min(int(text[len(_PREFIX) :]), 2**63 - 1)
    except (binascii.Error, ValueError):
        pass
    raise InvalidSpec([Problem("page", page[:80], "use the next_page of an earlier answer, or leave it empty")])


def size(limit: int) -> int:
    return max(1, min(limit, MAX_PAGE))
