"""SIGTERM: end in order."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from trainers.errors import Stopped


class StopRequest:
    """Before and after the training loop a SIGTERM ends the rank at once; inside, the ranks agree on a step first."""

    def __init__(self) -> None:
        self._asked = False
        self._deferred = False

    def listen(self) -> None:
        """Does nothing outside the main thread (Ray Train runs its function in another): its owner stops the rank."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._on_signal)

    def asked(self) -> bool:
        return self._asked

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        self._deferred = True
        yield
        self._deferred = False

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
        if not self._deferred:
            raise Stopped("stopped by SIGTERM")
