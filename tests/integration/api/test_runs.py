"""Submitting, listing, watching, cancelling: over real gRPC and SQLite."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import grpc
import pytest

from orchestrator import Client, bundle
from orchestrator.api.client import RunFile
from orchestrator.api.run_feed import EVENTS_AT_ONCE
from orchestrator.api.views import RunUpdate
from orchestrator.core.observations import CheckpointSealed, EpochEnded, FirstStep, IncarnationStarted, Progress
from orchestrator.core.records import LogLine
from orchestrator.errors import Conflict, InvalidSpec, NotFound, Refused, TooLarge
from orchestrator.protocol.v1.generated import evertrain_pb2 as pb
from orchestrator.protocol.v1.generated import evertrain_pb2_grpc as rpc
from tests.integration.api.stack import SPEC, Stack
from tests.integration.api.wire import METHODS, call

NAMED = '{{"name": "{}", "recipe": "digits_cnn", "train": {{"epochs": 1}}}}'


def test_a_submitted_run_is_there_with_every_default(client: Client) -> None:
    run = client.submit(SPEC)
    kept = client.get(run.id)
    assert (kept.state, kept.name, kept.project, kept.submitted_by) == ("QUEUED", "digits", "default", "first-admin")
    assert kept.spec["train"]["epochs"] == 1
    assert kept.spec["priority"] == 50
    assert kept.reason.message
    assert client.get("digits").id == run.id


def test_one_key_is_one_run(client: Client) -> None:
    first = client.submit(SPEC, idempotency_key="twice")
    assert client.submit(SPEC, idempotency_key="twice").id == first.id
    assert client.submit(SPEC, idempotency_key="twice", project="other").id != first.id


def test_a_key_with_another_document_is_a_conflict(client: Client) -> None:
    client.submit(SPEC, idempotency_key="spent")
    with pytest.raises(Conflict):
        client.submit(NAMED.format("else"), idempotency_key="spent")


def test_a_batch_is_recorded_whole_or_not_at_all(client: Client) -> None:
    before = len(list(client.list(project="batches")))
    with pytest.raises(InvalidSpec, match="recipe"):
        client.submit_batch([SPEC, SPEC.replace("digits_cnn", "digits_cmm")], project="batches")
    assert len(list(client.list(project="batches"))) == before
    answers = client.submit_batch([NAMED.format(f"b-{n}") for n in range(20)], project="batches")
    assert [each.run.name for each in answers] == [f"b-{n}" for n in range(20)]
    assert all(each.created for each in answers)


@pytest.mark.parametrize("count", [0, 1001])
def test_a_batch_of_none_or_of_too_many_is_refused(client: Client, count: int) -> None:
    with pytest.raises((InvalidSpec, TooLarge), match="batch"):
        client._calls.unary(  # the client checks nothing itself, and packing 1,001 files would only cost time
            client._runs.SubmitBatch, pb.SubmitBatchRequest(submissions=[pb.SubmitRequest(spec=SPEC)] * count)
        )


def test_a_wrong_run_file_names_each_place(stack: Stack) -> None:
    submit = next(method for method in METHODS if method.name == "Runs/Submit")
    spec = '{"name": "x", "recipe": "digits_cmm", "train": {"epochs": 1, "lr": -1}, "gpus": 2}'
    with stack.client() as client, pytest.raises(InvalidSpec) as refused:
        client._calls.unary(client._runs.Submit, pb.SubmitRequest(spec=spec))
    assert {each.path for each in refused.value.problems} == {"recipe", "train.lr", "gpus"}
    with pytest.raises(grpc.RpcError) as raw:
        call(stack.channel, submit, pb.SubmitRequest(spec=spec), stack.admin)
    assert raw.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_a_refusal_that_quotes_half_a_character_arrives(client: Client) -> None:
    text = r'{"name": "x", "recipe": "digits_cnn", "train": {"epochs": 1}, "env": {"A\ud800": "\ud800"}}'
    with pytest.raises(InvalidSpec) as refused:
        client._calls.unary(client._runs.Submit, pb.SubmitRequest(spec=text))
    assert {each.path for each in refused.value.problems} == {r"env.A\ud800"}


def test_a_run_file_that_is_too_large_is_refused(client: Client) -> None:
    with pytest.raises(TooLarge, match="bytes"):
        client._calls.unary(client._runs.Submit, pb.SubmitRequest(spec=" " * 300_000))


def test_a_message_over_the_limit_is_refused(client: Client) -> None:
    with pytest.raises(TooLarge):
        client._calls.unary(client._runs.Submit, pb.SubmitRequest(spec=" " * 9 * 2**20))


def test_a_plan_records_nothing(client: Client) -> None:
    plan = client.plan(SPEC, project="plans")
    assert plan.spec["resources"]["workers"] == 1
    assert list(client.list(project="plans")) == []


def test_pages_show_every_run_once_newest_first(client: Client) -> None:
    names = [f"p-{n}" for n in range(7)]
    client.submit_batch([NAMED.format(name) for name in names], project="pages")
    assert [run.name for run in client.list(project="pages", page_size=3)] == names[::-1]


def test_filters_hold_together(stack: Stack, client: Client) -> None:
    client.submit_batch([NAMED.format(name) for name in ("fa-1", "fa-2", "fb-1")], project="filters")
    client.cancel("fa-1", project="filters")
    shown = client.list(project="filters", states=["queued"], name_prefix="fa-")
    assert [run.name for run in shown] == ["fa-2"]


@pytest.mark.parametrize(
    ("request_", "place"),
    [
        (pb.ListRunsRequest(page_size=1001), "page_size"),
        (pb.ListRunsRequest(page_size=-1), "page_size"),
        (pb.ListRunsRequest(states=["ASLEEP"]), "states"),
        (pb.ListRunsRequest(page="not a page"), "page"),
    ],
)
def test_a_listing_that_makes_no_sense_is_refused(client: Client, request_: pb.ListRunsRequest, place: str) -> None:
    with pytest.raises(InvalidSpec) as refused:
        client._calls.unary(client._runs.List, request_)
    assert refused.value.problems[0].path == place


def test_a_listed_run_that_trains_shows_its_progress(stack: Stack, client: Client) -> None:
    run = stack.place(stack.submit("listed"))
    stack.parts.fleet.take_progress(Progress(run.id, 1, 1, "training", 0.0, step=7))
    shown = next(client.list(project="listed"))
    assert shown.progress is not None
    assert (shown.progress.step, shown.state) == (7, "STARTING")


@pytest.mark.parametrize("name", ["", "run-nosuch", "x" * 3000])
def test_a_run_that_is_not_there(client: Client, name: str) -> None:
    with pytest.raises((NotFound, InvalidSpec)):
        client.get(name)


def test_a_run_tells_its_cost_where_the_server_knows_prices(stack: Stack, client: Client, tmp_path: Path) -> None:
    with Stack(tmp_path, price_cpu_hour=3600.0, price_currency="EUR") as priced, priced.client() as asks:
        run = priced.place(priced.submit())
        priced.clock.ahead_s += 100
        told = asks.get(run.id)
        assert told.cost is not None
        assert told.cost.currency == "EUR"
        assert told.cost.amount == pytest.approx((told.ledger.total_ns - told.ledger.ns.get("queued", 0)) / 1e9)
        assert told.cost.amount >= 100
    assert client.get(stack.submit().id).cost is None


def test_a_name_of_two_projects_hits_neither_until_one_is_said(stack: Stack, client: Client) -> None:
    mine, theirs = (stack.submit(project, name="shared-name") for project in ("one-team", "other-team"))
    with pytest.raises(Refused, match=r"one-team, other-team.*--project"):
        client.cancel("shared-name")
    assert [client.get(run.id).state for run in (mine, theirs)] == ["QUEUED", "QUEUED"]
    assert client.cancel("shared-name", project="one-team").id == mine.id
    assert client.get(theirs.id).state == "QUEUED"


def test_a_paused_run_waits_with_its_reason_until_it_is_resumed(client: Client) -> None:
    run = client.submit(SPEC)
    paused = client.pause(run.id, reason="look at the data")
    assert (paused.state, paused.reason.code) == ("QUEUED", "paused")
    assert paused.reason.message.endswith(": look at the data")
    assert client.pause(run.id).reason == paused.reason
    resumed = client.resume(run.id)
    assert (resumed.state, resumed.reason.code) == ("QUEUED", "waiting_behind")
    assert client.resume(run.id).version == resumed.version
    assert [each.kind for each in client.events(run.id)][-2:] == ["paused", "resumed"]


def test_cancelling_twice_is_once(client: Client) -> None:
    run = client.submit(SPEC)
    assert client.cancel(run.id, reason="enough").state == "CANCELLED"
    again = client.cancel(run.id, reason="really")
    assert (again.state, "enough" in again.reason.message) == ("CANCELLED", True)
    assert [event.kind for event in client.events(run.id)] == ["submitted", "ended"]


def test_the_ledger_of_an_ended_run_holds_all_its_time(stack: Stack, client: Client) -> None:
    run = client.submit(SPEC)
    ended = client.cancel(run.id)
    assert ended.ended_at is not None
    assert ended.ledger.total_ns == pytest.approx((ended.ended_at - ended.submitted_at) * 1e9, abs=2)


class Watching:
    """A watcher in a thread of its own."""

    def __init__(self, client: Client, run: str, after_event: int = 0) -> None:
        self.updates: list[RunUpdate] = []
        self._updates = client.watch(run, after_event=after_event)
        self._thread = threading.Thread(target=self._collect, daemon=True)
        self._thread.start()

    def _collect(self) -> None:
        for update in self._updates:
            self.updates.append(update)

    def until(self, seen: str) -> RunUpdate:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            for update in list(self.updates):
                if update.run is not None and seen in (update.run.state, update.run.liveness):
                    return update
            time.sleep(0.01)
        raise AssertionError(f"no {seen} among {[each.run and each.run.state for each in self.updates]}")

    def end(self) -> list[RunUpdate]:
        self._thread.join(20)
        assert not self._thread.is_alive()
        return self.updates


def test_a_watch_shows_the_present_then_every_change_and_ends_with_the_run(stack: Stack, client: Client) -> None:
    run = client.submit(SPEC)
    watching = Watching(client, run.id)
    watching.until("QUEUED")
    placed = stack.place(stack.store.run("*", run.id))
    watching.until("STARTING")
    stack.observe(placed, IncarnationStarted(1, 1))
    stack.observe(placed, FirstStep(1, 1))
    watching.until("RUNNING")
    stack.end(placed)
    updates = watching.end()
    assert updates[-1].ended
    events = [event for update in updates for event in update.events]
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert events == list(client.events(run.id))


def test_a_watch_of_a_run_that_has_ended_ends_at_once(client: Client) -> None:
    run = client.submit(SPEC)
    client.cancel(run.id)
    updates = list(client.watch(run.id, after_event=1))
    assert [update.run.state for update in updates if update.run] == ["CANCELLED"]
    assert [event.seq for update in updates for event in update.events] == [2]
    assert client.wait(run.id).state == "CANCELLED"


def test_a_watch_shows_progress(stack: Stack, client: Client) -> None:
    run = stack.place(stack.submit())
    updates = client.watch(run.id)
    next(updates)
    stack.parts.fleet.take_progress(Progress(run.id, 1, 1, "training", 0.0, step=3, loss=0.5))
    shown = next(update.progress for update in updates if update.progress is not None)
    assert (shown.step, shown.loss) == (3, 0.5)
    stack.end(run)


def test_progress_of_an_earlier_attempt_is_not_shown(stack: Stack, client: Client) -> None:
    run = stack.place(stack.submit())
    stack.parts.fleet.take_progress(Progress(run.id, 9, 1, "training", 0.0, step=3))
    assert client.get(run.id).progress is None


def test_many_watchers_hold_no_threads_and_all_see_the_end(stack: Stack, client: Client) -> None:
    run = client.submit(SPEC)
    stub = client._runs
    metadata = (("authorization", f"Bearer {stack.admin}"),)
    calls = [stub.Watch(pb.WatchRunRequest(run=run.id), metadata=metadata, timeout=60) for _ in range(200)]
    for each in calls:
        next(each)
    # The client's own threads live in this process too: the server's are known by their names.
    server_threads = [each.name for each in threading.enumerate() if each.name.startswith(("api", "asyncio"))]
    assert len(server_threads) <= stack.settings.api_threads + 8
    client.cancel(run.id)
    assert {next(each).run.state for each in calls} == {"CANCELLED"}


def test_a_history_longer_than_a_page_is_told_whole(stack: Stack, client: Client) -> None:
    run = stack.place(stack.submit())
    for number in range(1, 520):
        stack.observe(run, EpochEnded(1, number, number))
    stack.end(run)
    watched = [event.seq for update in client.watch(run.id) for event in update.events]
    assert watched == list(range(1, len(watched) + 1))
    assert len(watched) == len(list(client.events(run.id))) > EVENTS_AT_ONCE


def test_a_history_of_any_size_fits_into_the_answers_that_every_grpc_client_takes(stack: Stack, client: Client) -> None:
    run = stack.place(stack.submit())
    metrics = {f"metric-{number}": 0.5 for number in range(5000)}  # 0.2 MB, as an event
    for step in range(1, 31):
        stack.observe(run, EpochEnded(1, step, step, metrics))
        stack.observe(run, CheckpointSealed(1, f"/seal-{step}", step, 1, 0.1, 0.2, metrics))
    stack.end(run)
    metadata = (("authorization", f"Bearer {stack.admin}"),)
    stubs: Any = rpc
    runs = stubs.RunsStub(stack.channel)  # with the limits that gRPC has by itself: a larger answer is refused

    answers = list(runs.Watch(pb.WatchRunRequest(run=run.id), metadata=metadata, timeout=60))
    watched = [event.seq for answer in answers for event in answer.events]
    events = list(client.events(run.id))
    sealed = client.checkpoints(run.id)
    first = runs.Events(pb.EventsRequest(run=run.id), metadata=metadata)
    newest = runs.Checkpoints(pb.CheckpointsRequest(run=run.id), metadata=metadata)

    assert watched == [event.seq for event in events] == list(range(1, len(events) + 1))
    assert [event.kind for event in events].count("epoch") == 30
    assert sum(answer.ByteSize() for answer in answers) > 4 * 2**20
    assert 0 < first.next_after == len(first.events) < len(events)
    assert [each.step for each in sealed] == list(range(30, 0, -1))
    assert 0 < len(newest.checkpoints) < 30


def test_checkpoints_come_in_pages_of_the_size_asked_for(stack: Stack, client: Client) -> None:
    run = stack.place(stack.submit())
    for step in (1, 2, 3):
        stack.observe(run, CheckpointSealed(1, f"/seal-{step}", step, 1, 0.1, 0.2))

    def page(size: int, page: str = "") -> pb.CheckpointsResponse:
        answer: pb.CheckpointsResponse = client._calls.unary(
            client._runs.Checkpoints, pb.CheckpointsRequest(run=run.id, page_size=size, page=page)
        )
        return answer

    first = page(2)
    second = page(2, first.next_page)
    assert [[each.step for each in answer.checkpoints] for answer in (first, second)] == [[3, 2], [1]]
    assert second.next_page == ""
    for nonsense in ("3", "a.b.c", "1.2.3.4"):
        with pytest.raises(InvalidSpec, match="next_page"):
            page(2, nonsense)


def test_a_dictionary_a_path_and_a_text_are_the_same_run_file(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("name: forms\nrecipe: digits_cnn\ntrain: {epochs: 1}\n")
    document = {"name": "forms", "recipe": "digits_cnn", "train": {"epochs": 1}}
    forms: list[RunFile] = [str(path), path, path.read_text(), document]
    specs = [client.get(client.submit(form).id).spec for form in forms]
    assert all(each == specs[0] for each in specs)
    changed = client.submit(path, overrides={"train.epochs": 3})
    assert client.get(changed.id).spec["train"]["epochs"] == 3


def test_a_server_whose_clock_is_moved_backwards_loses_nothing_and_ends_what_is_followed(
    stack: Stack, client: Client
) -> None:
    run = stack.place(stack.submit())
    stack.parts.logs.append([LogLine(run.id, 1, 1, 0, stack.clock.now(), "hello", "host", 1)])
    stack.clock.wall_ahead_s = -3600.0
    try:
        stack.end(run)
        assert client.wait(run.id).state == "SUCCEEDED"
        assert [line.text for line in client.logs(run.id, follow=True)] == ["hello"]
        ended = client.get(run.id)
        assert all(ns >= 0 for ns in ended.ledger.ns.values())
        assert next(each.id for each in client.list(states=["SUCCEEDED"])) == run.id
        again = stack.submit()
        assert next(each.id for each in client.list()) == again.id
    finally:
        stack.clock.wall_ahead_s = 0.0


def test_a_code_directory_is_shipped_with_the_run(stack: Stack, client: Client, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "task.py").write_text("def make_task(): ...\n")
    path = tmp_path / "job.yaml"
    path.write_text(
        "name: coded\nentrypoint: task:make_task\ncode: src\ntrain: {epochs: 1}\ndata: {source: /tmp/x.npz}\n"
    )
    run = client.get(client.submit(path).id)
    sha256 = run.spec["code"].removeprefix("bundle:")
    with stack.client(stack.agent) as agent:
        stub = agent._clusters
        chunks = list(agent._calls.stream(stub.GetBundle, pb.Bundle(sha256=sha256)))
    assert b"".join(chunk.data for chunk in chunks) == stack.parts.bundles.get("default", sha256)


def test_a_batch_of_runs_of_one_directory_packs_and_sends_it_once(
    stack: Stack, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed: list[Path] = []
    sent: list[bytes] = []
    pack, put = bundle.pack, stack.parts.bundles.put
    monkeypatch.setattr(bundle, "pack", lambda directory: packed.append(directory) or pack(directory))
    monkeypatch.setattr(stack.parts.bundles, "put", lambda project, data: sent.append(data) or put(project, data))
    (tmp_path / "train.py").write_text("print(1)\n")
    paths = [tmp_path / f"trial-{number}.yaml" for number in range(5)]
    for number, path in enumerate(paths):
        path.write_text(f"name: trial-{number}\nscript: train.py\ncode: .\nargs: [--lr, '{number}']\n")
    answers = client.submit_batch(paths)
    assert (packed, len(sent)) == ([tmp_path], 1)
    assert len({client.get(each.run.id).spec["code"] for each in answers}) == 1


def test_a_bundle_over_the_limit_is_refused_before_it_has_all_arrived(tmp_path: Path) -> None:
    with Stack(tmp_path, bundle_bytes=100_000) as small, small.client() as client:
        sent = 0

        def chunks() -> object:
            nonlocal sent
            for _ in range(10_000):
                sent += 1
                yield pb.BundleChunk(data=b"x" * 65536)

        with pytest.raises(TooLarge, match="evertrainignore"):
            client._calls.upload(client._runs.UploadBundle, chunks)  # type: ignore[arg-type]
        assert sent < 10_000
