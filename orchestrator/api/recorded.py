"""What an observer recorded, made into batches: as rows, or as a summary of them."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import itemgetter
from typing import Any, Literal, Protocol

from orchestrator.api.backlog import Block, Entry, Label, Row
from orchestrator.api.observing import Kind, Outgoing, within_size

REQUEST, TIME, PREDICTION, CONFIDENCE, LABEL = "(request)", "(time)", "(prediction)", "(confidence)", "(label)"
"""As in `drift/batches.py`, which brings numpy and pyarrow along."""

_ANSWERED = (REQUEST, TIME, PREDICTION, CONFIDENCE)

JOINED_ROWS = 100_000
"""Answers that are remembered for their labels where rows are not sent."""

Columns = Mapping[str, Any]


@dataclass
class Made:
    """What is to be sent now, and how many rows and labels make no columns."""

    batches: list[Outgoing] = field(default_factory=list)
    lost: int = 0
    why: str = ""


class Encoder(Protocol):
    def batches(self, entries: Sequence[Entry], *, all_now: bool) -> Made:
        """`all_now`: keep nothing back."""
        ...


class RowEncoder:
    """Rows first, then labels: those of one request that were recorded in this order arrive in it. `shadow`: of rows only
    what was answered.
    """

    def __init__(self, *, shadow: bool = False) -> None:
        self._seq, self._shadow = itertools.count(1), shadow

    def batches(self, entries: Sequence[Entry], *, all_now: bool) -> Made:
        made = Made()
        for kind, rows, columns in _tables(entries):
            try:
                made.batches += within_size(*self._as_sent(kind, columns), self._seq)
            except Exception as error:  # whatever a program's own objects do when they are looked at
                made.lost, made.why = made.lost + rows, repr(error)
        return made

    def _as_sent(self, kind: Literal["rows", "labels"], columns: Columns) -> tuple[Kind, Columns]:
        if kind == "labels" or not self._shadow:
            return kind, columns
        return "shadow", {name: each for name, each in columns.items() if name in _ANSWERED}


class SketchEncoder:
    """A summary every `every_s` seconds. The server never sees the rows, so labels are joined to them here: what is sent of
    a row whose label is known is that, the request and what was answered.
    """

    def __init__(self, every_s: float) -> None:
        self._seq = itertools.count(1)
        self._every_s, self._since = every_s, time.monotonic()
        self._table: Any = None
        self._answers: dict[str, tuple[Any, Any]] = {}

    def batches(self, entries: Sequence[Entry], *, all_now: bool) -> Made:
        made = Made()
        for kind, rows, columns in _tables(entries):
            try:
                known = self._joined(columns) if kind == "labels" else self._taken_in(columns)
                labelled = within_size("labels", known, self._seq) if known[LABEL] else []
                # The rows of a summary are counted with it.
                made.batches += labelled if kind == "labels" else [replace(each, rows=0) for each in labelled]
            except Exception as error:  # whatever a program's own objects do when they are looked at
                made.lost, made.why = made.lost + rows, repr(error)
        due = all_now or time.monotonic() - self._since >= self._every_s
        if due and self._table is not None:
            made.batches.append(Outgoing(next(self._seq), "sketch", self._table.rows, self._table.to_bytes()))
            self._table = None
        if due:
            self._since = time.monotonic()
        return made

    def _taken_in(self, columns: Columns) -> Columns:
        """Rows into the summary; the labels among them. Raises ValueError."""
        from orchestrator.drift.batches import read_batch, write_batch
        from orchestrator.drift.sketches import TableSummary

        batch = read_batch(write_batch(columns), time.time())
        if not batch.columns:
            raise ValueError("the rows have neither a feature nor a prediction")
        table = self._table or TableSummary()
        table.update(batch.columns)
        self._table = table
        requests = columns[REQUEST]
        nothing = [None] * len(requests)
        answers = zip(columns.get(PREDICTION, nothing), columns.get(CONFIDENCE, nothing), strict=True)
        self._answers.update(zip(requests, answers, strict=True))
        while len(self._answers) > JOINED_ROWS:
            del self._answers[next(iter(self._answers))]
        labels = list(columns.get(LABEL, nothing))
        at_once = [place for place, label in enumerate(labels) if label is not None]
        return self._joined({REQUEST: [requests[n] for n in at_once], LABEL: [labels[n] for n in at_once]})

    def _joined(self, columns: Columns) -> Columns:
        answers = [self._answers.pop(request, (None, None)) for request in columns[REQUEST]]
        return {
            REQUEST: columns[REQUEST],
            PREDICTION: [each[0] for each in answers],
            CONFIDENCE: [each[1] for each in answers],
            LABEL: columns[LABEL],
        }


def _tables(entries: Sequence[Entry]) -> Iterator[tuple[Literal["rows", "labels"], int, Columns]]:
    """Kind, rows and columns of all that was recorded."""
    rows = [each for each in entries if isinstance(each, Row)]
    if rows:
        yield "rows", len(rows), _columns(rows)
    for each in entries:
        if isinstance(each, Block):
            yield "rows", each.rows, each.columns
    labels = [each for each in entries if isinstance(each, Label)]
    if labels:
        yield (
            "labels",
            len(labels),
            {REQUEST: [each.request for each in labels], LABEL: [each.label for each in labels]},
        )


def _columns(rows: Sequence[Row]) -> Columns:
    """A column for each feature that any of the rows has, and of ours those that say something."""
    columns = _features([each.features for each in rows])
    columns[REQUEST] = [each.request for each in rows]
    columns[TIME] = [each.at for each in rows]
    for name, place in ((PREDICTION, 3), (CONFIDENCE, 4), (LABEL, 5)):
        values = [each[place] for each in rows]
        if any(value is not None for value in values):
            columns[name] = values
    return columns


def _features(rows: Sequence[Mapping[str, Any]]) -> dict[str, Sequence[Any]]:
    names = list(rows[0])
    if len(names) > 1 and all(len(row) == len(names) for row in rows):
        try:  # as rows of one program are, nearly always
            return dict(zip(names, zip(*map(itemgetter(*names), rows), strict=True), strict=True))
        except KeyError:
            pass
    names = list(dict.fromkeys(name for row in rows for name in row))
    return {name: [row.get(name) for row in rows] for name in names}
