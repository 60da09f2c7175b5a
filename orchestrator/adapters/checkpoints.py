"""List and verify checkpoints where they lie, a local path or any URL that fsspec knows. No torch, no server."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import xxhash
from fsspec.core import url_to_fs

from orchestrator.errors import NotFound, StorageFailed
from trainers.contract import MANIFEST_NAME, Listed, Manifest, ManifestFile, file_problem, found

_BLOCK_BYTES = 4 * 2**20


@dataclass(frozen=True)
class Report:
    """What verifying a checkpoint found."""

    checkpoint: str
    manifest: Manifest | None
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.problems


def list_checkpoints(root: str) -> list[Listed]:
    """Every checkpoint under a run's `root`, newest first, the unsealed and unreadable with their problem.

    Reads the manifests, not the files: `verify` does. Empty when there is nothing. Raises StorageFailed.
    """
    filesystem, base = _open(root)
    listed = []
    with _translated(root):
        for path in sorted({file.rpartition("/")[0] for file in _files(filesystem, base)}):
            checkpoint = f"{root.rstrip('/')}/{path.removeprefix(base).strip('/')}"
            one = found(checkpoint, _text(filesystem, f"{path}/{MANIFEST_NAME}"))
            if one is not None:
                listed.append(one)
    return sorted(listed, key=lambda one: one.order, reverse=True)


def verify(url: str) -> Report:
    """Read every file of one checkpoint and compare it with the manifest.

    Raises NotFound when there is nothing at `url`, and StorageFailed when it cannot be read.
    """
    filesystem, base = _open(url)
    with _translated(url):
        sizes = {_name(file): int(filesystem.size(file)) for file in _files(filesystem, base) if _is_in(file, base)}
        if not sizes:
            raise NotFound(f"no checkpoint at {url}")
        text = _text(filesystem, f"{base}/{MANIFEST_NAME}")
        if text is None:
            return Report(url, None, (f"it has no {MANIFEST_NAME}: its save never ended",))
        try:
            manifest = Manifest.from_json(text)
        except ValueError as error:
            return Report(url, None, (f"its manifest cannot be read: {error}",))
        problems = [_problem(filesystem, base, each, sizes.get(each.path)) for each in manifest.files]
    return Report(url, manifest, tuple(each for each in problems if each is not None))


def _problem(filesystem: Any, base: str, expected: ManifestFile, size_bytes: int | None) -> str | None:
    problem = file_problem(expected, size_bytes, None)
    if problem is not None:
        return problem
    hasher = xxhash.xxh3_64()
    with filesystem.open(f"{base}/{expected.path}", "rb") as file:
        while block := file.read(_BLOCK_BYTES):
            hasher.update(block)
    return file_problem(expected, size_bytes, hasher.hexdigest())


def _open(url: str) -> tuple[Any, str]:
    with _translated(url):
        filesystem, base = url_to_fs(url, use_listings_cache=False)  # type: ignore[no-untyped-call]
    return filesystem, base.rstrip("/")


def _files(filesystem: Any, base: str) -> list[str]:
    try:
        files: list[str] = filesystem.find(base)
    except FileNotFoundError:
        return []
    return files


def _text(filesystem: Any, path: str) -> str | None:
    try:
        content: bytes = filesystem.cat_file(path)
    except FileNotFoundError:
        return None
    return content.decode(errors="replace")


def _name(file: str) -> str:
    return file.rpartition("/")[2]


def _is_in(file: str, base: str) -> bool:
    """Whether a file lies in the directory itself."""
    return file.rpartition("/")[0] == base


@contextlib.contextmanager
def _translated(where: str) -> Iterator[None]:
    """Object stores raise whatever their client library has, not OSError alone."""
    try:
        yield
    except (NotFound, StorageFailed):
        raise
    except Exception as error:
        raise StorageFailed(f"cannot read {where}: {error or type(error).__name__}") from error
