"""Labels that came later than their rows, by request: as many as there are, in little memory."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

CACHE_KIB = 16 * 1024
_AT_ONCE = 500  # parameters of one query


class LateLabels:
    """In a temporary database of SQLite's, which has a file only once it outgrows its cache, and none that has a name."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("CREATE TABLE late (request TEXT PRIMARY KEY, label TEXT NOT NULL) WITHOUT ROWID")

    def add(self, labelled: Iterable[tuple[str | None, Any]]) -> None:
        """Of a request that is told twice, the later label counts. Those without either are passed over."""
        rows = (
            (request, json.dumps(label)) for request, label in labelled if request is not None and label is not None
        )
        self._database.execute("BEGIN")
        self._database.executemany("INSERT OR REPLACE INTO late VALUES (?, ?)", rows)
        self._database.execute("COMMIT")

    def of(self, requests: Sequence[str | None]) -> dict[str, Any]:
        """The labels that are known of these."""
        found: dict[str, Any] = {}
        asked = [each for each in requests if each is not None]
        for start in range(0, len(asked), _AT_ONCE):
            some = asked[start : start + _AT_ONCE]
            places = ", ".join("?" * len(some))
            query = f"SELECT request, label FROM late WHERE request IN ({places})"
            found |= {request: json.loads(label) for request, label in self._database.execute(query, some)}
        return found

    def close(self) -> None:
        self._database.close()
