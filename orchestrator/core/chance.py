"""Chance, where a decision is left to it: an argument, as the time is. `random.Random`, seeded by whoever acts, is one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

T = TypeVar("T")


class Chance(Protocol):
    def random(self) -> float:
        """Within [0, 1)."""
        ...

    def uniform(self, a: float, b: float) -> float: ...

    def randint(self, a: int, b: int) -> int:
        """Both ends are in."""
        ...

    def choice(self, seq: Sequence[T]) -> T: ...
