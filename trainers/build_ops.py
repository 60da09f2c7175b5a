"""`python -m trainers.build_ops`: compile DeepSpeed's shared-memory communication op once, at installation.

DeepSpeed would otherwise compile it inside the first run (up to 90 s), and each rank would ask ninja again under a lock
file that a killed rank leaves behind for ever. So the build happens here, under a lock that the kernel releases, and a
stamp says what the library was built for; `preload` loads a library with a fitting stamp without any lock or compiler.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

import deepspeed
import torch
from deepspeed.ops.op_builder.builder import OpBuilder
from deepspeed.ops.op_builder.cpu.comm import ShareMemCommBuilder
from torch.utils import cpp_extension

STAMP_NAME = "evertrain-stamp.json"


def build() -> Path:
    """Build the op if no library fits, and return the library's path. A lock that a killed process left goes.

    Raises RuntimeError when the machine has no compiler that can build it.
    """
    directory = build_dir()
    with open(directory / "evertrain.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        clear_stale_lock(directory)
        if misfit(directory) is not None:
            (directory / STAMP_NAME).unlink(missing_ok=True)
            os.environ["PATH"] = path_with_own_tools(os.environ.get("PATH", os.defpath))
            ShareMemCommBuilder().jit_load(verbose=False)
            (directory / STAMP_NAME).write_text(json.dumps(_fitting_stamp()))
    return _library(directory)


def preload() -> str | None:
    """Load the built op so that DeepSpeed finds it loaded. Returns why not, or None when it is loaded.

    Neither compiles nor waits nor starts a thread: safe in a zygote.
    """
    name = ShareMemCommBuilder.NAME
    directory = build_dir()
    why_not = misfit(directory)
    if why_not is None and name not in OpBuilder._loaded_ops:
        library = cpp_extension._import_module_from_library(name, str(directory), True)  # type: ignore[no-untyped-call]
        OpBuilder._loaded_ops[name] = library
    return why_not


def build_dir() -> Path:
    """Where torch keeps the op's build, created if missing."""
    return Path(cpp_extension._get_build_directory(ShareMemCommBuilder.NAME, False))


def misfit(directory: Path) -> str | None:
    """Why the library in `directory` cannot be used here, or None."""
    if not _library(directory).exists():
        return f"{_library(directory)} is not built: run `python -m trainers.build_ops`"
    try:
        stamp: Any = json.loads((directory / STAMP_NAME).read_text())
    except (OSError, ValueError):
        stamp = None
    if stamp != _fitting_stamp():
        return f"{_library(directory)} was built for something else ({stamp}): run `python -m trainers.build_ops`"
    return None


def clear_stale_lock(directory: Path) -> bool:
    """Remove torch's lock file when no living process holds it open. True when one was removed."""
    lock = directory / "lock"
    if not lock.exists() or _is_open_somewhere(lock):
        return False
    lock.unlink(missing_ok=True)
    return True


def _is_open_somewhere(path: Path) -> bool:
    target = path.stat()
    for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            held = descriptor.stat()
        except OSError:  # ended meanwhile, or belongs to another user, who cannot hold a lock in our cache
            continue
        if (held.st_dev, held.st_ino) == (target.st_dev, target.st_ino):
            return True
    return False


def path_with_own_tools(path: str) -> str:
    """`path` headed by this interpreter's directory, where pip has put ninja: a machine may have none of its own, and
    two versions that take turns compile everything again each time.
    """
    return os.pathsep.join((str(Path(sys.executable).parent), path))


def _library(directory: Path) -> Path:
    return directory / f"{ShareMemCommBuilder.NAME}.so"


def _fitting_stamp() -> dict[str, str]:
    # Not the type of the CPU: DeepSpeed compiles this op without -march, and asks the CPU when it is loaded which kernels it
    # can run. So an image, or a home directory shared by unlike machines, may hold one library for all of them.
    return {
        "torch": torch.__version__,
        "deepspeed": deepspeed.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
    }


def main() -> int:
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    print(build())
    return 0


if __name__ == "__main__":
    sys.exit(main())
