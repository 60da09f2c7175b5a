"""What an observer has recorded and not yet sent: bounded, counted, and quick to add to."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple


class Row(NamedTuple):
    """One answer of the model."""

    features: Mapping[str, Any]
    request: str
    at: float
    prediction: Any
    confidence: float | None
    label: Any
    image_bytes: int = 0


class Block(NamedTuple):
    """Many answers, by column; ours among them."""

    rows: int
    columns: Mapping[str, Any]
    image_bytes: int = 0


class Label(NamedTuple):
    """What was true of a request of before."""

    request: str
    label: Any


Entry = Row | Block | Label


@dataclass
class Counts:
    """Rows and labels of an observer since it was made."""

    recorded: int = 0
    sent: int = 0  # and durable at the server
    dropped: int = 0  # the buffer was full, or they could not be written as columns
    refused: int = 0  # by the server, in words that were logged

    @property
    def waiting(self) -> int:
        return self.recorded - self.sent - self.dropped - self.refused


IMAGE_BYTES = 64 * 2**20
"""That may wait to be looked at: what is sent of an image is a few numbers."""


class Backlog:
    """Safe from several threads. `limit`: rows and labels that may wait, beside those that are on their way."""

    def __init__(self, limit: int, plenty: int) -> None:
        self._limit, self._plenty = limit, plenty
        self._lock = threading.Lock()
        self._entries: deque[Entry | threading.Event] = deque()
        self._waiting = self._image_bytes = 0
        self._counts = Counts()
        self.awake = threading.Event()  # there is plenty, or somebody waits for it to be sent
        self.closed = False

    def put(self, entry: Entry, rows: int = 1) -> None:
        """Take it, or count it as dropped."""
        with self._lock:
            self._counts.recorded += rows
            images = 0 if isinstance(entry, Label) else entry.image_bytes
            full = self._waiting + rows > self._limit or self._image_bytes + images > IMAGE_BYTES
            if self.closed or full:
                self._counts.dropped += rows
                return
            self._entries.append(entry)
            self._waiting += rows
            self._image_bytes += images
            plenty = self._waiting >= self._plenty
        if plenty and not self.awake.is_set():
            self.awake.set()

    def lose(self, rows: int = 1) -> None:
        """Count what could not even be made an entry."""
        with self._lock:
            self._counts.recorded += rows
            self._counts.dropped += rows

    def mark(self) -> threading.Event:
        """Set once all that was put before has been settled."""
        reached = threading.Event()
        with self._lock:
            self._entries.append(reached)
        self.awake.set()
        return reached

    def take(self, most: int) -> tuple[list[Entry], threading.Event | None]:
        """The oldest entries, of some `most` rows together, and the mark that stands behind them, if any."""
        taken: list[Entry] = []
        rows = 0
        with self._lock:
            while self._entries and rows < most:
                entry = self._entries.popleft()
                if isinstance(entry, threading.Event):
                    return taken, entry
                taken.append(entry)
                held = entry.rows if isinstance(entry, Block) else 1
                rows, self._waiting = rows + held, self._waiting - held
                self._image_bytes -= 0 if isinstance(entry, Label) else entry.image_bytes
        return taken, None

    def settle(self, *, sent: int = 0, dropped: int = 0, refused: int = 0) -> None:
        with self._lock:
            self._counts.sent += sent
            self._counts.dropped += dropped
            self._counts.refused += refused

    def counts(self) -> Counts:
        with self._lock:
            return Counts(**vars(self._counts))
