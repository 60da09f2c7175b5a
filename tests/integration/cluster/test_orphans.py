"""A zygote is killed and cannot clear up any more: what its ranks started and shared goes all the same."""

from __future__ import annotations

import os
import signal

import psutil

from orchestrator.core import observations as seen
from tests.integration.cluster.conftest import Stage

STARTS_OTHERS = """
import os, pathlib, subprocess, time
for away in (False, True):
    print("started", subprocess.Popen(["sleep", "600"], start_new_session=away).pid, flush=True)
pathlib.Path(f"/dev/shm/torch_{os.getpid()}_of_the_test").touch()
print("shared", flush=True)
time.sleep(600)
"""


def test_what_ranks_started_and_shared_goes_with_their_zygote(stage: Stage) -> None:
    key = stage.run_script(STARTS_OTHERS)
    first = stage.server.wait_heard(key, seen.IncarnationStarted)
    stage.server.wait("both ranks' words", lambda: stage.server.text(key).count("shared") >= len(first.pids))
    words = [line.text.split() for line in stage.server.lines[key]]
    started = [int(word[1]) for word in words if word[0] == "started"]
    assert len(started) == 4
    assert all(map(psutil.pid_exists, started))
    os.kill(psutil.Process(first.pids[0]).ppid(), signal.SIGKILL)
    stage.server.wait_heard(key, seen.IncarnationFailed)
    stage.server.wait_heard(key, seen.IncarnationStarted, 2)
    assert not [pid for pid in started if psutil.pid_exists(pid)]
    assert not [pid for pid in first.pids if os.path.exists(f"/dev/shm/torch_{pid}_of_the_test")]
    stage.server.stop(key, "cancel")
    assert stage.server.wait_ended(key).outcome == "cancelled"
