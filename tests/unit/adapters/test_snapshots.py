"""Training data made of live traffic: which rows, in which columns, and the same ones whenever it is asked again."""

from __future__ import annotations

import datetime
import json
import sys
import tracemalloc
import uuid
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestrator.adapters import snapshots
from orchestrator.adapters.memory_observations import MemoryObservationStore
from orchestrator.adapters.snapshots import ParquetSnapshots
from orchestrator.core.decisions import Order
from orchestrator.drift.batches import write_batch
from orchestrator.errors import Refused, StorageFailed
from orchestrator.ports import Observed, Snapshot, TooFewLabels


class Journal:
    def __init__(self, root: Path) -> None:
        self.root, self.observations = root, MemoryObservationStore()
        self.snapshots = ParquetSnapshots(self.observations, str(root))

    def rows(self, rows: int, *, version: int = 1, **columns: Any) -> None:
        self.keep("rows", rows, version, columns)

    def labels(self, requests: list[str], labels: list[Any]) -> None:
        self.keep("labels", len(labels), 0, {"(request)": requests, "(label)": labels})

    def keep(self, kind: Any, rows: int, version: int, columns: dict[str, Any]) -> None:
        seq = self.observations.last("default", "digits") + 1
        batch = Observed(0, 100.0 + seq, "replica", seq, kind, version, rows, write_batch(columns))
        self.observations.append("default", "digits", [batch])

    def take(self, number: int = 1, upto: int | None = None, after: int = 0) -> Snapshot:
        last = self.observations.last("default", "digits") if upto is None else upto
        return self.snapshots.take("default", "digits", number, Order("run-base", 1, after, last), label="digit")


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path)


def table(snapshot: Snapshot) -> pa.Table:
    return pq.read_table(Path(snapshot.url, "rows.parquet"))


def test_features_stand_in_the_order_in_which_the_model_knows_them(journal: Journal) -> None:
    """Its weights know columns by their places: another order would be refused as other columns."""
    journal.rows(1, zebra=[1.0], colour=["red"], ant=[2.0], new=[3.0], **{"(label)": [1]})
    order = Order("run-base", 1, 0, journal.observations.last("default", "digits"))
    taken = journal.snapshots.take(
        "default", "digits", 1, order, label="digit", columns=["zebra", "ant", "gone", "colour"]
    )
    assert table(taken).column_names == ["zebra", "ant", "colour", "new", "digit"]


def test_rows_with_a_label_are_kept_with_their_features_alone(journal: Journal) -> None:
    ours = {"(request)": ["a", "b"], "(prediction)": ["1", "2"], "(confidence)": [0.9, 0.8], "(time)": [50.0, 51.0]}
    journal.rows(
        2, height=[1.5, 2.5], colour=["red", "blue"], hidden=[[0.1, 0.2]] * 2, **ours, **{"(label)": [1, None]}
    )
    taken = journal.take()
    assert table(taken).to_pylist() == [{"colour": "red", "height": 1.5, "digit": 1}]
    assert (taken.rows, taken.columns) == (1, ("colour", "height", "digit"))
    assert taken.lineage["observed_rows"] == 2


def test_labels_that_come_later_are_joined_by_their_request(journal: Journal) -> None:
    journal.labels(["late", "nobody"], [7, 8])
    journal.rows(3, height=[1.0, 2.0, 3.0], **{"(request)": ["early", "late", "never"]})
    journal.labels(["early"], [9])
    assert [each["digit"] for each in table(journal.take()).to_pylist()] == [9, 7]


@pytest.mark.parametrize(
    ("labels", "kind"),
    [([3, 4], pa.int64()), (["3", "4"], pa.int64()), (["cat", "3"], pa.string()), ([1.5, 2.0], pa.float64())],
)
def test_labels_are_whole_numbers_where_all_of_them_are(journal: Journal, labels: list[Any], kind: Any) -> None:
    journal.rows(2, height=[1.0, 2.0], **{"(label)": labels})
    assert table(journal.take()).schema.field("digit").type == kind


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ([[3.0, 4.0], [5]], [3, 4, 5]),
        ([[3.0, 4.0], ["cat"]], ["3", "4", "cat"]),
        ([["007", "12"], ["-3"]], ["007", "12", "-3"]),
        ([[True, False]], [True, False]),
        ([[True, False], ["maybe"]], ["true", "false", "maybe"]),
        ([["12345678901234567890"]], ["12345678901234567890"]),
    ],
)
def test_labels_keep_their_spelling(journal: Journal, sent: list[list[Any]], kept: list[Any]) -> None:
    for labels in sent:
        journal.rows(len(labels), height=[1.0] * len(labels), **{"(label)": labels})
    assert table(journal.take()).column("digit").to_pylist() == kept


