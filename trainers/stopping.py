"""SIGTERM: end in order."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from trainers.errors import Stopped


class StopRequest:
    """Turns the first SIGTERM into `Stopped`: at once where nothing is lost by it, else where `held` ends.

    The training loop holds it and asks, so that all ranks stop after the same step; a message to the host holds it,
    lest half a line be sent. A rank that is already ending takes no notice.
    """

    def __init__(self) -> None:
        self._asked = False
        self._immediate = False

    def listen(self) -> None:
        """Does nothing outside the main thread (Ray Train runs its function in another): its owner stops the rank."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._on_signal)

    def asked(self) -> bool:
        return self._asked

    @contextlib.contextmanager
    def immediate(self) -> Iterator[None]:
        """Inside, a request raises Stopped as soon as Python gets to it."""
        try:
            self._immediate = True
            self._raise_if_asked()
            yield
        finally:
            self._immediate = False

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Inside, a request waits; it raises Stopped at the end, unless an exception ends it."""
        before = self._immediate
        self._immediate = False
        yield
        self._immediate = before
        self._raise_if_asked()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
        self._raise_if_asked()

    def _raise_if_asked(self) -> None:
        if self._asked and self._immediate:
            self._immediate = False
            raise Stopped("stopped by SIGTERM")
