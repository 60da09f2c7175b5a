"""What is wrong with an environment is told at once and once; what may pass is tried again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from pathlib import Path

import pytest

from orchestrator.cluster.environments import EnvironmentKey, python_of, requirements_are_wrong
from orchestrator.cluster.gang_messages import StartFailed
from orchestrator.cluster.keeper import Keeper
from orchestrator.cluster.local_dirs import NodeDirs

NO_SUCH = """
ERROR: Could not find a version that satisfies the requirement nosuchthing (from versions: none)
ERROR: No matching distribution found for nosuchthing
"""
OFFLINE = """
WARNING: Retrying (Retry(total=0, connect=None, read=None, redirect=None, status=None)) after connection broken by \
'NewConnectionError('<HTTPSConnection object>: Failed to establish a new connection: [Errno 111] Connection refused')'
"""
CONFLICT = """
ERROR: Cannot install a==1.0 and b==1.0 because these package versions have conflicting dependencies.
ERROR: ResolutionImpossible: for help visit https://pip.pypa.io/en/latest/topics/dependency-resolution/
"""
NO_FILE = "ERROR: Could not install packages due to an OSError: [Errno 2] No such file or directory: '/a-1.0-py3.whl'"
NO_WHEEL = "ERROR: exist.whl is not a valid wheel filename."
FULL = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n"


@pytest.mark.parametrize(
    ("output", "wrong"),
    [
        (NO_SUCH, True),
        (OFFLINE + NO_SUCH, False),
        (CONFLICT, True),
        (NO_FILE, True),
        (NO_WHEEL, True),
        (FULL, False),
        ("Killed\n", False),
    ],
)
def test_only_what_asks_for_the_impossible_is_given_up_at_once(output: str, wrong: bool) -> None:
    assert requirements_are_wrong(output) is wrong


def pipes() -> set[str]:
    found = set()
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.add(os.readlink(each))
    return {each for each in found if each.startswith("pipe:")}


def not_a_python(kind: str, directory: Path) -> Path:
    path = directory / "python"
    if kind == "a directory":
        path.mkdir()
    elif kind == "not executable":
        path.touch(mode=0o600)
    elif kind == "no program":
        path.write_bytes(b"\x00")
        path.chmod(0o700)
    return path


@pytest.mark.parametrize("kind", ["missing", "a directory", "not executable", "no program"])
def test_a_python_that_cannot_be_started_is_the_run_files_fault_and_leaks_nothing(tmp_path: Path, kind: str) -> None:
    keeper = Keeper(NodeDirs(str(tmp_path / "n"), "node-1"), os.getpid())
    path, before = not_a_python(kind, tmp_path), pipes()
    with pytest.raises(StartFailed) as failed:
        asyncio.run(keeper.zygote({"python": str(path)}, "cpu"))
    assert failed.value.final
    assert str(path) in str(failed.value)
    deadline = time.monotonic() + 10  # a thread reads what a zygote prints, to its end
    while pipes() - before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not pipes() - before


def test_an_environment_that_cannot_be_kept_on_disk_is_tried_again(tmp_path: Path) -> None:
    keeper = Keeper(NodeDirs(str(tmp_path), "node-1"), os.getpid())
    NodeDirs(str(tmp_path), "node-1").environments.rmdir()
    with pytest.raises(StartFailed, match="no environment in") as failed:
        asyncio.run(keeper.zygote({"requirements": ["six"]}, "cpu"))
    assert not failed.value.final


def test_a_regular_executable_is_taken_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "python"
    path.touch(mode=0o700)
    assert python_of(EnvironmentKey(str(path), ()), tmp_path) == str(path)
