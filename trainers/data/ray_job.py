"""The same preparation as a Ray Data job: pieces of the source are looked at, and written, on all nodes.

    python -m trainers.data.ray_job RUN_FILE --root DIRECTORY      beside a running Ray, as `ray job submit` starts it

The directory must be the same on every node: pieces are written into their places in shared arrays. Ray is imported when
the job begins, never by a rank or by a process that ranks are forked from.
"""

from __future__ import annotations

import logging
import pickle
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from trainers.data.prepare import main
from trainers.errors import BadConfig

T = TypeVar("T")
R = TypeVar("R")


def on_ray(function: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
    """Map a function over items on the cluster that this process is connected to, in order. Raises BadConfig, too."""
    import ray.data

    packed = [{"number": number, "item": pickle.dumps(item)} for number, item in enumerate(items)]
    work = partial(_work, pickle.dumps(function))
    done = ray.data.from_items(packed, override_num_blocks=len(packed)).map(work).take_all()
    for row in sorted(done, key=lambda each: int(each["number"])):
        told = pickle.loads(row["told"])
        if isinstance(told, _Refused):
            raise BadConfig(told.path, told.got, told.expected)
        yield told


@dataclass(frozen=True)
class _Refused:
    """A BadConfig on its way: Ray would wrap the exception in one of its own."""

    path: str
    got: Any
    expected: str


def _work(function: bytes, row: dict[str, Any]) -> dict[str, Any]:
    told: Any
    try:
        told = pickle.loads(function)(pickle.loads(row["item"]))
    except BadConfig as error:
        told = _Refused(error.path, error.got, error.expected)
    return {"number": row["number"], "told": pickle.dumps(told)}


def run(arguments: Sequence[str]) -> int:
    import ray

    ray.init(address="auto", logging_level=logging.WARNING)
    ray.data.DataContext.get_current().enable_progress_bars = False
    return main(arguments, on_ray)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
