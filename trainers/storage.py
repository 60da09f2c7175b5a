"""Where checkpoints live: a directory of a file system, or an object store that fsspec knows.

Both keep the same promise: `write_text` and a published file are there wholly or not at all, and are durable when the
call returns. Paths are relative to the root. Every failure is a StorageError that names the path. While a file is on its
way, `alive` is called for as long as parts of it arrive.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any, Protocol

import xxhash
from fsspec.callbacks import Callback
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from trainers.errors import StorageError

_BLOCK_BYTES = 4 * 2**20
_LOOK_S = 1.0  # how often a transfer is asked whether it moved


class Storage(Protocol):
    """A root under which checkpoints live. All calls block; all raise StorageError."""

    is_local: bool

    def url(self, path: str) -> str:
        """What people and other processes call `path`."""
        ...

    def names(self, path: str) -> list[str]:
        """The names in a directory; empty when there is none."""
        ...

    def read_text(self, path: str) -> str | None:
        """None when there is no such file."""
        ...

    def write_text(self, path: str, text: str) -> None:
        """Replace the file in one step."""
        ...

    def publish(self, source: Path, path: str) -> None:
        """Move a file, already synced, from the local disk to `path`."""
        ...

    def fetch(self, path: str, directory: Path) -> Path | None:
        """A local copy of the file, or the file itself; None when there is no such file."""
        ...

    def sync(self, path: str) -> None:
        """Make the names in a directory durable, and the directory's own."""
        ...

    def remove(self, path: str, first: str | None = None) -> None:
        """Remove a directory and all in it, if it is there; the file named `first` goes before all others."""
        ...


def open_storage(root: str, alive: Callable[[], None]) -> Storage:
    """`root` is a local path, a file:// URL, or a URL of an object store."""
    with _told("open", root):
        filesystem, path = url_to_fs(root, use_listings_cache=False)  # type: ignore[no-untyped-call]
    if isinstance(filesystem, LocalFileSystem):
        return LocalStorage(Path(path), alive)
    return ObjectStorage(root, filesystem, path, alive)


class LocalStorage:
    """A directory. Renames commit; files and directories are synced."""

    is_local = True

    def __init__(self, root: Path, alive: Callable[[], None]) -> None:
        self._root = root
        self._alive = alive

    def url(self, path: str) -> str:
        return str(self._root / path)

    def names(self, path: str) -> list[str]:
        with _told("list", self.url(path)):
            try:
                return sorted(os.listdir(self._root / path))
            except (FileNotFoundError, NotADirectoryError):
                return []

    def read_text(self, path: str) -> str | None:
        with _told("read", self.url(path)):
            try:
                return (self._root / path).read_text(errors="replace")
            except (FileNotFoundError, NotADirectoryError):
                return None

    def write_text(self, path: str, text: str) -> None:
        target = self._root / path
        temporary = target.with_name(f".{target.name}.{os.getpid()}")
        with _told("write", self.url(path)):
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with open(temporary, "w") as file:
                    file.write(text)
                    file.flush()
                    os.fsync(file.fileno())
                os.rename(temporary, target)
            finally:
                temporary.unlink(missing_ok=True)
            _sync_directory(target.parent)

    def publish(self, source: Path, path: str) -> None:
        target = self._root / path
        with _told("write", self.url(path)):
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.stat().st_dev == target.parent.stat().st_dev:
                os.rename(source, target)
                return
            try:
                with open(source, "rb", buffering=0) as read, open(target, "wb") as file:
                    while block := read.read(_BLOCK_BYTES):
                        file.write(block)
                        self._alive()
                    file.flush()
                    os.fsync(file.fileno())
            except OSError:
                target.unlink(missing_ok=True)
                raise

    def fetch(self, path: str, directory: Path) -> Path | None:
        file = self._root / path
        return file if file.is_file() else None

    def sync(self, path: str) -> None:
        with _told("sync", self.url(path)):
            directory = self._root / path
            for each in (directory, *directory.parents):
                _sync_directory(each)
                if each == self._root:
                    break

    def remove(self, path: str, first: str | None = None) -> None:
        with _told("remove", self.url(path)):
            directory = self._root / path
            if first is not None:
                (directory / first).unlink(missing_ok=True)
                if directory.exists():
                    _sync_directory(directory)
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(directory)


class ObjectStorage:
    """A bucket: one PUT commits, so there is nothing to sync."""

    is_local = False

    def __init__(self, root: str, filesystem: Any, path: str, alive: Callable[[], None]) -> None:
        self._url = root.rstrip("/")
        self._alive = alive
        self._filesystem = filesystem
        self._root = path.rstrip("/")

    def url(self, path: str) -> str:
        return f"{self._url}/{path}"

    def names(self, path: str) -> list[str]:
        with _told("list", self.url(path)):
            try:
                found = self._filesystem.ls(self._at(path), detail=False)
            except FileNotFoundError:
                return []
        return sorted({each.rstrip("/").rpartition("/")[2] for each in found})

    def read_text(self, path: str) -> str | None:
        with _told("read", self.url(path)):
            try:
                text: bytes = self._filesystem.cat_file(self._at(path))
            except FileNotFoundError:
                return None
        return text.decode(errors="replace")

    def write_text(self, path: str, text: str) -> None:
        with _told("write", self.url(path)):
            self._filesystem.pipe_file(self._at(path), text.encode())

    def publish(self, source: Path, path: str) -> None:
        with _told("write", self.url(path)):
            self._carry(self._filesystem.put_file, str(source), self._at(path))
            source.unlink()

    def fetch(self, path: str, directory: Path) -> Path | None:
        target = directory / path
        with _told("read", self.url(path)):
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._carry(self._filesystem.get_file, self._at(path), str(target))
            except FileNotFoundError:
                return None
        return target

    def sync(self, path: str) -> None:
        """Objects are durable when their PUT returns."""

    def remove(self, path: str, first: str | None = None) -> None:
        with _told("remove", self.url(path)):
            names = self.names(path)
            if first in names:
                self._filesystem.rm_file(self._at(f"{path}/{first}"))
            if names:
                self._filesystem.rm([self._at(f"{path}/{each}") for each in names if each != first])

    def _carry(self, transfer: Callable[..., object], source: str, target: str) -> None:
        """Move a file, with a sign of life for as long as bytes move.

        It is given here: the thread of the client library that counts them must not speak for the rank.
        """
        count, end = Callback(), Future[None]()  # type: ignore[no-untyped-call]

        def move() -> None:
            try:
                transfer(source, target, callback=count)
                end.set_result(None)
            except BaseException as error:
                end.set_exception(error)

        threading.Thread(target=move, daemon=True).start()
        seen = 0
        while not wait([end], timeout=_LOOK_S).done:
            if count.value != seen:
                seen = count.value
                self._alive()
        end.result()
        self._alive()

    def _at(self, path: str) -> str:
        return f"{self._root}/{path}"


def digest(file: Path, alive: Callable[[], None]) -> str:
    """XXH3 (64 bit) of a file's content, 16 hex digits."""
    hasher = xxhash.xxh3_64()
    with open(file, "rb", buffering=0) as source:
        while block := source.read(_BLOCK_BYTES):
            hasher.update(block)
            alive()
    return hasher.hexdigest()


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _told(verb: str, where: str) -> Iterator[None]:
    """Translate: object stores raise whatever their client library has, not OSError alone."""
    try:
        yield
    except StorageError:
        raise
    except Exception as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise StorageError(f"cannot {verb} {where}: {why or type(error).__name__}") from error
