"""Traces of profiles where they lie, a local path or any URL that fsspec knows."""

from __future__ import annotations

from pathlib import Path

from fsspec.core import url_to_fs

from orchestrator.errors import NotFound, StorageFailed


def fetch(url: str, to: Path) -> None:
    """Copy a trace. Raises NotFound where this machine sees none at `url`, and StorageFailed."""
    try:
        filesystem, path = url_to_fs(url)  # type: ignore[no-untyped-call]
        filesystem.get_file(path, str(to))
    except FileNotFoundError as error:
        if Path(str(error.filename or "")) == to:
            raise StorageFailed(f"cannot write {to}: there is no such directory") from error
        raise NotFound(
            f"the trace is at {url}, which this machine does not see: copy it from the rank's host"
        ) from error
    except Exception as error:  # object stores raise whatever their client library has
        raise StorageFailed(f"cannot fetch the trace from {url}: {type(error).__name__}: {error}") from error
