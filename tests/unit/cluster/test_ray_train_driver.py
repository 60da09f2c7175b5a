"""The driver of `launcher: ray_train`, as a process."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys

LEADER = """
import os, subprocess, sys, time
driver = subprocess.Popen(
    [sys.executable, "-m", "orchestrator.cluster.ray_train_driver", str(os.getpid())],
    stdin=int(sys.argv[1]), pass_fds=[int(sys.argv[1])], start_new_session=True,
)
print(driver.pid, flush=True)
time.sleep(600)
"""

GREEDY = """
import time
from orchestrator.cluster.ray_train_driver import hold_to_memory
hold_to_memory(256 * 2**20, lambda evidence: print(evidence, flush=True))
kept = bytearray(b"x") * (512 * 2**20)
time.sleep(600)
"""


def test_the_driver_dies_with_its_leader() -> None:
    """Nobody is left who could end it: its job's pipe stays open here, so it is not that which it notices."""
    reading, writing = os.pipe()
    leader = subprocess.Popen([sys.executable, "-c", LEADER, str(reading)], stdout=subprocess.PIPE, pass_fds=[reading])
    assert leader.stdout is not None
    driver = os.pidfd_open(int(leader.stdout.readline()))
    try:
        leader.kill()
        leader.wait()
        assert select.select([driver], [], [], 30.0)[0], "the driver lives on without its leader"
    finally:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(driver, signal.SIGKILL)
        for descriptor in (driver, reading, writing):
            os.close(descriptor)


def test_a_worker_that_uses_more_memory_than_it_may_says_so_and_ends() -> None:
    worker = subprocess.run([sys.executable, "-c", GREEDY], stdout=subprocess.PIPE, text=True, timeout=60)
    assert worker.returncode == -signal.SIGKILL
    assert "GiB used of 0.25 GiB allowed" in worker.stdout
