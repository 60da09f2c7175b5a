"""The stores under contract, and the submissions that are put into them."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from orchestrator import store as stores
from orchestrator.core.records import Submission
from orchestrator.core.runs import (
    Cancelled,
    Failed,
    Failure,
    FailureKind,
    Queued,
    Reason,
    ReasonCode,
    Recovering,
    Result,
    Run,
    Running,
    RunState,
    Starting,
    Succeeded,
)
from orchestrator.ports import Change, Store
from orchestrator.store import SqlStore
from tests import builders

T = TypeVar("T")
KEY_FILE = Path(tempfile.mkdtemp(prefix="evertrain-key-")) / "secrets.key"
atexit.register(shutil.rmtree, KEY_FILE.parent, ignore_errors=True)


def open_store(url: str) -> SqlStore:
    """With a key of this process."""
    return stores.open_store(url, KEY_FILE)


@dataclass(frozen=True)
class Backend:
    name: str
    open: Callable[[], Store]  # the same content each time, where there is a disk
    url: str = ""


def submission(number: int, **changes: Any) -> Submission:
    return builders.submission(**{"run_id": run_id(number), "submitted_at": 1000.0 + number, **changes})


def run_id(number: int) -> str:
    return f"run-{number:010d}"


def submit(store: Store, numbers: Iterable[int], **changes: Any) -> list[Run]:
    return [each.run for each in store.submit([submission(number, **changes) for number in numbers])]


def move(store: Store, run: Run, state: RunState) -> Run:
    """The run in that state; nobody else may be changing it."""
    (moved,) = store.apply([Change(replace(run, state=state))])
    assert moved is not None
    return moved


_REASON = Reason(ReasonCode.PLACED, "for a test")
_FAILURE = Failure(FailureKind.KILLED, "killed by signal 9", rank=1, host="alpha", step=3)
STATES: dict[str, RunState] = {
    state.kind: state
    for state in (
        Queued(_REASON, not_before_at=7.5),
        Starting(_REASON),
        Running(_REASON, incarnation=2),
        Recovering(_REASON, incarnation=3, failure=_FAILURE),
        Succeeded(_REASON, Result(10, {"test_accuracy": 0.98}, "/seals/10", stopped_early="no progress")),
        Failed(_REASON, _FAILURE),
        Cancelled(_REASON),
    )
}


def at_once(calls: Iterable[Callable[[], T]]) -> list[T]:
    """Run all of them in threads of their own; the answers in order."""
    todo = list(calls)
    with ThreadPoolExecutor(len(todo)) as pool:
        return [each.result(timeout=60) for each in [pool.submit(call) for call in todo]]
