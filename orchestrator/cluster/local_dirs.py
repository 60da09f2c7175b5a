"""Where a node's files live: sockets, launch documents, staging, outboxes and log spools, all below one private directory.

Paths are short because Linux lets a unix socket's path have 107 characters.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path


def default_root() -> str:
    return os.path.join(tempfile.gettempdir(), f"evertrain-{os.getuid()}")


@dataclass(frozen=True)
class NodeDirs:
    """The directories of one Ray node. Several Ray nodes may share a machine, so each has its own by node id."""

    root: str
    node_id: str

    @property
    def base(self) -> Path:
        return Path(self.root) / self.node_id[:12]

    @property
    def zygotes(self) -> Path:
        return self.base / "z"

    @property
    def gangs(self) -> Path:
        return self.base / "g"

    @property
    def environments(self) -> Path:
        """Shared by the Ray nodes of a machine: a virtual environment is built once per content."""
        return Path(self.root) / "environments"

    @property
    def bundles(self) -> Path:
        return Path(self.root) / "bundles"

    def attempt(self, run_id: str, attempt: int) -> Path:
        """What one attempt keeps on this node: outbox, log spool, staging, sockets."""
        digest = hashlib.sha256(f"{run_id}/{attempt}".encode()).hexdigest()
        return self.gangs / digest[:16]

    def create(self) -> None:
        """Raises PermissionError when the root belongs to somebody else."""
        private_dir(Path(self.root))
        for path in (self.base, self.zygotes, self.gangs, self.environments, self.bundles):
            private_dir(path)


def private_dir(path: Path) -> None:
    """Make a directory that only we can enter. Raises PermissionError when it belongs to somebody else."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise PermissionError(f"{path} is not a directory of ours: choose another with --local-dir")
    path.chmod(0o700)


def remove_tree(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
