"""A server that is killed while it retrains: `python -m tests.unit.control.retraining_victim DIRECTORY MOMENT`.

It decides on a drift of a watched model and carries that out, and kills itself with SIGKILL at the moment it is told.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from orchestrator.adapters import snapshots as writing
from orchestrator.adapters.observations import DiskObservationStore
from orchestrator.store import open_store
from tests.unit.control.watched import Watching

MOMENTS = ("decided", "snapshot begun", "snapshot taken", "submitted", "noted")


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def before(of: Any, name: str, *, number: int = 1) -> None:
    """Kill this process when the method is called for the n-th time."""
    real: Callable[..., Any] = getattr(of, name)
    calls = iter(range(1, 1000))

    def call(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == number:
            kill()
        return real(*args, **kwargs)

    setattr(of, name, call)


def after(of: Any, name: str) -> None:
    real: Callable[..., Any] = getattr(of, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        real(*args, **kwargs)
        kill()

    setattr(of, name, call)


def restarted(root: Path) -> Watching:
    store = open_store(f"sqlite:///{root / 'evertrain.db'}", root / "secrets.key")
    return Watching(root / "storage", store, DiskObservationStore(root / "observations", 2**30))


def main(root: Path, moment: str) -> None:
    watching = restarted(root)
    snapshots: Any = watching.retraining._snapshots
    match moment:
        case "decided":
            after(watching.store, "record_decision")
        case "snapshot begun":
            before(writing, "_write_rows")
        case "snapshot taken":
            after(snapshots, "take")
        case "submitted":
            after(watching.store, "submit")
        case "noted":
            after(watching.store, "change_decision")
    watching.drift()
    watching.passes()
    raise SystemExit(f"lived on after {moment!r}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
