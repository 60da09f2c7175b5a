"""Live traffic that lies somewhere already: directories of parquet files, queries of a database, Prometheus.

Each feed yields what came since a position, with the position to go on from once that has been kept. Positions are JSON
values; None is the beginning.
"""

from __future__ import annotations

import hashlib
import json
import math
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from orchestrator.errors import Refused, Unavailable

AT_ONCE = 10_000  # rows
PROMETHEUS_S = 30.0
_POINTS = 10_000  # Prometheus answers 11,000 at most


@dataclass(frozen=True)
class Piece:
    """Some rows. `source` and `seq`, where a feed knows such, are the same whenever they are read: kept once. Otherwise
    ("", 0) whoever sends them counts.
    """

    columns: Mapping[str, Sequence[Any]]
    position: Any
    source: str = ""
    seq: int = 0


# ---- parquet --------------------------------------------------------------------------------------------------------


def parquet_pieces(directory: Path, position: Any) -> Iterator[Piece]:
    """Of the directory's `*.parquet` files, by name, those that are not in `position`: a mapping of names to sizes and times
    of change. Files are taken to be whole: write them under a name that begins with `.` or `_`, then rename. Raises Refused.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not directory.is_dir():
        raise Refused(f"{directory} is no directory: name the one that parquet files are written to")
    done = dict(position or {})
    for path in sorted(directory.glob("*.parquet")):
        if path.name.startswith((".", "_")):
            continue
        stat = path.stat()
        identity = [stat.st_size, stat.st_mtime_ns]
        if done.get(path.name) == identity:
            continue
        source = "parquet-" + _short_hash([str(path.resolve()), *identity])
        try:
            with pq.ParquetFile(path) as file:
                batches = file.iter_batches(AT_ONCE)
                for number, batch in enumerate(batches):
                    columns = {name: batch.column(name) for name in batch.schema.names}
                    yield Piece(columns, done, source, number * _SEQS + 1)
        except (pa.ArrowException, OSError) as error:
            raise Refused(f"{path} cannot be read as parquet: {error}") from error
        done = {**done, path.name: identity}
        yield Piece({}, done)


_SEQS = 10_000
"""Numbers that a piece may use up: it is sent in batches."""


def _short_hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


# ---- databases ------------------------------------------------------------------------------------------------------


def sql_pieces(url: str, query: str, cursor: str, position: Any) -> Iterator[Piece]:
    """Rows of a query through SQLAlchemy. `:after` in it stands for the greatest value of the column `cursor` so far; the
    query should order by it. Without `:after` everything is read each time. Raises Refused, Unavailable.
    """
    import sqlalchemy
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError, OperationalError, SQLAlchemyError

    if ":after" in query and position is None:
        raise Refused("the query has :after, and nothing was read before: say where to begin, with --after")
    try:
        engine = sqlalchemy.create_engine(url)
    except (ArgumentError, NoSuchModuleError, ImportError) as error:
        raise Refused(f"{error}: give an URL as SQLAlchemy takes it, and install its driver") from error
    try:
        connection = engine.connect().execution_options(yield_per=AT_ONCE)
    except OperationalError as error:
        raise Unavailable(f"the database does not answer: {error.orig}") from error
    try:
        with connection:
            yield from _rows(connection, query, cursor, position)
    except SQLAlchemyError as error:
        raise Refused(f"the query fails: {getattr(error, 'orig', None) or error}") from error
    finally:
        engine.dispose()


def _rows(connection: Any, query: str, cursor: str, position: Any) -> Iterator[Piece]:
    import sqlalchemy

    follows = ":after" in query
    found = connection.execute(sqlalchemy.text(query), {"after": _parsed(position)} if follows else {})
    names = list(found.keys())
    if follows and cursor not in names:
        raise Refused(f"the query has :after, and no column {cursor!r}: its columns are {', '.join(names)}")
    for rows in found.partitions(AT_ONCE):
        columns = {name: [_plain(row[place]) for row in rows] for place, name in enumerate(names)}
        if follows:
            position = _stored(max(row[names.index(cursor)] for row in rows))
        yield Piece(columns, position)


def _plain(value: Any) -> Any:
    return float(value) if type(value).__name__ == "Decimal" else value


def _stored(value: Any) -> Any:
    return {"datetime": value.isoformat()} if isinstance(value, datetime) else _plain(value)


def _parsed(position: Any) -> Any:
    return datetime.fromisoformat(position["datetime"]) if isinstance(position, dict) else position


def beginning(text: str) -> Any:
    """A position of a query from what a person wrote: a number, a date with or without a time, or a text."""
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            pass
    try:
        return {"datetime": datetime.fromisoformat(text).isoformat()}
    except ValueError:
        return text


# ---- Prometheus -----------------------------------------------------------------------------------------------------


def promql_pieces(url: str, queries: Mapping[str, str], step_s: float, position: Any, now: float) -> Iterator[Piece]:
    """A row every `step_s` seconds from `position` (seconds since the epoch, not itself) to `now`; a column for each query,
    which must give one series. A point that a series does not have is missing. Raises Refused, Unavailable.
    """
    start, end = (math.floor(at / step_s) * step_s for at in (position, now))
    while start + step_s <= end:
        last = min(end, start + _POINTS * step_s)
        times = [start + step_s * number for number in range(1, round((last - start) / step_s) + 1)]
        columns: dict[str, Sequence[Any]] = {}
        for name, query in queries.items():
            points = _series(url, name, query, times[0], times[-1], step_s)
            columns[name] = [points.get(round(at * 1000)) for at in times]
        if any(value is not None for values in columns.values() for value in values):
            yield Piece({**columns, "(time)": times}, last)
        start = last


def _series(url: str, name: str, query: str, start: float, end: float, step_s: float) -> Mapping[int, float]:
    """Values by time in milliseconds."""
    asked = urllib.parse.urlencode({"query": query, "start": start, "end": end, "step": step_s})
    answer = _ask(f"{url.rstrip('/')}/api/v1/query_range?{asked}", name)
    result = answer["data"]["result"]
    if len(result) > 1:
        shown = ", ".join(json.dumps(each["metric"]) for each in result[:3])
        raise Refused(f"query {name} gives {len(result)} series ({shown} ...): make one of them, such as with sum(...)")
    values = result[0]["values"] if result else []
    return {round(float(at) * 1000): float(value) for at, value in values if value not in ("NaN", "+Inf", "-Inf")}


def _ask(url: str, name: str) -> Any:
    if not url.startswith(("http://", "https://")):
        raise Refused(f"--promql {url.split('/api/')[0]}: must be the http:// or https:// address of a Prometheus")
    try:
        with urllib.request.urlopen(url, timeout=PROMETHEUS_S) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        try:
            words = json.load(error)["error"]
        except (ValueError, KeyError, TypeError):
            words = f"{error.code} {error.reason}"
        raise Refused(f"query {name}: Prometheus says: {words}") from error
    except (OSError, ValueError) as error:
        raise Unavailable(f"Prometheus at {url.split('/api/')[0]} does not answer: {error}") from error
