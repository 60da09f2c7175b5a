"""A numbered queue that readers follow by long polls: nothing is lost between two polls, and nobody polls in vain."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Generic, TypeVar

T = TypeVar("T")


class Feed(Generic[T]):
    """Items are numbered from `first` on and kept until `drop_through`. For one event loop."""

    def __init__(self, first: int = 1) -> None:
        self._items: deque[tuple[int, T]] = deque()
        self._next = first
        self._changed = asyncio.Event()

    @property
    def last(self) -> int:
        """Number of the newest item; one below the first number when there was none."""
        return self._next - 1

    def put(self, item: T) -> int:
        number = self._next
        self._next += 1
        self._items.append((number, item))
        self.wake()
        return number

    def extend(self, items: Iterable[T]) -> None:
        for item in items:
            self.put(item)

    def wake(self) -> None:
        """Let every waiting poll answer now."""
        self._changed.set()
        self._changed = asyncio.Event()

    def drop_through(self, number: int) -> None:
        while self._items and self._items[0][0] <= number:
            self._items.popleft()

    def after(self, number: int, limit: int = 1000) -> list[tuple[int, T]]:
        found: list[tuple[int, T]] = []
        for numbered in self._items:
            if numbered[0] > number:
                found.append(numbered)
                if len(found) == limit:
                    break
        return found

    async def wait_after(self, number: int, timeout_s: float, limit: int = 1000) -> list[tuple[int, T]]:
        """Items above `number`; waits up to `timeout_s` for the first. Empty when there is none, or after `wake`."""
        changed = self._changed
        found = self.after(number, limit)
        if found or timeout_s <= 0:
            return found
        try:
            await asyncio.wait_for(changed.wait(), timeout_s)
        except TimeoutError:
            return []
        return self.after(number, limit)
