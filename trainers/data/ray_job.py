"""The same preparation as a Ray Data job: pieces of the source are looked at, and written, on all nodes.

    python -m trainers.data.ray_job RUN_FILE --root DIRECTORY      beside a running Ray, as `ray job submit` starts it

The directory must be the same on every node: pieces are written into their places in shared arrays. Ray is imported when
the job begins, never by a rank or by a process that ranks are forked from.
"""

from __future__ import annotations

import logging
import os
import pickle
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from trainers.data.prepare import main
from trainers.errors import BadConfig

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Share:
    """What of the cluster a job may use. Without a node: all of it, and what Ray gives."""

    node_id: str | None = None  # the only node that works; for directories that are not the same everywhere
    cpus: float = 1.0  # of one piece at a time
    at_once: int | None = None  # pieces
    env: Mapping[str, str] = field(default_factory=dict)  # what reading the source needs: names of regions, credentials


def connect() -> None:
    """Join the running cluster, unless this process has. Its address is in the environment, or Ray's own file."""
    import ray
    import ray.data

    if not ray.is_initialized():
        ray.init(address=os.environ.get("RAY_ADDRESS", "auto"), logging_level=logging.WARNING, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False


def on_ray(function: Callable[[T], R], items: Sequence[T], share: Share = Share()) -> Iterator[R]:
    """Map a function over items on the cluster that this process is connected to, in order. Raises BadConfig, too."""
    import ray.data
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    packed = [{"number": number, "item": pickle.dumps((share.env, item))} for number, item in enumerate(items)]
    placed: dict[str, Any] = {"num_cpus": share.cpus, "concurrency": share.at_once}
    if share.node_id is not None:
        placed["scheduling_strategy"] = NodeAffinitySchedulingStrategy(share.node_id, soft=False)
    work = partial(_work, pickle.dumps(function))
    waiting: dict[int, Any] = {}  # results that came before one of an earlier item
    told = 0
    for row in ray.data.from_items(packed, override_num_blocks=len(packed)).map(work, **placed).iter_rows():
        waiting[int(row["number"])] = pickle.loads(row["told"])
        while told in waiting:
            result = waiting.pop(told)
            if isinstance(result, _Refused):
                raise BadConfig(result.path, result.got, result.expected)
            yield result
            told += 1


@dataclass(frozen=True)
class _Refused:
    """A BadConfig on its way: Ray would wrap the exception in one of its own."""

    path: str
    got: Any
    expected: str


def _work(function: bytes, row: dict[str, Any]) -> dict[str, Any]:
    told: Any
    env, item = pickle.loads(row["item"])
    os.environ.update(env)  # a worker of Ray's serves one job only
    try:
        told = pickle.loads(function)(item)
    except BadConfig as error:
        told = _Refused(error.path, error.got, error.expected)
    return {"number": row["number"], "told": pickle.dumps(told)}


def run(arguments: Sequence[str]) -> int:
    connect()
    return main(arguments, on_ray)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
