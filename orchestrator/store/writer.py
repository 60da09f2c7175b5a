"""Group commit: one thread owns the writing connection and puts all waiting calls into one transaction.

A commit costs a flush of the disk however much it holds, so under load the calls that arrive during one commit share
the next. Each call runs under a savepoint of its own: what is wrong with one does not touch its neighbours. A caller
returns only after the commit that holds its work.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine

from orchestrator.errors import Unavailable
from orchestrator.store.foreign_errors import concerns_one_call, translate

T = TypeVar("T")
MAX_GROUP = 256


@dataclass(frozen=True)
class _Call:
    work: Callable[[Connection], Any]
    done: Future[Any]


class GroupWriter:
    def __init__(self, engine: Engine, where: str) -> None:
        self._engine = engine
        self._where = where
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._closed = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._serve, name="store-writer", daemon=True)
        self._thread.start()

    def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a transaction and answer its result once that is durable. `work` may run on a transaction that
        holds other calls; it must not commit. Raises what `work` raises, translated. Unavailable: nothing was
        written, unless the connection to a PostgreSQL server broke during the commit itself; then nobody can tell, and
        idempotency keys and versions make trying again safe.
        """
        done: Future[T] = Future()
        with self._lock:
            if self._closed:
                raise Unavailable(f"{self._where}: the store is closed")
            self._calls.put(_Call(work, done))
        return done.result()

    def close(self) -> None:
        """Finish what was handed in, then stop."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._calls.put(None)
        self._thread.join()

    def _serve(self) -> None:
        while True:
            first = self._calls.get()
            if first is None:
                return
            group, last = self._gather(first)
            self._commit(group)
            if last:
                return

    def _gather(self, first: _Call) -> tuple[list[_Call], bool]:
        """What waits at this moment; True when the end of the queue was among it."""
        group = [first]
        while len(group) < MAX_GROUP:
            try:
                call = self._calls.get_nowait()
            except queue.Empty:
                break
            if call is None:
                return group, True
            group.append(call)
        return group, False

    def _commit(self, group: list[_Call]) -> None:
        outcomes: list[tuple[Any, Exception | None]] = []
        try:
            with self._engine.begin() as connection:
                outcomes = [self._attempt(connection, call) for call in group]
        except Exception as error:  # whatever it was, the callers must hear of it, and the thread must live
            for call in group:
                call.done.set_exception(translate(error, self._where))
            return
        for call, (result, failure) in zip(group, outcomes, strict=True):
            if failure is None:
                call.done.set_result(result)
            else:
                call.done.set_exception(failure)

    def _attempt(self, connection: Connection, call: _Call) -> tuple[Any, Exception | None]:
        try:
            with connection.begin_nested():
                return call.work(connection), None
        except Exception as error:
            if not concerns_one_call(error):
                raise
            return None, translate(error, self._where)
