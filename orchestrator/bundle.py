"""Code directories as content-addressed archives: packed by clients, unpacked on nodes.

The same files give the same bytes, so a bundle's sha256 is its address. What is unpacked may come from a stranger: nothing
in it can name a place outside of the target, and its size is bounded whatever its headers claim.
"""

from __future__ import annotations

import gzip
import io
import os
import shutil
import stat
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import IO

from orchestrator.errors import NotFound, Refused, StorageFailed, TooLarge

MAX_BUNDLE_BYTES = 64 * 2**20
MAX_UNPACKED_BYTES = 256 * 2**20
MAX_ENTRIES = 20_000
IGNORE_FILE = ".evertrainignore"

# Names with a dot in front are where credentials lie (.env, .ssh, .netrc), and no code needs them unasked.
_IGNORED_BY_HABIT = (".*", f"!{IGNORE_FILE}", "__pycache__", "*.pyc", "venv", "node_modules")


@dataclass(frozen=True)
class Packed:
    """A directory as an archive, and what went into it."""

    data: bytes
    directory: Path
    files: int
    size_bytes: int  # of the files themselves


# ---- packing --------------------------------------------------------------------------------------------------------


def pack(directory: Path) -> Packed:
    """A gzipped tar of the directory without what `.evertrainignore` and habit leave out.

    Left out by habit: every name that begins with a dot, and what Python and its tools make by themselves. A line
    `!.name` in `.evertrainignore` takes such a name in again.
    Raises NotFound; Refused for links that lead out and for what is neither file, directory nor link; TooLarge;
    StorageFailed for what cannot be read.
    """
    root = directory.resolve()
    if not root.is_dir():
        raise NotFound(f"code: {directory} is not a directory")
    compressed = io.BytesIO()
    # Neither name nor time of packing enter the gzip header.
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=compressed, mtime=0, compresslevel=6) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        try:
            files, size = _add_all(archive, root)
        except OSError as error:
            # Of tarfile's own only one has neither name nor number: a file that ended before the size it had.
            where, why = error.filename or root, error.strerror or "a file became shorter meanwhile: try again"
            raise StorageFailed(f"code: {where} cannot be packed: {why}") from error
    data = compressed.getvalue()
    if len(data) > MAX_BUNDLE_BYTES:
        raise TooLarge(f"code: {directory} packs to {_mib(len(data))}, at most {_mib(MAX_BUNDLE_BYTES)}: {_advice()}")
    return Packed(data, root, files, size)


def _add_all(archive: tarfile.TarFile, root: Path) -> tuple[int, int]:
    """Answers the number of files and their bytes."""
    files = total = 0
    for number, path in enumerate(_walk(root, root, _ignored(root)), start=1):
        member = _member(path, root)
        total += member.size
        if total > MAX_UNPACKED_BYTES or number > MAX_ENTRIES:
            limit = f"{_mib(MAX_UNPACKED_BYTES)} and {MAX_ENTRIES} files"
            raise TooLarge(
                f"code: {root} holds more than {limit} (counted up to {path.relative_to(root)}): {_advice()}"
            )
        if member.isreg():
            files += 1
            with path.open("rb") as file:
                archive.addfile(member, file)
        else:
            archive.addfile(member)
    return files, total


def _advice() -> str:
    return f"keep data out of it by {IGNORE_FILE}, and name it under data.source"


def _mib(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"


def _ignored(root: Path) -> tuple[str, ...]:
    path = root / IGNORE_FILE
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return _IGNORED_BY_HABIT
    except UnicodeDecodeError as error:
        raise Refused(f"{path} is not UTF-8 text (at byte {error.start}): save it as UTF-8") from error
    patterns = [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]
    return (*_IGNORED_BY_HABIT, *patterns)


def _walk(directory: Path, root: Path, ignored: tuple[str, ...]) -> Iterator[Path]:
    for path in sorted(directory.iterdir()):
        if _is_ignored(path, root, ignored):
            continue
        yield path
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path, root, ignored)


def _is_ignored(path: Path, root: Path, patterns: tuple[str, ...]) -> bool:
    """As in .gitignore: the last pattern that matches decides, and one that begins with "!" takes in again."""
    for pattern in reversed(patterns):
        if _matches(path, root, pattern.removeprefix("!")):
            return not pattern.startswith("!")
    return False


