"""Ending exactly what is ours."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.cli.processes import MARK, Process, end_marked, marked, of_session, wait_until

SLEEP = "import time; time.sleep(300)"


@pytest.fixture
def mark() -> Iterator[str]:
    name = f"stack-test-{uuid.uuid4().hex}"
    yield name
    end_marked(name, patience_s=0.0)


def start(mark: str, code: str = SLEEP, stdin: int | None = None) -> subprocess.Popen[bytes]:
    command, env = [sys.executable, "-c", code], {**os.environ, MARK: mark}
    return subprocess.Popen(command, env=env, stdin=stdin, stdout=subprocess.PIPE, start_new_session=True)


def test_everything_with_the_mark_is_ended_children_of_other_sessions_too(mark: str) -> None:
    nested = (
        f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {SLEEP!r}], start_new_session=True); {SLEEP}"
    )
    parent = start(f"{mark}/ray", nested)
    assert wait_until(lambda: len(marked(mark)) == 2, timeout_s=20)
    assert end_marked(mark, patience_s=5.0) == 2
    assert marked(mark) == []
    assert parent.wait(5) == -signal.SIGTERM


# It says its pid only once it has forgotten: /proc shows an empty environment also for a moment within each execve.
FORGOT = f"import os; print(os.getpid(), flush=True); {SLEEP}"
FORGETS_ITS_MARK = f"import os, sys; os.execve(sys.executable, [sys.executable, '-c', {FORGOT!r}], {{}})"
STARTS_ONE = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {FORGETS_ITS_MARK!r}])"


def who_forgot(parent: subprocess.Popen[bytes]) -> int:
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert Path(f"/proc/{pid}/environ").read_bytes() == b""
    return pid


def test_a_child_that_overwrote_its_environment_is_ended_too(mark: str) -> None:
    parent = start(mark, f"{STARTS_ONE}; {SLEEP}")
    child = who_forgot(parent)
    assert end_marked(mark, patience_s=5.0) == 2
    assert Process.of(child) is None


def test_an_orphan_that_overwrote_its_environment_is_known_by_its_session(mark: str) -> None:
    parent = start(mark, f"{STARTS_ONE}; sys.stdin.read()", stdin=subprocess.PIPE)
    leader = Process.of(parent.pid)
    assert leader is not None
    orphan = who_forgot(parent)
    assert parent.stdin is not None
    parent.stdin.close()
    parent.wait(20)
    assert marked(mark) == []
    assert [each.pid for each in of_session(leader)] == [orphan]
    assert end_marked(mark, patience_s=5.0, known=of_session(leader)) == 1
    assert Process.of(orphan) is None
    assert of_session(replace(leader, pid=os.getppid())) == [], "that pid is another's"


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
