"""`orchestrator.Observer`: tells the server what a model was asked and what it answered, from inside of what serves it.

    observer = orchestrator.Observer("churn", version=3)
    request = observer.record({"age": 41, "city": "Oslo"}, prediction="stays", confidence=0.93)
    ...
    observer.label(request, "leaves")  # whenever it is known, from any process
    observer.close()

Recording appends to a list and returns. A thread of its own encodes and sends; while the server is away rows wait, and
beyond the buffer they are dropped and counted. Nothing of this blocks serving, or raises into it.
"""

from __future__ import annotations

import atexit
import concurrent.futures.thread  # noqa: F401  # pyarrow needs it, and once a program ends it can no longer be imported
import copy
import itertools
import logging
import os
import socket
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from orchestrator.api.backlog import Backlog, Block, Counts, Label, Row
from orchestrator.api.delivery import COMPLAIN_EVERY_S, Delivery
from orchestrator.api.observing import BATCH_ROWS
from orchestrator.api.recorded import CONFIDENCE, LABEL, PREDICTION, REQUEST, TIME, Encoder, RowEncoder, SketchEncoder
from orchestrator.errors import Refused
from orchestrator.settings import Connection, find_connection

log = logging.getLogger(__name__)

EXIT_S = 5.0  # for so long the end of the process waits for what was recorded

_PLAIN = frozenset({float, int, str, bool, type(None)})

_living: weakref.WeakSet[Observer] = weakref.WeakSet()