def _matches(path: Path, root: Path, pattern: str) -> bool:
    """As in .gitignore: a pattern with a slash inside is relative to the root, one at the end means directories."""
    if pattern.endswith("/") and not path.is_dir():
        return False
    pattern = pattern.rstrip("/")
    if "/" in pattern:
        return fnmatchcase(path.relative_to(root).as_posix(), pattern.lstrip("/"))
    return fnmatchcase(path.name, pattern)


def _member(path: Path, root: Path) -> tarfile.TarInfo:
    """What of a path goes into the archive: no owner, no times, of the mode only whether it is executable."""
    member = tarfile.TarInfo(path.relative_to(root).as_posix())
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        member.type = tarfile.SYMTYPE
        member.linkname = _link_within(path, root)
    elif stat.S_ISDIR(status.st_mode):
        member.type, member.mode = tarfile.DIRTYPE, 0o755
    elif stat.S_ISREG(status.st_mode):
        member.size = status.st_size
        member.mode = 0o755 if status.st_mode & 0o100 else 0o644
    else:
        raise Refused(f"code: {path} is neither a file, a directory nor a link: name it in {IGNORE_FILE}")
    return member


def _link_within(path: Path, root: Path) -> str:
    target = path.resolve()
    if not target.is_relative_to(root):
        raise Refused(
            f"code: the link {path} leads out of {root}, to {target}: name it in {IGNORE_FILE}, or copy the file"
        )
    return os.path.relpath(target, path.parent.resolve())


# ---- unpacking ------------------------------------------------------------------------------------------------------


def unpack(data: bytes, target: Path) -> None:
    """Make `target` the directory that was packed; it appears whole or not at all, and is left alone if it is there.

    Raises Refused for an archive that `pack` would not have made, TooLarge for one that grows beyond the limits.
    """
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        _extract(data, draft)
        try:
            draft.rename(target)
        except OSError:
            if not target.is_dir():  # otherwise somebody else unpacked the same content first
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _extract(data: bytes, directory: Path) -> None:
    try:
        with (
            gzip.GzipFile(fileobj=io.BytesIO(data)) as stream,
            tarfile.open(fileobj=_Bounded(stream), mode="r|") as archive,
        ):
            kinds: dict[str, bytes] = {}
            for member in archive:
                _check(member, kinds)
                kinds[member.name] = member.type
                archive.extract(member, directory, filter="data")
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, UnicodeError) as error:
        raise Refused(
            f"this code bundle is not a whole gzipped tar that stays within its directory: {error}"
        ) from error


class _Bounded(io.RawIOBase):
    """Ends the reading of a bomb, whatever its headers say."""

    def __init__(self, stream: IO[bytes] | gzip.GzipFile) -> None:
        self._stream = stream
        self._left = MAX_UNPACKED_BYTES + MAX_ENTRIES * 2048 + 2**20

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(min(size if size >= 0 else self._left + 1, self._left + 1))
        self._left -= len(data)
        if self._left < 0:
            raise TooLarge(f"this code bundle unpacks to more than {_mib(MAX_UNPACKED_BYTES)}")
        return data


def _check(member: tarfile.TarInfo, kinds: dict[str, bytes]) -> None:
    """Stricter than tarfile's own filter: whatever a link does, nothing is ever written through one."""
    name = PurePosixPath(member.name)
    if len(kinds) >= MAX_ENTRIES:
        raise TooLarge(f"this code bundle has more than {MAX_ENTRIES} entries")
    if name.is_absolute() or ".." in name.parts or name.as_posix() != member.name or member.name == ".":
        raise Refused(f"this code bundle names {member.name!r}, which is not a plain path below its directory")
    if member.type not in (tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE):
        raise Refused(f"this code bundle holds {member.name!r}, which is neither a file, a directory nor a link")
    if member.name in kinds:
        raise Refused(f"this code bundle holds {member.name!r} twice")
    for parent in name.parents:
        if kinds.get(parent.as_posix(), tarfile.DIRTYPE) != tarfile.DIRTYPE:
            raise Refused(f"this code bundle holds {member.name!r} below {parent.as_posix()!r}, which is no directory")
    if member.issym() and not _stays_within(name, PurePosixPath(member.linkname)):
        raise Refused(f"this code bundle holds the link {member.name!r}, which may lead out of its directory")


def _stays_within(name: PurePosixPath, link: PurePosixPath) -> bool:
    """Only a leading run of `..` is taken, no longer than the link lies deep: below real directories that is safe."""
    ups = next((number for number, part in enumerate(link.parts) if part != ".."), len(link.parts))
    return not link.is_absolute() and ups < len(name.parts) and ".." not in link.parts[ups:]
