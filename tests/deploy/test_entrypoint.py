"""The images' entrypoint beside this environment's Python, as it stands in an installation's `bin`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PATIENCE_S = 120.0


@pytest.fixture
def entrypoint(tmp_path: Path) -> Path:
    (tmp_path / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (tmp_path / "python").chmod(0o755)
    link = tmp_path / "evertrain-entrypoint"
    link.symlink_to(ROOT / "deploy" / "image" / "entrypoint.sh")
    return link


def test_an_agent_that_ends_is_started_again_until_it_is_told_to_stop(entrypoint: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    options = ["--server=127.0.0.1:1", "--cluster=x", "--ray-address=127.0.0.1:1", f"--token-file={tmp_path / 'none'}"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(entrypoint), "agent", *options],
            env={**os.environ, "PYTHONPATH": str(ROOT), "EVERTRAIN_AGENT_PAUSE_S": "0"},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + PATIENCE_S
        while log.read_text().count("is started again") < 2:
            assert time.monotonic() < deadline, log.read_text()
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        assert "--token-file" in log.read_text(), "the agent's own words reach the log"
        process.terminate()
        assert process.wait(timeout=PATIENCE_S) == 0
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def test_any_other_word_is_a_command(entrypoint: Path) -> None:
    done = subprocess.run([str(entrypoint), "echo", "it", "runs"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "it runs\n")
