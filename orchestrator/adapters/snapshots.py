"""Training data made of live traffic: the rows whose labels are known, frozen as parquet under the server's storage.

`ROOT/snapshots/PROJECT/MODEL/NUMBER/` has `rows.parquet` and, written last, `_lineage.json`: a snapshot without it was
interrupted, and is taken anew. Readers of `data.source` pass over names that begin with an underscore.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from orchestrator.core.decisions import Order
from orchestrator.core.words import counted
from orchestrator.errors import StorageFailed, TooFewLabels
from orchestrator.ports import ObservationStore, Observed, Snapshot

MOST_ROWS = 1_000_000
"""The newest: what was served long ago is in the data of earlier versions."""
GROUP_ROWS = 100_000
_REQUEST, _LABEL = "(request)", "(label)"


@dataclass
class _Survey:
    """What a first look at the batches finds."""

    first: int = 0  # the lowest number that is taken
    last: int = 0
    rows: int = 0  # of the batches that are taken
    since: float = 0.0
    until: float = 0.0
    versions: dict[int, int] = field(default_factory=dict)  # rows that each model version answered
    sources: set[str] = field(default_factory=set)
    late: dict[str | None, Any] = field(default_factory=dict)  # labels that came later, by request
    features: dict[str, Any] = field(default_factory=dict)  # Arrow types by name
    fractions: bool = False  # some label is a number of floating point
    words: bool = False  # some label is no whole number


class ParquetSnapshots:
    """Implements ports.SnapshotStore. Reads the journal twice: memory holds one piece of it, and the late labels."""

    def __init__(self, observations: ObservationStore, root: str) -> None:
        self._observations, self._root = observations, root.rstrip("/")

    def take(self, project: str, model: str, number: int, order: Order, *, label: str, least_rows: int = 1) -> Snapshot:
        url = f"{self._root}/snapshots/{project}/{model}/{number}"
        try:
            files, path = url_to_fs(url)  # type: ignore[no-untyped-call]
            lineage = _read_lineage(files, path)
            if lineage is None:
                lineage = self._write(files, path, project, model, order, label, least_rows)
        except (OSError, ValueError) as error:
            raise StorageFailed(f"{url}: the snapshot cannot be written: {error}") from error
        return Snapshot(url, int(lineage["rows"]), tuple(lineage["columns"]), lineage)

    def _write(
        self, files: Any, path: str, project: str, model: str, order: Order, label: str, least_rows: int
    ) -> Mapping[str, Any]:
        survey = self._survey(project, model, order)
        schema = _schema(survey, label)
        files.makedirs(path, exist_ok=True)
        rows = self._write_rows(files, f"{path}/rows.parquet", project, model, order.upto, survey, schema)
        if rows < max(1, least_rows):
            observed = f"{counted(survey.rows, 'observed row')} of model {model}"
            has = f"none of {observed} has a label" if not rows else f"only {rows} of {observed} are labelled"
            wanted = f", at least {least_rows} are needed" if least_rows > 1 else ""
            raise TooFewLabels(f"{has}{wanted}: send labels with the rows, or later by their request ids")
        lineage = {
            "batches": [survey.first, survey.last],
            "observed_rows": survey.rows,
            "rows": rows,
            "since": survey.since,
            "until": survey.until,
            "versions": {str(version): number for version, number in sorted(survey.versions.items())},
            "sources": len(survey.sources),
            "label": label,
            "columns": schema.names,
        }
        files.pipe(f"{path}/.lineage", json.dumps(lineage).encode())
        files.mv(f"{path}/.lineage", f"{path}/_lineage.json")
        return lineage

    def _survey(self, project: str, model: str, order: Order) -> _Survey:
        survey = _Survey()
        kept: deque[Observed] = deque()
        rows = 0
        for batch in self._batches(project, model, order.after, order.upto):
            survey.until = batch.at
            if batch.kind == "labels":
                _take_labels(batch, survey)
            elif batch.kind == "rows":
                _take_rows(batch, survey)
                kept.append(replace(batch, data=b""))
                rows += batch.rows
            while rows > MOST_ROWS:
                rows -= kept.popleft().rows
        if kept:
            survey.first, survey.last, survey.rows = kept[0].number, kept[-1].number, rows
        return survey

    def _write_rows(
        self, files: Any, path: str, project: str, model: str, upto: int, survey: _Survey, schema: Any
    ) -> int:
        import pyarrow.parquet as pq

        written = 0
        with files.open(path, "wb") as file:
            with pq.ParquetWriter(file, schema) as writer:
                for group in _grouped(self._tables(project, model, upto, survey, schema)):
                    writer.write_table(group, row_group_size=GROUP_ROWS)
                    written += group.num_rows
            if isinstance(files, LocalFileSystem):
                file.flush()
                os.fsync(file.fileno())
        return written

    def _tables(self, project: str, model: str, upto: int, survey: _Survey, schema: Any) -> Iterator[Any]:
        for batch in self._batches(project, model, survey.first - 1, upto) if survey.first else ():
            if batch.kind == "rows" and (table := _labelled(batch, survey, schema)).num_rows:
                survey.since = survey.since or batch.at
                survey.versions[batch.version] = survey.versions.get(batch.version, 0) + table.num_rows
                survey.sources.add(batch.source)
                yield table

    def _batches(self, project: str, model: str, after: int, upto: int) -> Iterator[Observed]:
        while after < upto:
            found = self._observations.read(project, model, after=after)
            if not found:
                return
            yield from (each for each in found if each.number <= upto)
            after = found[-1].number


def _grouped(tables: Iterator[Any]) -> Iterator[Any]:
    """Tables of `GROUP_ROWS` rows and more, but for the last: each row group is a piece of work for whoever reads it."""
    import pyarrow as pa

    some: list[Any] = []
    for table in tables:
        some.append(table)
        if sum(each.num_rows for each in some) >= GROUP_ROWS:
            yield pa.concat_tables(some)
            some = []
    if some:
        yield pa.concat_tables(some)


def _read_lineage(files: Any, path: str) -> Mapping[str, Any] | None:
    try:
        found: Mapping[str, Any] = json.loads(files.cat(f"{path}/_lineage.json"))
    except FileNotFoundError:
        return None
    return found


def _table(batch: Observed) -> Any:
    import pyarrow as pa

    with pa.ipc.open_stream(batch.data) as stream:
        return stream.read_all()


def _take_labels(batch: Observed, survey: _Survey) -> None:
    table = _table(batch)
    requests, labels = _texts(table.column(_REQUEST)), table.column(_LABEL).to_pylist()
    _look_at(labels, survey)
    for request, label in zip(requests, labels, strict=True):
        if request is not None and label is not None:
            survey.late[request] = label


def _take_rows(batch: Observed, survey: _Survey) -> None:
    import pyarrow as pa

    table = _table(batch)
    for each in table.schema:
        kind = each.type.value_type if pa.types.is_dictionary(each.type) else each.type
        if each.name.startswith("(") or pa.types.is_null(kind):
            continue
        known = survey.features.setdefault(each.name, kind)
        if known != kind:
            survey.features[each.name] = pa.string() if pa.string() in (known, kind) else pa.float64()
    if _LABEL in table.column_names:
        _look_at(table.column(_LABEL).to_pylist(), survey)


def _look_at(labels: list[Any], survey: _Survey) -> None:
    for each in labels:
        survey.fractions = survey.fractions or isinstance(each, float)
        survey.words = survey.words or (isinstance(each, str) and not each.removeprefix("-").isdecimal())


def _schema(survey: _Survey, label: str) -> Any:
    """Features by name, then the label: whole numbers where all of them are, so that classes are those of before."""
    import pyarrow as pa

    kind = pa.string() if survey.words else pa.float64() if survey.fractions else pa.int64()
    return pa.schema([*sorted(survey.features.items()), (label, kind)])


def _labelled(batch: Observed, survey: _Survey, schema: Any) -> Any:
    """The rows of a batch that have a label, in the snapshot's columns."""
    import pyarrow as pa

    table = _table(batch)
    labels = table.column(_LABEL).to_pylist() if _LABEL in table.column_names else [None] * table.num_rows
    requests = _texts(table.column(_REQUEST)) if _REQUEST in table.column_names else [None] * table.num_rows
    both = zip(requests, labels, strict=True)
    joined = [label if request is None else survey.late.get(request, label) for request, label in both]
    columns = []
    for each in schema:
        if each.name == schema.names[-1]:
            columns.append(_column(joined, each.type))
        elif each.name in table.column_names:
            columns.append(table.column(each.name).cast(each.type, safe=False))
        else:
            columns.append(pa.nulls(table.num_rows, each.type))
    made = pa.table(columns, schema=schema)
    return made.filter(pa.array([each is not None for each in joined], pa.bool_()))


def _column(labels: list[Any], kind: Any) -> Any:
    import pyarrow as pa

    as_kind = str if pa.types.is_string(kind) else float if pa.types.is_floating(kind) else int
    return pa.array([None if each is None else as_kind(each) for each in labels], kind)


def _texts(column: Any) -> list[str | None]:
    import pyarrow as pa

    texts: list[str | None] = column.cast(pa.string()).to_pylist()
    return texts
