"""The files that a source names: paths and URLs that fsspec knows, directories, and patterns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import xxhash
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from trainers.errors import BadConfig

SOURCE = "data.source"
_BLOCK_BYTES = 4 * 2**20


@dataclass(frozen=True, order=True)
class File:
    """One file of a source. `url` is what fsspec opens; a local file's is its absolute path."""

    url: str
    size_bytes: int
    is_local: bool = True

    @property
    def suffix(self) -> str:
        """The last suffix, without that of a compression."""
        path = Path(self.url)
        return Path(path.stem).suffix.lower() if path.suffix.lower() in (".gz", ".bz2", ".zst") else path.suffix.lower()


def expand(source: str) -> list[File]:
    """All files that `source` names, by name. Raises BadConfig when there are none."""
    filesystem, root = _filesystem(source)
    with told(source, "read"):
        if any(each in root for each in "*?["):
            found = [info for info in filesystem.glob(root, detail=True).values() if info["type"] == "file"]
        elif filesystem.isdir(root):
            found = list(filesystem.find(root, detail=True).values())
        else:
            found = [filesystem.info(root)] if filesystem.exists(root) else []
    local = isinstance(filesystem, LocalFileSystem)
    files = [
        File(info["name"] if local else filesystem.unstrip_protocol(info["name"]), int(info["size"] or 0), local)
        for info in found
        if not _hidden(info["name"], root)
    ]
    if not files:
        where = f" ({root})" if local else ""
        raise BadConfig(SOURCE, source, f"no such file{where}: put it there on every node, or correct the path")
    return sorted(files)


def is_directory(source: str) -> bool:
    filesystem, root = _filesystem(source)
    with told(source, "read"):
        return bool(filesystem.isdir(root))


def _hidden(path: str, root: str) -> bool:
    """Files that tools leave beside data begin with a dot or an underscore."""
    below = path[len(root) :] if path.startswith(root) else Path(path).name
    return any(part.startswith((".", "_")) for part in below.strip("/").split("/") if part)


def _filesystem(source: str) -> tuple[Any, str]:
    with told(source, "open"):
        filesystem, root = url_to_fs(str(Path(source).expanduser()) if "://" not in source else source)  # type: ignore[no-untyped-call]
    return filesystem, str(root).rstrip("/")


@contextmanager
def opened(file: File) -> Iterator[Any]:
    """The file's bytes: mapped into memory where it is local and not compressed. Raises BadConfig."""
    with told(file.url, "read"):
        if file.is_local and file.size_bytes and Path(file.url).suffix.lower() == file.suffix:
            with pa.memory_map(file.url) as mapped:
                yield mapped
        else:
            filesystem, path = url_to_fs(file.url)  # type: ignore[no-untyped-call]
            with filesystem.open(path, "rb", compression="infer") as stream:
                yield stream


def fingerprint(file: File, known: dict[str, str]) -> str:
    """What changes with the file's content: its xxh3, or where it is remote what its store answers for it.

    `known` holds the hashes of files by path, size and time of change, so that only new ones are read; it is added to.
    """
    filesystem, path = url_to_fs(file.url)  # type: ignore[no-untyped-call]
    with told(file.url, "read"):
        if not file.is_local:
            return str(filesystem.ukey(path))
        status = Path(file.url).stat()
        key = f"{file.url}:{status.st_size}:{status.st_mtime_ns}"
        if key not in known:
            with open(file.url, "rb") as stream:
                known[key] = digest(stream)
        return known[key]


def digest(stream: IO[bytes], alive: Callable[[], None] = lambda: None) -> str:
    """XXH3 64 bit of all that is left in a stream, 16 hex digits."""
    hashed = xxhash.xxh3_64()
    while block := stream.read(_BLOCK_BYTES):
        hashed.update(block)
        alive()
    return str(hashed.hexdigest())


@contextmanager
def told(url: str, what: str) -> Iterator[None]:
    """Errors of file systems and of Arrow, as one that names the file."""
    try:
        yield
    except (OSError, pa.ArrowException, ValueError, ImportError) as error:
        words = " ".join(str(error).split()) or type(error).__name__
        raise BadConfig(SOURCE, url, f"cannot {what} it: {words}") from error
