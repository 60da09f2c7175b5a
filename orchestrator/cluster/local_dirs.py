"""Where a node's files live: sockets, launch documents, staging, outboxes and log spools, all below one private directory.

Paths are short because Linux lets a unix socket's path have 107 characters.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

_OWNER_FILE = "owner.json"
_START_TIME = 19  # of the words in /proc/<pid>/stat that follow the command's name


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
    def epoch(self) -> Path:
        """The file that tells which agent owns the node."""
        return self.base / "epoch"

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

    def ahead(self, run_id: str, attempt: int) -> Path:
        """What the ranks of an attempt keep that were forked before it was placed."""
        own = self.attempt(run_id, attempt)
        return own.with_name(f"{own.name}a")

    def create(self) -> None:
        """Raises PermissionError when the root belongs to somebody else."""
        private_dir(Path(self.root))
        for path in (self.base, self.zygotes, self.gangs, self.environments, self.bundles):
            private_dir(path)

    def own(self, pid: int) -> None:
        """Mark the directory as belonging to the Ray node of that raylet. Raises OSError when it does not live."""
        written = self.base / f"{_OWNER_FILE}.new"
        written.write_text(json.dumps(asdict(Owner.of(pid))))
        written.replace(self.base / _OWNER_FILE)


@dataclass(frozen=True)
class Owner:
    """The process whose end is the end of a Ray node: its raylet. As one process id may come again, with its start."""

    pid: int
    started: int  # clock ticks after the machine's boot
    boot: str
    pid_namespace: str

    @classmethod
    def of(cls, pid: int) -> Owner:
        """Raises OSError when there is no such process."""
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return cls(pid, int(after_name[_START_TIME]), boot, os.readlink("/proc/self/ns/pid"))

    @property
    def gone(self) -> bool:
        """False also where we cannot know: in another container that shares the directory."""
        here = Owner.of(os.getpid())
        if self.boot != here.boot:
            return True
        if self.pid_namespace != here.pid_namespace:
            return False
        try:
            return Owner.of(self.pid) != self
        except OSError:
            return True


def remove_dead_nodes(root: Path) -> list[Path]:
    """Take away the directories below `root` whose Ray node's raylet is gone; those without an owner's mark stay."""
    removed = []
    for mark in root.glob(f"*/{_OWNER_FILE}"):
        try:
            gone = Owner(**json.loads(mark.read_text())).gone
        except (OSError, ValueError, TypeError):
            continue  # it is being written, or of another version
        if gone:
            remove_tree(mark.parent)
            removed.append(mark.parent)
    return removed


def private_dir(path: Path) -> None:
    """Make a directory that only we can enter. Raises PermissionError when it belongs to somebody else."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise PermissionError(f"{path} is not a directory of ours: choose another with --local-dir")
    path.chmod(0o700)


def remove_tree(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
