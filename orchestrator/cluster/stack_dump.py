"""The stack of a process that hangs: by py-spy, which reads it from outside; else by the process itself, as its last act."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys

TIMEOUT_S = 10.0


async def dump_stack(pid: int) -> str:
    """Text for people. Where py-spy may not look, the process is asked with SIGABRT, prints its stack and dies."""
    spy = shutil.which("py-spy", path=os.pathsep.join((os.path.dirname(sys.executable), os.environ.get("PATH", ""))))
    if spy is not None:
        text = await _run(spy, "dump", "--pid", str(pid))
        if text is not None:
            return text
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGABRT)  # every rank has faulthandler enabled: the stack goes to its log
    return "py-spy could not read the stack; the rank was told to print it: see its log"


async def _run(*command: str) -> str | None:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), TIMEOUT_S)
    except TimeoutError:
        process.kill()
        await process.wait()
        return None
    return output.decode(errors="backslashreplace") if process.returncode == 0 else None
