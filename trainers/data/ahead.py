"""Data made ready before a run has any worker: what a node forks from its zygote while no gang is placed.

It tells its host what it does as ranks do, and ends as they do. A source of several pieces is shared out as a Ray Data
job; one piece is made here, where a job would only run the same function elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from trainers.config import Data, section
from trainers.contract import ExitCode, Hello, Message, Prepared, Preparing
from trainers.data.prepare import here, prepare
from trainers.data.ray_job import Share, connect, on_ray
from trainers.errors import account
from trainers.progress import SocketSink

T = TypeVar("T")
R = TypeVar("R")


def run(socket: str, data: Mapping[str, Any], share: Mapping[str, Any] | None, handed: Sequence[str]) -> int:
    """Prepare the data of a run file's section, and tell of it at `socket`; the exit code is the contract's.

    `share` is that of a Ray Data job; without it everything is done here. `handed` names the variables of the
    environment that the job's workers need as well.
    """
    sink = SocketSink(socket, Hello(0, os.getpid()))
    env = {name: os.environ[name] for name in handed}
    preparing = _Preparing(sink.put, None if share is None else Share(**share, env=env))
    try:
        made = prepare(section(Data, data, "data"), each=preparing.each, tell=preparing.tell)
    except BaseException as error:  # the contract: every end is told
        failed = account(error, 0)
        sink.put(failed)
        sink.close()
        return failed.code
    sink.put(Prepared(str(made.directory), dict(made.manifest.rows)))
    sink.close()
    return ExitCode.OK


class _Preparing:
    """Where the pieces are worked at, and what is told of that."""

    def __init__(self, put: Callable[[Message], None], share: Share | None) -> None:
        self._put, self._share = put, share
        self._on_ray = False

    def each(self, function: Callable[[T], R], items: Sequence[T]) -> Iterable[R]:
        if self._share is None or len(items) < 2:
            return here(function, items)
        if not self._on_ray:
            self._on_ray = True
            self.tell(f"waiting for Ray to take {len(items)} pieces")
            connect()
        return on_ray(function, items, self._share)

    def tell(self, words: str, done: int = 0, of: int = 0) -> None:
        self._put(Preparing(words, done, of, self._on_ray))