class Observer:
    """Of one model. Safe from several threads, and in processes that are forked after it was made.

    `version`: of the model that answers; 0 where that is not known. `every_s`: how long a row may wait before it is sent,
    by default a second. `sketches`: send a summary of the rows in their place, some kilobytes however many they are; then
    `every_s` is a minute by default. `buffer`: how many rows and labels may wait.
    """

    def __init__(
        self,
        model: str,
        *,
        version: int = 0,
        project: str = "",
        server: str = "",
        token: str = "",
        ca_cert: Path | None = None,
        sketches: bool = False,
        shadow: bool = False,
        every_s: float | None = None,
        buffer: int = 100_000,
    ) -> None:
        """`shadow`: the version does not serve but stands by, and is asked beside the one that does, under the same request
        ids; only what it answers is sent.

        Without server and token, those of EVERTRAIN_SERVER and EVERTRAIN_TOKEN, or of the last `evertrain up`. Raises
        Refused when nothing says which server, and for a shadow of no version, or by sketches.
        """
        if shadow and (sketches or not version):
            raise Refused("answers in shadow are compared one by one: say whose version they are, and send no sketches")
        self._connection = Connection(server, token, ca_cert) if server and token else find_connection(server, token)
        self._model, self._version, self._project = model, version, project
        self._sketches, self._shadow, self._buffer = sketches, shadow, buffer
        self._every_s = every_s if every_s is not None else (60.0 if sketches else 1.0)
        self._begin()
        _living.add(self)

    def _begin(self) -> None:
        """Also in a forked child, where the thread is missing and what waits is the parent's to send."""
        self._source = f"{socket.gethostname()[:60]}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._ids = itertools.count(1)
        self._backlog = Backlog(self._buffer, plenty=BATCH_ROWS)
        self._thread: Delivery | None = None
        self._complained_at = -COMPLAIN_EVERY_S
        self._starting = threading.Lock()

    def __enter__(self) -> Observer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def counts(self) -> Counts:
        """What has become of everything that was recorded."""
        return self._backlog.counts()

    def record(
        self,
        features: Mapping[str, Any],
        *,
        prediction: Any = None,
        confidence: float | None = None,
        label: Any = None,
        request: str = "",
        at: float | None = None,
    ) -> str:
        """One answer of the model. Features by the names that it was trained with; an image is an array [height, width] with
        channels first, last or none, in the units of the training images (0 to 255 where those were files), of which only
        what it looks like is sent: brightness, contrast, sharpness and the like. `at`: seconds since the epoch, by default
        now. Answers the request's id, which `label` takes: yours, or a new one.
        """
        request = request or f"{self._source}-{next(self._ids)}"
        try:
            at = time.time() if at is None else at
            held, image_bytes = _held(features)
            self._backlog.put(Row(held, request, at, prediction, confidence, label, image_bytes))
            if self._thread is None:
                self._start()
        except Exception as error:
            self._lost(error)
        return request

    def record_many(
        self,
        features: Mapping[str, Sequence[Any]],
        *,
        predictions: Sequence[Any] | None = None,
        confidences: Sequence[float] | None = None,
        labels: Sequence[Any] | None = None,
        requests: Sequence[str] | None = None,
        at: float | None = None,
    ) -> Sequence[str]:
        """Many answers at once, a column for each feature: arrays, lists, or a data frame. They are copied. Answers the
        requests' ids.
        """
        ids: Sequence[str] = []
        try:
            given = {**dict(features.items()), PREDICTION: predictions, CONFIDENCE: confidences, LABEL: labels}
            columns = {name: copy.copy(each) for name, each in given.items() if each is not None}
            rows = max(map(len, columns.values()), default=0)
            ids = [f"{self._source}-{number}" for number in itertools.islice(self._ids, rows)]
            ids = ids if requests is None else list(requests)
            at = time.time() if at is None else at
            images = sum(getattr(each, "nbytes", 0) for each in columns.values() if getattr(each, "ndim", 1) > 2)
            self._backlog.put(Block(rows, {**columns, REQUEST: ids, TIME: [at] * rows}, images), rows)
            if self._thread is None:
                self._start()
        except Exception as error:
            self._lost(error)
        return ids

    def label(self, request: str, label: Any) -> None:
        """What was true of a request that was recorded before, here or (unless `sketches`) in another process."""
        try:
            self._backlog.put(Label(request, label))
            if self._thread is None:
                self._start()
        except Exception as error:
            self._lost(error)

    def flush(self, timeout_s: float = 10.0) -> bool:
        """Wait until all that was recorded before has been sent or dropped; False where that takes longer."""
        return self._thread is None or self._backlog.mark().wait(timeout_s)

    def close(self, timeout_s: float = 5.0) -> None:
        """Send what waits, and take no more. What was not sent after `timeout_s` is lost, and the log says how much."""
        self._backlog.closed = True
        self._backlog.awake.set()
        _living.discard(self)
        if self._thread is None:
            return
        self._thread.join(timeout_s)
        self._thread.give_up()
        if lost := self.counts.waiting:
            log.warning("observer of %s closed: %d rows and labels were not sent", self._model, lost)

    def _start(self) -> None:
        """With the first row, and not before: servers fork."""
        with self._starting:
            if self._thread is not None or self._backlog.closed:
                return
            encoder: Encoder = SketchEncoder(self._every_s) if self._sketches else RowEncoder(shadow=self._shadow)
            self._thread = Delivery(
                self._backlog,
                encoder,
                self._connection,
                project=self._project,
                model=self._model,
                version=self._version,
                source=self._source,
                every_s=min(self._every_s, 1.0) if self._sketches else self._every_s,
            )
            self._thread.start()

    def _lost(self, error: Exception) -> None:
        self._backlog.lose()
        if time.monotonic() - self._complained_at >= COMPLAIN_EVERY_S:
            self._complained_at = time.monotonic()
            log.warning("observer of %s: what was recorded cannot be kept: %r", self._model, error)


def _held(features: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    """What the program that recorded it can no longer change, and the bytes of its arrays."""
    held, size = dict(features), 0
    if _PLAIN.issuperset(map(type, held.values())):  # nearly always: this is in the way of serving
        return held, 0
    for name, value in features.items():
        if getattr(value, "ndim", 0):
            held[name], size = value.copy(), size + value.nbytes
    return held, size


def _each(do: Callable[[Observer], None]) -> None:
    for observer in list(_living):
        do(observer)


atexit.register(_each, lambda observer: observer.close(EXIT_S))
os.register_at_fork(after_in_child=lambda: _each(Observer._begin))
