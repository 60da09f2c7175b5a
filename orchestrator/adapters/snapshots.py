"""Training data made of live traffic: the rows whose labels are known, frozen as parquet under the server's storage.

`ROOT/snapshots/PROJECT/MODEL/NUMBER/` has `rows.parquet` and, written last, `_lineage.json`: a snapshot without it was
interrupted, and is taken anew. Readers of `data.source` pass over names that begin with an underscore.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from orchestrator.adapters.late_labels import LateLabels
from orchestrator.core.decisions import Order
from orchestrator.core.words import counted
from orchestrator.errors import EvertrainError, Refused, StorageFailed
from orchestrator.ports import ObservationStore, Observed, Snapshot, TooFewLabels

MOST_ROWS = 1_000_000
"""The newest: what was served long ago is in the data of earlier versions."""
GROUP_ROWS = 100_000
_REQUEST, _TIME, _LABEL = "(request)", "(time)", "(label)"
_EXACT = 2**53  # up to here every whole number is one of floating point
_DIGITS = 18  # fit an integer of 64 bits


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
    features: dict[str, Any] = field(default_factory=dict)  # Arrow types by name
    labels: set[type] = field(default_factory=set)  # bool, int, float, str


class ParquetSnapshots:
    """Implements ports.SnapshotStore. Reads the journal twice: memory holds one piece of it at a time."""

    def __init__(self, observations: ObservationStore, root: str) -> None:
        self._observations, self._root = observations, root.rstrip("/")

    def take(
        self,
        project: str,
        model: str,
        number: int,
        order: Order,
        *,
        label: str,
        number_label: bool = False,
        columns: Sequence[str] = (),
        least_rows: int = 1,
    ) -> Snapshot:
        url = self._url(project, model, number)
        try:
            files, path = _storage(url)
            lineage = _read_lineage(files, path)
            if lineage is None:
                lineage = self._write(files, path, project, model, order, label, number_label, columns, least_rows)
        except EvertrainError:
            raise
        except Exception as error:  # object stores raise whatever their client library has
            raise StorageFailed(f"{url}: the snapshot cannot be written: {error or type(error).__name__}") from error
        return Snapshot(url, int(lineage["rows"]), tuple(lineage["columns"]), lineage)

    def remove(self, project: str, model: str, number: int) -> None:
        url = self._url(project, model, number)
        try:
            files, path = _storage(url)
            files.rm_file(f"{path}/rows.parquet")
        except FileNotFoundError:
            return
        except EvertrainError:
            raise
        except Exception as error:  # as above
            raise StorageFailed(f"{url}: the snapshot cannot be removed: {error or type(error).__name__}") from error

    def _url(self, project: str, model: str, number: int) -> str:
        return f"{self._root}/snapshots/{project}/{model}/{number}"

    def _write(
        self,
        files: Any,
        path: str,
        project: str,
        model: str,
        order: Order,
        label: str,
        number_label: bool,
        columns: Sequence[str],
        least_rows: int,
    ) -> Mapping[str, Any]:
        with contextlib.closing(LateLabels()) as late:
            survey = self._survey(project, model, order, late)
            survey.labels |= {float} if number_label else set()
            schema = _schema(survey, label, columns)
            files.makedirs(path, exist_ok=True)
            tables = self._tables(project, model, order, survey, late, schema)
            rows = _write_rows(files, f"{path}/rows.parquet", tables, schema)
        if rows < max(1, least_rows):
            files.rm_file(f"{path}/rows.parquet")
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

    def _survey(self, project: str, model: str, order: Order, late: LateLabels) -> _Survey:
        survey = _Survey()
        kept: deque[tuple[int, int]] = deque()  # numbers and rows of batches
        rows = 0
        for batch in self._batches(project, model, order.after, order.upto):
            survey.until = batch.at
            if batch.kind == "labels":
                _take_labels(batch, survey, late)
            elif batch.kind == "rows":
                _take_rows(batch, survey)
                kept.append((batch.number, batch.rows))
                rows += batch.rows
            while rows > MOST_ROWS:
                rows -= kept.popleft()[1]
        if kept:
            survey.first, survey.last, survey.rows = kept[0][0], kept[-1][0], rows
        return survey

    def _tables(
        self, project: str, model: str, order: Order, survey: _Survey, late: LateLabels, schema: Any
    ) -> Iterator[Any]:
        for batch in self._batches(project, model, survey.first - 1, order.upto) if survey.first else ():
            if batch.kind == "rows" and (table := _labelled(batch, late, schema, order.since)).num_rows:
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


def _write_rows(files: Any, path: str, tables: Iterator[Any], schema: Any) -> int:
    import pyarrow.parquet as pq

    written = 0
    with files.open(path, "wb") as file:
        with pq.ParquetWriter(file, schema) as writer:
            for group in _grouped(tables):
                writer.write_table(group, row_group_size=GROUP_ROWS)
                written += group.num_rows
        if isinstance(files, LocalFileSystem):
            file.flush()
            os.fsync(file.fileno())
    return written


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


def _storage(url: str) -> tuple[Any, str]:
    """File system and path of a URL. Raises Refused where this installation lacks what reaches it, ValueError."""
    try:
        files, path = url_to_fs(url)  # type: ignore[no-untyped-call]
    except ImportError as error:
        raise Refused(
            f"{url}: the server's installation lacks the package for such a storage: {error}. Install it where the server "
            "runs (for s3:// `pip install 'evertrain[s3]'`, of the image the build argument EVERTRAIN_EXTRAS), start the "
            "server again and ask for the retraining again"
        ) from error
    return files, path


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


def _take_labels(batch: Observed, survey: _Survey, late: LateLabels) -> None:
    table = _table(batch)
    requests, labels = _texts(table.column(_REQUEST)), _labels(table.column(_LABEL))
    survey.labels |= {type(each) for each in labels if each is not None}
    late.add(zip(requests, labels, strict=True))


def _take_rows(batch: Observed, survey: _Survey) -> None:
    import pyarrow as pa

    table = _table(batch)
    for each in table.schema:
        kind = _plain(each.type)
        if each.name.startswith("(") or pa.types.is_null(kind) or pa.types.is_nested(kind):
            continue  # ours, nothing, or an embedding: no model was trained with one beside its features
        known = survey.features.setdefault(each.name, kind)
        if known != kind:
            survey.features[each.name] = pa.string() if pa.string() in (known, kind) else pa.float64()
    if _LABEL in table.column_names:
        survey.labels |= {type(each) for each in _labels(table.column(_LABEL)) if each is not None}


def _plain(kind: Any) -> Any:
    """The Arrow type of values that are written one by one: replicas send texts as any of three."""
    import pyarrow as pa

    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.string() if pa.types.is_large_string(value) else value


def _labels(column: Any) -> list[Any]:
    """As they were before they travelled: a fraction or a text that spells a whole number is one."""
    return [_meant(each) for each in column.to_pylist()]


def _meant(label: Any) -> Any:
    if isinstance(label, float):
        if label != label:
            return None
        return int(label) if label.is_integer() and abs(label) < _EXACT else label
    if isinstance(label, str) and len(label) <= _DIGITS and label.removeprefix("-").isdecimal():
        return int(label) if str(int(label)) == label else label  # 007 is a name
    return label


def _schema(survey: _Survey, label: str, columns: Sequence[str]) -> Any:
    """Features in the order of `columns`, others by name, then the label: whole numbers where all of them are, so that
    classes are those of before. What is sent as a feature under the label's own name is none.
    """
    import pyarrow as pa

    kind = pa.bool_() if survey.labels == {bool} else pa.int64()
    if float in survey.labels:
        kind = pa.float64()
    if str in survey.labels:
        kind = pa.string()
    place = {name: number for number, name in enumerate(columns)}
    names = sorted(survey.features.keys() - {label}, key=lambda name: (place.get(name, len(place)), name))
    return pa.schema([*((name, survey.features[name]) for name in names), (label, kind)])


def _labelled(batch: Observed, late: LateLabels, schema: Any, since: float) -> Any:
    """The rows of a batch that have a label and are not of before `since`, in the snapshot's columns."""
    import pyarrow as pa
    import pyarrow.compute as pc

    table = _table(batch)
    labels = _labels(table.column(_LABEL)) if _LABEL in table.column_names else [None] * table.num_rows
    requests = _texts(table.column(_REQUEST)) if _REQUEST in table.column_names else [None] * table.num_rows
    both = zip(requests, labels, strict=True)
    known = late.of(requests)
    joined = [label if request is None else known.get(request, label) for request, label in both]
    columns = []
    for each in schema:
        try:
            if each.name == schema.names[-1]:
                columns.append(_column(joined, each.type))
            elif each.name in table.column_names:
                column = table.column(each.name)
                columns.append(column.cast(_plain(column.type)).cast(each.type, safe=False))
            else:
                columns.append(pa.nulls(table.num_rows, each.type))
        except (pa.ArrowException, OverflowError) as error:
            raise Refused(
                f"column {each.name} is {each.type} in the snapshot, and batch {batch.number} of {batch.source} has values "
                f"in it that are not: {error}"
            ) from error
    made = pa.table(columns, schema=schema)
    taken = pa.array([each is not None for each in joined], pa.bool_())
    return made.filter(pc.and_(taken, _since(table, since)))


def _since(table: Any, since: float) -> Any:
    """Which rows are of that time or later, by what they say themselves; those that say nothing were received later."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not since or _TIME not in table.column_names:
        return pa.array([True] * table.num_rows, pa.bool_())
    times = table.column(_TIME).combine_chunks()
    if pa.types.is_timestamp(times.type):
        times = pc.divide(times.cast(pa.timestamp("us")).cast(pa.int64()).cast(pa.float64()), 1e6)
    return pc.fill_null(pc.greater_equal(times, since), True)


def _column(labels: list[Any], kind: Any) -> Any:
    import pyarrow as pa

    as_kind = _text if pa.types.is_string(kind) else float if pa.types.is_floating(kind) else int
    if pa.types.is_boolean(kind):
        as_kind = bool
    return pa.array([None if each is None else as_kind(each) for each in labels], kind)


def _text(label: Any) -> str:
    return str(label).lower() if isinstance(label, bool) else str(label)  # as Arrow, and so the judging loop, has it


def _texts(column: Any) -> list[str | None]:
    import pyarrow as pa

    texts: list[str | None] = column.cast(pa.string()).to_pylist()
    return texts
