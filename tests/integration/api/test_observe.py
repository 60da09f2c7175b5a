"""Live traffic over the wire: what is kept, what is refused in words, and what serving never notices."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pandas
import pytest

from orchestrator import Client, Observer
from orchestrator.core.records import Role
from orchestrator.drift.batches import read_batch, write_batch
from orchestrator.drift.sketches import TableSummary
from orchestrator.errors import Denied, NotFound, Refused
from orchestrator.ports import Observed
from orchestrator.protocol.v1.generated import evertrain_pb2 as pb
from orchestrator.protocol.v1.generated import evertrain_pb2_grpc as rpc
from orchestrator.spec import dump, load
from tests.integration.api.stack import Stack

NUMBERS = iter(range(1, 10**6))


@pytest.fixture
def model(stack: Stack) -> str:
    """With one version, which nobody else watches."""
    name = f"model-{next(NUMBERS)}"
    stack.end(stack.place(stack.submit(name=name)))
    return name


@pytest.fixture
def observer(stack: Stack, model: str) -> Iterator[Observer]:
    with Observer(model, version=1, server=stack.address, token=stack.admin, every_s=0.05) as made:
        yield made


@pytest.fixture
def observe(stack: Stack, model: str) -> Callable[..., list[str]]:
    """Send messages in one stream; what was refused, in order of the answers ("" for what was kept)."""
    stub: Any = rpc.MonitorsStub(stack.channel)

    def send(*messages: pb.ObserveRequest, secret: str = "", **first: str) -> list[str]:
        names = {"project": "default", "model": model, "source": "replica", **first}
        for name, value in names.items():
            setattr(messages[0], name, value)
        metadata = (("authorization", f"Bearer {secret or stack.admin}"),)
        replies = list(stub.Observe(iter(messages), metadata=metadata, timeout=30))
        assert [each.seq for each in replies] == [each.seq for each in messages]
        return [each.refused for each in replies]

    return send


def rows(seq: int, data: bytes | None = None, kind: str = "rows", version: int = 1) -> pb.ObserveRequest:
    data = write_batch({"age": [seq, seq + 1]}) if data is None else data
    return pb.ObserveRequest(seq=seq, kind=kind, version=version, data=data)


def kept(stack: Stack, model: str, project: str = "default") -> list[Observed]:
    return stack.parts.observations.read(project, model, after=0)


# ---- the wire -------------------------------------------------------------------------------------------------------


def test_every_batch_is_answered_once_it_is_durable(stack: Stack, model: str, observe: Any) -> None:
    before = time.time()
    assert observe(*[rows(seq) for seq in range(1, 41)]) == [""] * 40

    found = kept(stack, model)
    assert [each.seq for each in found] == list(range(1, 41))
    assert {(each.source, each.kind, each.version, each.rows) for each in found} == {("replica", "rows", 1, 2)}
    assert all(before <= each.at <= time.time() for each in found)
    np.testing.assert_array_equal(read_batch(found[6].data, 0.0).columns["age"], [7, 8])


def test_a_batch_that_is_sent_again_is_answered_and_kept_once(stack: Stack, model: str, observe: Any) -> None:
    observe(rows(1), rows(2))
    assert observe(rows(2), rows(1), rows(4), rows(3)) == [""] * 4
    assert [each.seq for each in kept(stack, model)] == [1, 2, 4, 3]


@pytest.mark.parametrize(
    ("odd", "words"),
    [
        (rows(2, b"junk"), "these 4 bytes are no Arrow IPC stream"),
        (rows(2, b""), "no Arrow IPC stream"),
        (rows(2, write_batch({"(time)": [1.0]})), "neither a feature"),
        (rows(2, b"x" * (4 * 2**20 + 1)), "has 4,194,305 bytes, 4,194,304 are allowed: send fewer rows"),
        (rows(2, kind="gossip"), "kind 'gossip': must be one of rows, labels, sketch"),
        (rows(2, version=7), "has no version 7: say 0 where it is not known"),
        (rows(-1), "seq -1: batches of a source are counted from 1"),
        (rows(2, b"EVDS junk", kind="sketch"), "these 9 bytes are no summary of a table"),
        (rows(2, TableSummary().to_bytes(), kind="sketch"), "the summary is of no rows"),
        (rows(2, kind="labels"), r"labels need the columns"),
        (rows(2, kind="shadow"), r"answers in shadow need the columns (request) and (prediction)"),
        (rows(2, write_batch({"(request)": ["a"], "(prediction)": [1], "age": [1]}), "shadow"), "with the feature age"),
        (
            rows(2, write_batch({"(request)": ["a"], "(prediction)": [1]}), "shadow", version=0),
            "of version 0, which is none",
        ),
    ],
)
def test_what_cannot_be_kept_is_refused_in_words_and_the_stream_goes_on(
    stack: Stack, model: str, observe: Any, odd: pb.ObserveRequest, words: str
) -> None:
    first, refused, last = observe(rows(1), odd, rows(3))

    assert (first, last) == ("", "")
    assert words in refused
    assert [each.seq for each in kept(stack, model)] == [1, 3]
    assert observe(rows(2)) == [""]  # the number of what was refused was not used up


def test_a_version_that_is_registered_meanwhile_is_known(stack: Stack, model: str, observe: Any) -> None:
    assert observe(rows(1), rows(2, version=2))[1] != ""
    stack.end(stack.place(stack.submit(name=model)))
    assert observe(rows(3, version=2)) == [""]


@pytest.mark.parametrize(
    ("first", "code"),
    [
        ({"model": "no-such-model"}, grpc.StatusCode.NOT_FOUND),
        (
            {"project": "elsewhere"},
            grpc.StatusCode.NOT_FOUND,
        ),  # an admin of every project: there is no such model there
        ({"model": ""}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"source": ""}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"source": "two words"}, grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
def test_a_stream_of_nothing_that_is_known_is_ended(observe: Any, first: dict[str, str], code: grpc.StatusCode) -> None:
    with pytest.raises(grpc.RpcError) as ended:
        observe(rows(1), **first)
    assert ended.value.code() == code


def test_another_projects_model_is_out_of_reach(stack: Stack, model: str, observe: Any) -> None:
    with pytest.raises(grpc.RpcError) as denied:
        observe(rows(1), secret=stack.token("beta", Role.USER))
    assert denied.value.code() == grpc.StatusCode.PERMISSION_DENIED
    with pytest.raises(grpc.RpcError) as absent:
        observe(rows(1), secret=stack.token("beta", Role.USER), project="")
    assert absent.value.code() == grpc.StatusCode.NOT_FOUND
    assert kept(stack, model) == []


def test_a_stream_stays_with_its_model(observe: Any) -> None:
    other = rows(2)
    other.model = "another"
    with pytest.raises(grpc.RpcError) as ended:
        observe(rows(1), other)
    assert ended.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_whoever_judges_is_woken(stack: Stack, observe: Any) -> None:
    woken: list[str] = []
    notify = stack.parts.wakeups.notify
    stack.parts.wakeups.notify = lambda topic: (woken.append(topic), notify(topic))  # type: ignore[method-assign]
    try:
        observe(rows(1))
    finally:
        stack.parts.wakeups.notify = notify  # type: ignore[method-assign]
    assert woken == ["observed"]


def test_the_client_sends_columns(stack: Stack, model: str, client: Client) -> None:
    frame = pandas.DataFrame({"age": range(5000), "city": ["Oslo", "Bergen"] * 2500})
    following = client.observe(model, dict(frame.items()), source="feed", seq=1, version=1)
    assert following == client.observe(model, {"(request)": ["a"], "(label)": [1]}, source="feed", seq=following) - 1
    found = kept(stack, model)
    assert [(each.kind, each.rows) for each in found] == [("rows", 2000), ("rows", 2000), ("rows", 1000), ("labels", 1)]
    with pytest.raises(Refused, match="holds 9e\\+12"):
        client.observe(model, {"age": [1], "(time)": [9e12]}, source="feed", seq=9)
    with pytest.raises(Refused, match="make no batch"):
        client.observe(model, {"age": [1, 2], "city": ["Oslo"]}, source="feed", seq=9)
    with pytest.raises(NotFound):
        client.observe("no-such-model", {"age": [1]}, source="feed", seq=9)


# ---- the observer ---------------------------------------------------------------------------------------------------


def test_what_is_recorded_arrives_with_its_time_and_its_request(stack: Stack, model: str, observer: Observer) -> None:
    before = time.time()
    first = observer.record({"age": 41, "city": "Oslo"}, prediction="stays", confidence=0.93)
    second = observer.record({"age": 12, "wage": 3.5}, request="mine", at=1000.0, label="leaves")
    assert observer.flush()

    (batch,) = kept(stack, model)
    assert (batch.kind, batch.rows, batch.version) == ("rows", 2, 1)
    read = read_batch(batch.data, batch.at)
    assert read.requests == [first, second] == [first, "mine"]
    np.testing.assert_array_equal(read.columns["age"], [41, 12])
    np.testing.assert_array_equal(read.columns["wage"], [np.nan, 3.5])
    assert before <= read.times[0] <= time.time()
    assert read.times[1] == 1000.0
    assert observer.counts.sent == observer.counts.recorded == 2


def test_many_rows_are_recorded_by_column_and_copied(stack: Stack, model: str, observer: Observer) -> None:
    ages = np.arange(3000.0)
    ids = observer.record_many({"age": ages, "city": ["Oslo"] * 3000}, predictions=[1] * 3000)
    ages[:] = -1
    assert observer.flush()

    found = kept(stack, model)
    assert [each.rows for each in found] == [2000, 1000]
    first = read_batch(found[0].data, 0.0)
    np.testing.assert_array_equal(first.columns["age"], np.arange(2000.0))
    assert first.requests == list(ids[:2000])
    assert len(set(ids)) == 3000


def test_a_label_comes_after_its_row_from_whatever_process(stack: Stack, model: str, observer: Observer) -> None:
    request = observer.record({"age": 41}, prediction="stays")
    observer.label(request, "leaves")
    assert observer.flush()
    with Observer(model, server=stack.address, token=stack.admin) as elsewhere:
        elsewhere.label(request, "stays")

    assert [each.kind for each in kept(stack, model)] == ["rows", "labels", "labels"]
    late = read_batch(kept(stack, model)[1].data, 0.0)
    assert late.requests == [request]
    assert [late.labels.words[code] for code in late.labels.codes] == ["leaves"]  # type: ignore[union-attr]


def test_of_a_version_that_stands_by_only_the_answers_are_sent(stack: Stack, model: str) -> None:
    with Observer(model, version=1, server=stack.address, token=stack.admin, shadow=True) as observer:
        observer.record({"age": 41}, request="mine", prediction="stays", confidence=0.5)
        observer.label("mine", "leaves")

    shadow, label = kept(stack, model)
    assert [(each.kind, each.rows, each.version) for each in (shadow, label)] == [("shadow", 1, 1), ("labels", 1, 1)]
    read = read_batch(shadow.data, shadow.at)
    assert (read.requests, set(read.columns)) == (["mine"], {"(prediction)", "(confidence)"})
    with pytest.raises(Refused, match="say whose version they are, and send no sketches"):
        Observer(model, server=stack.address, token=stack.admin, shadow=True)


def test_a_version_that_answers_better_in_shadow_is_made_champion(stack: Stack, client: Client) -> None:
    name, recall = f"model-{next(NUMBERS)}", {"rows": 30, "confidence": 0.95}
    spec = dump(
        load({"name": name, "recipe": "tabular", "train": {"epochs": 1}, "monitor": {"retrain": {"recall": recall}}})
    )
    for _ in range(2):
        stack.end(stack.place(stack.submit(name=name, spec=spec)))
    stack.parts.recalls.one_pass()
    connection: dict[str, Any] = {"server": stack.address, "token": stack.admin}
    with (
        Observer(name, version=1, **connection) as serving,
        Observer(name, version=2, shadow=True, **connection) as beside,
    ):
        for row in range(30):
            request = serving.record({"age": row}, prediction="stays")
            beside.record({"age": row}, prediction="leaves", request=request)
            serving.label(request, "leaves")
        assert serving.flush()
        assert beside.flush()
    stack.parts.recalls.one_pass()

    newest, *_ = client.alias_history(name)
    assert (newest.version, newest.before, newest.by) == (2, 1, "recall")
    assert "it alone had 30 right, the champion alone 0" in newest.reason


def test_sketches_are_sent_in_place_of_rows_and_labels_with_what_was_answered(stack: Stack, model: str) -> None:
    with Observer(model, server=stack.address, token=stack.admin, sketches=True) as observer:
        for age in range(5000):
            request = observer.record({"age": age, "city": "Oslo"}, prediction="stays", confidence=0.5, at=1000.0 + age)
        observer.label(request, "leaves")
        observer.record({"age": 7, "city": "Bergen"}, prediction="stays", label="stays")
        observer.label("nobody knows", "leaves")

    *labels, sketch = kept(stack, model)
    table = TableSummary.from_bytes(sketch.data)
    assert (sketch.kind, sketch.rows, table.rows) == ("sketch", 5001, 5001)
    assert set(table.columns) == {"age", "city", "(prediction)", "(confidence)"}
    assert table.columns["city"].values == {"Oslo": 5000, "Bergen": 1}  # type: ignore[union-attr]
    assert sum(len(each.data) for each in kept(stack, model)) < 40_000
    joined = {}
    for each in labels:
        assert each.kind == "labels"
        read = read_batch(each.data, 0.0)
        answers: Any = read.columns.get("(prediction)")
        for place, of in enumerate(read.requests or []):
            joined[of] = answers is not None and bool(answers.codes[place] >= 0)
    assert joined.pop("nobody knows") is False
    assert joined.pop(request) is True
    assert list(joined.values()) == [True]


def test_rows_wait_for_a_server_that_is_away_and_arrive_once(stack: Stack, model: str) -> None:
    """Behind a gate that first takes no connection, then breaks the first one in the middle."""
    with Gate(stack.address) as gate, Observer(model, server=gate.address, token=stack.admin, every_s=0.05) as observer:
        for age in range(100):
            observer.record({"age": age})
        assert not observer.flush(0.3)
        gate.open(break_after=600)
        assert observer.flush(60)
        for age in range(100, 200):
            observer.record({"age": age})
        assert observer.flush(60)

    ages = np.concatenate([read_batch(each.data, 0.0).columns["age"] for each in kept(stack, model)])
    assert sorted(ages) == list(range(200))
    assert observer.counts.dropped == 0


def test_beyond_its_buffer_rows_are_dropped_and_counted(model: str) -> None:
    observer = Observer(model, server="127.0.0.1:1", token="evt_x", buffer=50)
    began = time.perf_counter()
    for age in range(10_000):
        observer.record({"age": age})
    took = time.perf_counter() - began
    observer.record_many({"age": range(1000)})
    observer.label("a", 1)
    observer.close(0.1)
    observer.record({"age": 1})

    counts = observer.counts
    assert took < 5  # it never waited for the server
    assert counts.recorded == 11_002
    assert counts.dropped >= 10_000
    assert counts.sent == counts.refused == 0


@pytest.mark.parametrize("odd", [None, 7, [("age",)]])
def test_nothing_that_a_program_says_raises_into_it(observer: Observer, stack: Stack, model: str, odd: Any) -> None:
    observer.record(odd)
    observer.record_many(odd)
    observer.record({"age": object()})
    observer.record({"age": 1, "city": float("nan")}, prediction=np.int64(3), confidence=0.5)
    observer.label(object(), None)  # type: ignore[arg-type]
    assert observer.flush()
    assert observer.counts.waiting == 0
    assert observer.counts.dropped >= 2


def test_what_the_server_refuses_is_counted_and_said(observer: Observer, caplog: pytest.LogCaptureFixture) -> None:
    observer.record({"age": 1}, confidence=7.0)
    assert observer.flush()
    assert observer.counts.refused == 1
    assert "must lie between 0 and 1" in caplog.text


def test_processes_that_are_forked_observe_for_themselves(stack: Stack, model: str) -> None:
    """As servers with workers do: the observer is made before the fork and used after it, and the end sends what waits."""
    code = """
