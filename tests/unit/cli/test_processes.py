"""Ending exactly what is ours."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import replace

import pytest

from orchestrator.cli.processes import MARK, Process, end_marked, marked, wait_until

SLEEP = "import time; time.sleep(300)"


@pytest.fixture
def mark() -> Iterator[str]:
    name = f"stack-test-{uuid.uuid4().hex}"
    yield name
    end_marked(name, patience_s=0.0)


def start(mark: str, code: str = SLEEP) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, MARK: mark}, stdout=subprocess.PIPE, start_new_session=True
    )


def test_everything_with_the_mark_is_ended_children_of_other_sessions_too(mark: str) -> None:
    nested = (
        f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {SLEEP!r}], start_new_session=True); {SLEEP}"
    )
    parent = start(f"{mark}/ray", nested)
    assert wait_until(lambda: len(marked(mark)) == 2, timeout_s=20)
    assert end_marked(mark, patience_s=5.0) == 2
    assert marked(mark) == []
    assert parent.wait(5) == -signal.SIGTERM


def test_who_ignores_sigterm_is_killed(mark: str) -> None:
    child = start(
        mark, f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('on', flush=True); {SLEEP}"
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"on\n"
    assert end_marked(mark, patience_s=0.2) == 1
    assert child.wait(5) == -signal.SIGKILL


def test_another_stack_is_left_alone(mark: str) -> None:
    other = start(f"{mark}0")  # begins with the same letters, and is another name
    assert wait_until(lambda: len(marked(f"{mark}0")) == 1, timeout_s=20)
    assert marked(mark) == []
    assert end_marked(mark, patience_s=0.0) == 0
    assert other.poll() is None
    end_marked(f"{mark}0", patience_s=0.0)


def test_a_reused_pid_is_another_process(mark: str) -> None:
    child = start(mark)
    now = Process.of(child.pid)
    assert now is not None
    earlier = replace(now, started=now.started - 1)
    assert not earlier.alive
    earlier.send(signal.SIGKILL)
    assert child.poll() is None
    now.send(signal.SIGKILL)
    assert child.wait(5) == -signal.SIGKILL
    assert not now.alive