def test_a_column_of_numbers_here_and_texts_of_any_kind_there_is_one_of_texts(journal: Journal) -> None:
    large = pa.array(["red"], pa.large_string())
    for colour in ([1], pa.array(["blue"]), large.dictionary_encode()):
        journal.rows(1, colour=colour, **{"(label)": [1]})
    plain = pa.record_batch([large, pa.array([1])], names=["colour", "(label)"])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, plain.schema) as stream:
        stream.write_batch(plain)
    batch = Observed(0, 200.0, "by hand", 1, "rows", 1, 1, bytes(sink.getvalue()))
    journal.observations.append("default", "digits", [batch])
    assert table(journal.take()).column("colour").to_pylist() == ["1", "blue", "red", "red"]


def test_values_that_no_column_holds_are_refused_by_its_name(journal: Journal) -> None:
    journal.rows(1, height=[1.0], **{"(label)": pa.array([2**63], pa.uint64())})
    with pytest.raises(Refused, match="column digit is int64 in the snapshot, and batch 1 of replica"):
        journal.take()


def test_what_is_sent_as_a_feature_under_the_labels_name_is_left_out(journal: Journal) -> None:
    journal.rows(2, height=[1.0, 2.0], digit=["no", "label"], **{"(label)": [3, 4]})
    taken = journal.take()
    assert taken.columns == ("height", "digit")
    assert table(taken).column("digit").to_pylist() == [3, 4]


def test_columns_that_came_and_went_are_missing_where_they_were_not(journal: Journal) -> None:
    journal.rows(1, height=[1], **{"(label)": [1]})
    journal.rows(1, height=[2.5], width=[3.0], **{"(label)": [2]})
    assert table(journal.take()).to_pylist() == [
        {"height": 1.0, "width": None, "digit": 1},
        {"height": 2.5, "width": 3.0, "digit": 2},
    ]


def test_it_ends_at_the_batch_that_was_decided_on_and_is_the_same_when_taken_again(journal: Journal) -> None:
    journal.rows(1, height=[1.0], **{"(label)": [1]}, version=1)
    journal.rows(1, height=[2.0], **{"(label)": [2]}, version=2)
    journal.rows(1, height=[3.0], **{"(label)": [3]}, version=2)
    first = journal.take(upto=2)
    assert first.rows == 2
    assert first.lineage["batches"] == [1, 2]
    assert first.lineage["versions"] == {"1": 1, "2": 1}
    assert (first.lineage["since"], first.lineage["until"]) == (101.0, 102.0)
    assert journal.take(upto=3) == first, "of the same decision"
    assert journal.take(number=2, upto=3).rows == 3


def test_it_begins_after_the_world_of_before_and_takes_its_late_labels_from_anywhere_after(journal: Journal) -> None:
    for number in range(1, 5):
        journal.rows(2, height=[1.0, 2.0], **{"(label)": [1, None], "(request)": [f"a{number}", f"b{number}"]})
    journal.labels(["b1", "b4"], [7, 8])
    taken = journal.take(after=2)
    assert taken.lineage["batches"] == [3, 4]
    assert [each["digit"] for each in table(taken).to_pylist()] == [1, 1, 8]


def test_a_large_one_is_written_in_large_pieces(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "GROUP_ROWS", 5)
    for _ in range(6):
        journal.rows(2, height=[1.0, 2.0], **{"(label)": [1, 2]})
    groups = pq.ParquetFile(Path(journal.take().url, "rows.parquet")).metadata
    assert [groups.row_group(each).num_rows for each in range(groups.num_row_groups)] == [5, 1, 5, 1]


def test_one_that_was_interrupted_is_taken_anew(journal: Journal) -> None:
    journal.rows(1, height=[1.0], **{"(label)": [1]})
    place = journal.root / "snapshots/default/digits/1"
    place.mkdir(parents=True)
    (place / "rows.parquet").write_bytes(b"half of a fi")
    assert journal.take().rows == 1
    assert json.loads((place / "_lineage.json").read_text())["rows"] == 1


def test_rows_of_which_none_has_a_label_are_refused(journal: Journal) -> None:
    journal.rows(2, height=[1.0, 2.0])
    with pytest.raises(Refused, match="none of 2 observed rows"):
        journal.take()


def test_a_storage_that_cannot_be_written_is_told(journal: Journal) -> None:
    journal.rows(1, height=[1.0], **{"(label)": [1]})
    (journal.root / "snapshots").write_text("in the way")
    with pytest.raises(StorageFailed, match="snapshot cannot be written"):
        journal.take()


