"""The Pythons that ranks run in: the node's own, one that is named, or a virtual environment built once per content."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import site
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.cluster.gang_messages import StartFailed
from orchestrator.cluster.local_dirs import remove_tree

BUILD_TIMEOUT_S = 1800.0
_LOG_TAIL = 4000
_READY = "ready"
# Of pip's output:
_WRONG = (
    "No matching distribution found",
    "ResolutionImpossible",
    "Invalid requirement",
    "wheel filename",  # that it is invalid, in whatever words
    "is not a supported wheel",
    "No such file or directory",
    "HTTP error 404",
)
_UNREACHABLE = ("connection broken by", "Could not fetch URL", "HTTP error 5")


@dataclass(frozen=True)
class EnvironmentKey:
    """What makes two runs share a zygote."""

    python: str | None
    requirements: tuple[str, ...]

    @classmethod
    def of(cls, section: Mapping[str, object]) -> EnvironmentKey:
        """From the run file's `environment`."""
        python, requirements = section.get("python"), section.get("requirements") or ()
        assert isinstance(requirements, list | tuple)
        return cls(str(python) if python else None, tuple(str(each) for each in requirements))

    @property
    def digest(self) -> str:
        """Names the environment: the base interpreter counts, because its packages show through."""
        content = json.dumps([sys.executable, sys.version, self.python, sorted(self.requirements)])
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    @property
    def is_default(self) -> bool:
        return self.python is None and not self.requirements


def python_of(key: EnvironmentKey, root: Path) -> str:
    """Path of the interpreter; builds the environment where it is not there yet, which may take minutes.

    Raises StartFailed: finally, with the end of the build log, when it cannot be built or is not there.
    """
    if key.is_default:
        return sys.executable
    if key.python is not None:
        if not (os.path.isfile(key.python) and os.access(key.python, os.X_OK)):
            raise StartFailed(f"environment.python: {key.python} is not an executable file on this node", True)
        return key.python
    home = root / key.digest
    with open(root / f"{key.digest}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several Ray nodes of one machine share the cache
        if not (home / _READY).exists():
            remove_tree(home)
            _build(key, home)
            (home / _READY).touch()
    return str(home / "bin" / "python")


def _build(key: EnvironmentKey, home: Path) -> None:
    _run([sys.executable, "-m", "venv", "--system-site-packages", str(home)], key)
    # Where the node's Python is a virtual environment itself, "system" would mean the one below it: link to ours.
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    links = "".join(f"import site; site.addsitedir({path!r})\n" for path in site.getsitepackages())
    (home / "lib" / version / "site-packages" / "_evertrain_node.pth").write_text(links)
    pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--no-input", "--disable-pip-version-check"]
    try:
        _run([*pip, *key.requirements], key)
    except StartFailed:
        remove_tree(home)
        raise


def _run(command: list[str], key: EnvironmentKey) -> None:
    wanted = ", ".join(key.requirements)
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=BUILD_TIMEOUT_S
        )
    except subprocess.TimeoutExpired as error:
        raise StartFailed(f"environment.requirements ({wanted}): not built within {BUILD_TIMEOUT_S:g} s") from error
    if done.returncode != 0:
        output = done.stdout.decode(errors="backslashreplace")
        message = f"environment.requirements ({wanted}) cannot be installed:\n{output[-_LOG_TAIL:]}"
        raise StartFailed(message, requirements_are_wrong(output))


def requirements_are_wrong(output: str) -> bool:
    """Whether pip says that what was asked for does not exist or does not fit together, so that no retry would help.

    When it cannot reach its index it ends by saying that there is no such package, too.
    """
    return any(words in output for words in _WRONG) and not any(words in output for words in _UNREACHABLE)
