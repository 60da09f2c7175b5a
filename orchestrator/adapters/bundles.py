"""Code bundles as files named by their content: `ROOT/ab/abcdef...`, mode 0600.

Beside them an empty file `ROOT/projects/PROJECT/abcdef...` for every project that put the bundle: who knows only the
address of another team's code gets nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
import threading
from collections.abc import Container
from pathlib import Path

from orchestrator.errors import NotFound, StorageFailed, TooLarge

EVERY_PROJECT = "*"
MAX_BYTES = 64 * 2**20
_SHA256 = re.compile(r"[0-9a-f]{64}")


class DiskBundleStore:
    """Implements ports.BundleStore and Prunable. A file's time of change is when its bundle was last put or asked for."""

    def __init__(self, root: Path, max_bytes: int = MAX_BYTES) -> None:
        self._root = root
        self._max_bytes = max_bytes
        self._lock = threading.Lock()  # nothing is pruned between being found old and being used again

    def put(self, project: str, data: bytes) -> str:
        """Raises TooLarge, and StorageFailed when the disk does not take it. Durable when it returns."""
        if len(data) > self._max_bytes:
            raise TooLarge(
                f"the code bundle has {len(data):,} bytes, {self._max_bytes:,} are allowed: "
                "leave data and build output out of the code directory"
            )
        sha256 = hashlib.sha256(data).hexdigest()
        path = self._path(sha256)
        try:
            if not (self._used(path) and self._holds(path, data)):
                _write(path, data)
            with self._lock:
                if not self._reference(project, sha256).exists():
                    _write(self._reference(project, sha256), b"")
        except OSError as error:
            raise StorageFailed(f"{path}: the code bundle cannot be written: {error.strerror}") from error
        return sha256

    def has(self, project: str, sha256: str) -> bool:
        """Raises StorageFailed."""
        if not _SHA256.fullmatch(sha256):
            return False
        path = self._path(sha256)
        try:
            return (project == EVERY_PROJECT or self._reference(project, sha256).exists()) and self._used(path)
        except OSError as error:
            raise StorageFailed(f"{path}: the code bundle cannot be looked at: {error.strerror}") from error

    def get(self, project: str, sha256: str) -> bytes:
        """Raises NotFound, and StorageFailed when the file is not what it was."""
        if not self.has(project, sha256):
            raise NotFound(f"no code bundle {sha256[:80]!r} here: submit the run again, which ships its code")
        path = self._path(sha256)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise NotFound(f"no code bundle {sha256}: submit the run again, which ships its code") from None
        except OSError as error:
            raise StorageFailed(f"{path}: the code bundle cannot be read: {error.strerror}") from error
        if hashlib.sha256(data).hexdigest() != sha256:
            raise StorageFailed(f"{path}: the code bundle was damaged on disk: submit the run again to replace it")
        return data

    def prune(self, before_at: float, keep: Container[str]) -> list[str]:
        """Delete the bundles that nobody put or asked for since `before_at`, except those in `keep`; their sha256."""
        removed = []
        try:
            for path in sorted(self._root.glob("??/*")):
                if path.name not in keep and self._remove_if_old(path, before_at):
                    removed.append(path.name)
            self._forget_references()
        except OSError as error:
            raise StorageFailed(f"{self._root}: code bundles cannot be removed: {error.strerror}") from error
        return removed

    def _remove_if_old(self, path: Path, before_at: float) -> bool:
        with self._lock:
            if path.stat().st_mtime >= before_at:
                return False
            path.unlink()
            return True

    def _forget_references(self) -> None:
        """To what is not there any more, from this pass or from one that was cut short."""
        for reference in self._root.glob("projects/*/*"):
            with self._lock:
                if not self._path(reference.name).exists():
                    reference.unlink()

    def _used(self, path: Path) -> bool:
        """Whether it is there; if so, it is young again."""
        with self._lock:
            if path.exists():
                os.utime(path)
                return True
        return False

    def _path(self, sha256: str) -> Path:
        return self._root / sha256[:2] / sha256

    def _reference(self, project: str, sha256: str) -> Path:
        return self._root / "projects" / project / sha256

    @staticmethod
    def _holds(path: Path, data: bytes) -> bool:
        """Whole and undamaged; anything else is written anew."""
        return path.stat().st_size == len(data) and path.read_bytes() == data


def _write(path: Path, data: bytes) -> None:
    """All of it under its name, or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")  # mode 0600
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
