"""Keep and put back what an embedded server knows, while it runs:

    python -m orchestrator.store.backup save DATA_DIR FILE.tar.gz       or, to its output: save DATA_DIR - > FILE.tar.gz
    python -m orchestrator.store.backup restore FILE.tar.gz DATA_DIR

Saved are the database as of one moment, the key of secrets, the secret that webhooks are signed with, the first tokens, logs,
code bundles and the observed traffic of monitors: whoever has the file has everything, so it is written with mode 0600. Room
for a copy of the database is needed in DATA_DIR. Checkpoints are not in it: they lie in the storage, which is backed up as
such. With PostgreSQL the database is `pg_dump`'s; the rest is saved all the same.
"""

from __future__ import annotations

import gzip
import os
import shutil
import sqlite3
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import IO

from orchestrator.errors import EvertrainError, Refused, StorageFailed

DATABASE = "evertrain.db"
_BESIDE = ("secrets.key", "webhook.secret", "admin.token", "agent.token", "logs", "bundles", "observations")


def save(data_dir: Path, file: Path) -> list[str]:
    """Write the archive, whole or not at all, and answer the names in it. The server may run.

    Raises Refused for a directory that holds no server's data, StorageFailed.
    """
    found = _found(data_dir)
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as output:
            _write(data_dir, found, output)
            output.flush()
            os.fsync(output.fileno())
        draft.replace(file)
    except (OSError, sqlite3.Error) as error:
        raise StorageFailed(f"{file}: the backup of {data_dir} cannot be written: {error}") from error
    finally:
        draft.unlink(missing_ok=True)
    return found


def send(data_dir: Path, output: IO[bytes]) -> list[str]:
    """Write the archive to a stream, and answer the names in it. The server may run.

    Whoever reads it must look whether it is whole: `gzip --test` does. Raises as `save` does.
    """
    found = _found(data_dir)
    try:
        _write(data_dir, found, output)
        output.flush()
    except (OSError, sqlite3.Error) as error:
        raise StorageFailed(f"the backup of {data_dir} broke off: {error}") from error
    return found


def restore(file: Path, data_dir: Path) -> list[str]:
    """Put an archive's files into an empty directory, and answer their names.

    Raises Refused for a directory that holds something and for a file that is no whole backup, StorageFailed.
    """
    if data_dir.exists() and any(data_dir.iterdir()):
        raise Refused(
            f"{data_dir} is not empty: a backup is put back into a new directory, with no server running there"
        )
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        _unpack(file, data_dir)
    except BaseException:
        for each in data_dir.iterdir():  # it was empty: the next try must find it so
            shutil.rmtree(each) if each.is_dir() else each.unlink()
        raise
    return sorted(each.name for each in data_dir.iterdir())


def _found(data_dir: Path) -> list[str]:
    found = [name for name in (DATABASE, *_BESIDE) if (data_dir / name).exists()]
    if not found:
        raise Refused(f"{data_dir} holds no data of a server: name its EVERTRAIN_DATA_DIR")
    return found


def _write(data_dir: Path, names: Sequence[str], output: IO[bytes]) -> None:
    with tarfile.open(fileobj=output, mode="w|gz") as archive:
        # The database first: what it speaks of was written before, and is in the rest.
        for name in names:
            if name == DATABASE:
                _add_database(archive, data_dir / name)
            else:
                _add(archive, data_dir / name, name)


def _unpack(file: Path, data_dir: Path) -> None:
    try:
        with tarfile.open(file) as archive:
            archive.extractall(data_dir, filter="data")
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise Refused(f"{file} is not a whole backup: {error}") from error
    except OSError as error:
        raise StorageFailed(f"{file} cannot be put back into {data_dir}: {error}") from error
    if (data_dir / DATABASE).exists():
        _check(data_dir / DATABASE)


def _add(archive: tarfile.TarFile, path: Path, name: str) -> None:
    """A file, or a directory with all that is in it. What the server deletes meanwhile, because it is old, is left out."""
    try:
        archive.add(path, arcname=name, recursive=False)
        inside = sorted(path.iterdir()) if path.is_dir() else ()
    except FileNotFoundError:
        return
    for each in inside:
        _add(archive, each, f"{name}/{each.name}")


def _add_database(archive: tarfile.TarFile, path: Path) -> None:
    # Beside the database, where there is room for one more: /tmp may be small.
    with tempfile.TemporaryDirectory(prefix=".backup-", dir=path.parent) as directory:
        copy = Path(directory) / DATABASE
        with (
            closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as source,
            closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target)  # as of one moment, whatever is being written meanwhile
        copy.chmod(0o600)
        archive.add(copy, arcname=DATABASE)


def _check(database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection:
        try:
            answer = connection.execute("PRAGMA integrity_check").fetchone()[0]
        except sqlite3.Error as error:
            answer = str(error)
    if answer != "ok":
        raise Refused(f"{database} is damaged ({answer}): take another backup")


def main(argv: Sequence[str] | None = None) -> int:
    words = sys.argv[1:] if argv is None else list(argv)
    try:
        match words:
            case ["save", data_dir, "-"]:
                print(f"sent: {', '.join(send(Path(data_dir), sys.stdout.buffer))}", file=sys.stderr)
            case ["save", data_dir, file]:
                print(f"{file}: {', '.join(save(Path(data_dir), Path(file)))}")
            case ["restore", file, data_dir]:
                print(f"{data_dir}: {', '.join(restore(Path(file), Path(data_dir)))}")
            case _:
                print(
                    "usage: backup save DATA_DIR FILE.tar.gz|- | backup restore FILE.tar.gz DATA_DIR", file=sys.stderr
                )
                return 2
    except EvertrainError as error:
        print(f"backup: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
