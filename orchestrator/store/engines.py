"""Connections: how each database is opened so that a commit is durable and readers never wait for the writer."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError

from orchestrator.errors import Refused, StorageFailed

READERS = 16
BUSY_S = 10.0
_LOCK_KEY = 0x6576657274726E  # "evertrn"; PostgreSQL's advisory locks are numbers, one name space a database
_LOCK_PATIENCE_S = 5.0  # how long the session of a server that was just killed may linger


class FileLock:
    """Held while this process uses a database file. The kernel drops it with the process, however that ends."""

    def __init__(self, database: Path) -> None:
        self._path = database.with_name(database.name + ".lock")
        try:
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise StorageFailed(f"{self._path}: cannot be opened: {error.strerror}") from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._fd, 32).decode(errors="replace").strip() or "unknown"
            os.close(self._fd)
            raise Refused(
                f"{database}: in use by another server, process {holder}; "
                "stop that one first, or give this one a directory of its own"
            ) from None
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        # The file stays: removing it would let a third process lock a new one while a second waits for the old.
        os.ftruncate(self._fd, 0)
        os.close(self._fd)


@dataclass(frozen=True)
class Engines:
    writer: Engine
    reader: Engine
    where: str  # for people: no password
    lock: FileLock | None

    def close(self) -> None:
        self.reader.dispose()
        self.writer.dispose()
        if self.lock is not None:
            self.lock.release()


def open_engines(url: str) -> Engines:
    """`sqlite:///PATH` or `postgresql://USER:PASSWORD@HOST/DATABASE`.

    Raises Refused for another kind of database and for a file that another server uses, StorageFailed for a file that
    cannot be made.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise Refused("the database URL cannot be read: use sqlite:///PATH or postgresql://...") from error
    if parsed.get_backend_name() == "sqlite" and parsed.database not in (None, "", ":memory:"):
        return _sqlite(parsed)
    if parsed.get_backend_name() == "postgresql":
        return _postgres(parsed.set(drivername="postgresql+psycopg"))
    raise Refused(f"{parsed.render_as_string()}: use sqlite:///PATH or postgresql://...")


def _sqlite(url: URL) -> Engines:
    path = Path(url.database or "").absolute()
    _make_private(path)
    lock = FileLock(path)
    url = url.set(database=str(path))
    writer = create_engine(url, pool_size=1, max_overflow=0, connect_args={"timeout": BUSY_S})
    reader = create_engine(
        url,
        pool_size=READERS,
        max_overflow=0,
        isolation_level="AUTOCOMMIT",
        connect_args={"timeout": BUSY_S, "check_same_thread": False},
    )
    event.listen(writer, "connect", _prepare_sqlite_writer)
    event.listen(writer, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    event.listen(reader, "connect", _prepare_sqlite_reader)
    return Engines(writer, reader, str(path), lock)


def _make_private(path: Path) -> None:
    """The file with mode 0600 before SQLite sees it; SQLite gives its log files the same mode."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.fchmod(fd, 0o600)
        os.close(fd)
    except OSError as error:
        raise StorageFailed(f"{path}: the database file cannot be made: {error.strerror}") from error


def _prepare_sqlite_writer(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None  # the driver opens no transactions of its own: `begin` above does
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")


def _prepare_sqlite_reader(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None
    connection.execute("PRAGMA query_only = ON")
    connection.execute("PRAGMA cache_size = -16000")


def _postgres(url: URL) -> Engines:
    writer = create_engine(url, pool_size=1, max_overflow=0, pool_pre_ping=True)
    reader = create_engine(url, pool_size=READERS, max_overflow=0, pool_pre_ping=True, isolation_level="AUTOCOMMIT")
    where = url.render_as_string()
    event.listen(writer, "connect", lambda connection, _record: _prepare_postgres_writer(connection, where))
    return Engines(writer, reader, where, None)


def _prepare_postgres_writer(connection: Any, where: str) -> None:
    """A role or database may have been set to acknowledge commits before they are on disk; ours must be.

    The session also takes the database's one writer lock: PostgreSQL drops it with the session, and a server whose session
    broke cannot write again while another one holds it.
    """
    row = connection.execute("SHOW synchronous_commit").fetchone()
    if row[0] == "off":
        connection.execute("SET synchronous_commit = on")
    deadline = time.monotonic() + _LOCK_PATIENCE_S
    while not connection.execute("SELECT pg_try_advisory_lock(%s)", (_LOCK_KEY,)).fetchone()[0]:
        if time.monotonic() > deadline:
            raise Refused(
                f"{where}: in use by another server; stop that one first, or give this one a database of its own"
            )
        time.sleep(0.1)
    connection.commit()
