"""How numbers and places stand in sentences."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """`1 rank`, `2 ranks`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def in_project(project: str) -> str:
    """` in project 'a'`, or nothing for `*`, which is all of them."""
    return "" if project == "*" else f" in project {project!r}"
