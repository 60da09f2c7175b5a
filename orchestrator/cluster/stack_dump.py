"""The stack of a process: by py-spy, which reads it from outside; of one that hangs, else, by itself as its last act."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys

TIMEOUT_S = 10.0
NATIVE_TIMEOUT_S = 30.0  # it reads the symbols of every library, while the process goes on


class CannotLook(Exception):
    """py-spy cannot read the process, and why."""


async def dump_stack(pid: int) -> str:
    """Text for people. Where py-spy may not look, the process is asked with SIGABRT, prints its stack and dies."""
    try:
        return await read_stack(pid)
    except CannotLook:
        pass
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGABRT)  # every rank has faulthandler enabled: the stack goes to its log
    return "py-spy could not read the stack; the rank was told to print it: see its log"


async def read_stack(pid: int, *options: str) -> str:
    """Text for people; the process only pauses for a moment. `options` of py-spy: `--native` for the frames that are not
    Python's, `--nonblocking` where it cannot be paused, as one that is stopped. Raises CannotLook.
    """
    spy = shutil.which("py-spy", path=os.pathsep.join((os.path.dirname(sys.executable), os.environ.get("PATH", ""))))
    if spy is None:
        raise CannotLook("py-spy is not installed where the rank's host runs: pip install py-spy")
    within_s = NATIVE_TIMEOUT_S if "--native" in options else TIMEOUT_S
    return await _run(within_s, spy, "dump", "--pid", str(pid), *options)


async def _run(within_s: float, *command: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        output, complaint = await asyncio.wait_for(process.communicate(), within_s)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise CannotLook(f"py-spy did not answer within {within_s:g} s") from None
    if process.returncode != 0:
        said = " ".join(complaint.decode(errors="backslashreplace").partition("Stack backtrace:")[0].split())
        raise CannotLook(f"py-spy could not read it: {said or f'exit code {process.returncode}'}")
    return output.decode(errors="backslashreplace")