def test_a_storage_for_which_the_server_lacks_the_package_is_refused_with_its_name(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)  # as in a server's image without the extra `s3`
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)  # another test may have used it
    there = ParquetSnapshots(journal.observations, "s3://bucket/runs")
    with pytest.raises(Refused, match=r"s3://bucket/runs/snapshots/.*: Install s3fs to access S3.*evertrain\[s3\]"):
        there.take("default", "digits", 1, Order("run-base", 1, 0, 0), label="digit")


def test_one_in_a_bucket_is_whole_and_the_same_when_taken_again(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    boto3, moto = pytest.importorskip("boto3"), pytest.importorskip("moto.server")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        endpoint = "http://{}:{}".format(*server.get_host_and_port())
        for setting, value in (("ENDPOINT_URL", endpoint), ("ACCESS_KEY_ID", "x"), ("SECRET_ACCESS_KEY", "x")):
            monkeypatch.setenv(f"AWS_{setting}", value)
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        bucket = boto3.client("s3")
        name = "snapshots-" + uuid.uuid4().hex  # moto's servers of one process have the same buckets
        bucket.create_bucket(Bucket=name)
        journal.snapshots = ParquetSnapshots(journal.observations, f"s3://{name}/evertrain")
        journal.rows(2, height=[1.5, 2.5], **{"(label)": [1, 0]})
        taken = journal.take()
        kept = {each["Key"]: each["ETag"] for each in bucket.list_objects_v2(Bucket=name)["Contents"]}
        assert sorted(key.rpartition("/")[2] for key in kept) == ["_lineage.json", "rows.parquet"]
        assert journal.take() == taken
        assert kept == {each["Key"]: each["ETag"] for each in bucket.list_objects_v2(Bucket=name)["Contents"]}
        with fsspec.open(f"{taken.url}/rows.parquet") as file:
            assert pq.read_table(file).to_pylist() == [{"height": 1.5, "digit": 1}, {"height": 2.5, "digit": 0}]
    finally:
        server.stop()


def test_fewer_labelled_rows_than_asked_for_are_refused_and_taken_once_there_are_enough(journal: Journal) -> None:
    journal.rows(3, height=[1.0, 2.0, 3.0], **{"(label)": [1, None, None], "(request)": ["a", "b", "c"]})

    def take() -> Snapshot:
        last = journal.observations.last("default", "digits")
        order = Order("run-base", 1, 0, last)
        return journal.snapshots.take("default", "digits", 1, order, label="digit", least_rows=2)

    with pytest.raises(
        TooFewLabels, match="only 1 of 3 observed rows of model digits are labelled, at least 2 are needed"
    ):
        take()
    journal.labels(["b"], [7])
    assert take().rows == 2


def test_rows_that_say_themselves_that_they_are_of_before_are_not_of_the_world_since(journal: Journal) -> None:
    late = [datetime.datetime.fromtimestamp(at, datetime.UTC) for at in (40.0, 60.0)]
    journal.rows(2, height=[1.0, 2.0], **{"(time)": [40.0, 60.0], "(label)": [1, 2]})
    journal.rows(2, height=[3.0, 4.0], **{"(time)": late, "(label)": [3, 4]})
    journal.rows(2, height=[5.0, 6.0], **{"(time)": [None, 60.0], "(label)": [5, 6]})
    journal.rows(1, height=[7.0], **{"(label)": [7]})
    order = Order("run-base", 1, 0, 4, since=50.0)
    taken = journal.snapshots.take("default", "digits", 1, order, label="digit")
    assert table(taken).column("digit").to_pylist() == [2, 4, 5, 6, 7]


def test_late_labels_take_little_memory_however_many_there_are(journal: Journal) -> None:
    rows, batches = 10_000, 20
    for batch in range(batches):
        requests = [f"request-{batch}-{row}" for row in range(rows)]
        journal.labels(requests, list(range(rows)))
    journal.rows(2, height=[1.0, 2.0], **{"(request)": ["request-19-7", "request-0-9999"]})
    tracemalloc.start()
    try:
        taken = journal.take()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert table(taken).column("digit").to_pylist() == [7, 9999]
    assert peak < 20 * 2**20, "200,000 labels in a dictionary take twice that"


def test_rows_that_were_removed_leave_their_lineage(journal: Journal) -> None:
    journal.rows(1, height=[1.0], **{"(label)": [1]})
    taken = journal.take()
    for _ in range(2):
        journal.snapshots.remove("default", "digits", 1)
    assert not Path(taken.url, "rows.parquet").exists()
    assert json.loads(Path(taken.url, "_lineage.json").read_text())["rows"] == 1
    journal.snapshots.remove("default", "digits", 99)