import os, sys
from orchestrator import Observer
observer = Observer(sys.argv[1], server=sys.argv[2], token=sys.argv[3], every_s=60)
child = os.fork()
observer.record({"age": 0})
assert observer.flush(100)
for age in range(9):
    observer.record({"age": age})
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    subprocess.run([sys.executable, "-c", code, model, stack.address, stack.admin], check=True, timeout=120)

    rows = Counter[str]()
    for each in kept(stack, model):
        rows[each.source] += each.rows
    assert list(rows.values()) == [10, 10]


def test_it_takes_its_server_from_the_environment(
    stack: Stack, model: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv("EVERTRAIN_SERVER", stack.address)
    monkeypatch.setenv("EVERTRAIN_TOKEN", stack.admin)
    with Observer(model) as observer:
        observer.record({"age": 1})
    assert observer.counts.sent == 1
    monkeypatch.delenv("EVERTRAIN_SERVER")
    monkeypatch.setenv("EVERTRAIN_CONTEXT", str(tmp_path / "none"))
    with pytest.raises(Refused, match="no server to talk to"):
        Observer(model)


def test_a_token_that_may_not_is_said_and_rows_wait(stack: Stack, model: str, caplog: pytest.LogCaptureFixture) -> None:
    viewer = stack.token("default", Role.VIEWER)
    observer = Observer(model, server=stack.address, token=viewer, every_s=0.01)
    observer.record({"age": 1})
    assert not observer.flush(0.5)
    observer.close(0.1)
    assert observer.counts.waiting == 1
    assert "needs the role user" in caplog.text
    with stack.client(viewer) as client, pytest.raises(Denied):
        client.observe(model, {"age": [1]}, source="feed", seq=1)


class Gate:
    """Passes connections on to a server, once it is open; the first one it breaks after some bytes."""

    def __init__(self, server: str) -> None:
        host, port = server.rsplit(":", 1)
        self._server = (host, int(port))
        self._listening = socket.socket()
        self._listening.bind(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listening.getsockname()[1]}"
        self._break_after: list[int] = []

    def __enter__(self) -> Gate:
        return self

    def __exit__(self, *error: object) -> None:
        self._listening.close()

    def open(self, break_after: int) -> None:
        self._break_after.append(break_after)
        self._listening.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            server = socket.create_connection(self._server)
            limit = self._break_after.pop() if self._break_after else 2**40
            threading.Thread(target=_pass, args=(client, server, 2**40), daemon=True).start()
            threading.Thread(target=_pass, args=(server, client, limit), daemon=True).start()


def _pass(source: socket.socket, sink: socket.socket, limit: int) -> None:
    passed = 0
    try:
        while (data := source.recv(200)) and passed < limit:
            sink.sendall(data)
            passed += len(data)
    except OSError:
        pass
    for each in (source, sink):
        each.close()
