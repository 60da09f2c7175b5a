"""Monitors over the wire."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from orchestrator import Client, Observer
from orchestrator.core.records import Role
from orchestrator.drift.reference import CONFIDENCE, PREDICTION
from orchestrator.errors import Denied, InvalidSpec, NotFound
from orchestrator.protocol.v1.generated import evertrain_pb2 as pb
from tests.integration.api.stack import Stack
from tests.integration.api.watching import put_on_watch
from tests.unit.drift.streams import columns
from trainers.config import Data, section
from trainers.data.prepare import prepare


@pytest.fixture(scope="module", autouse=True)
def watched(stack: Stack) -> None:
    put_on_watch(stack, "wine", shift=1.0, project="cellar")


def test_a_run_with_a_monitor_brings_one_with_the_model_that_it_registers(client: Client) -> None:
    (found,) = client.monitors(project="cellar")
    assert (found.model, found.reference, found.status) == ("wine", 1, "drift")
    assert found.settings["window"]["rows"] == 500
    assert client.model("wine", "champion", project="cellar").version == 1
    assert client.monitors(project="elsewhere") == []


def test_a_monitor_comes_with_what_it_saw_and_pictures_of_it(client: Client) -> None:
    found = client.monitor("wine", project="cellar")
    assert found.figures.rows == 1500
    assert found.newest is not None
    assert found.newest.evidence["findings"][0]["feature"] == "height"
    assert found.settings["detect"] == {"concept": "page_hinkley", "multivariate": "classifier", "embeddings": []}
    (jointly,) = found.newest.evidence["together"]
    assert (jointly["of"], jointly["test"]) == ("all features together", "c2st")
    assert jointly["p"] < 1e-6
    assert found.pictures[0].feature == "height"
    assert len(found.pictures[0].bins) == len(found.pictures[0].current)
    with pytest.raises(NotFound, match="nobody"):
        client.monitor("nobody", project="cellar")


def test_judgements_are_read_newest_first_page_by_page(client: Client) -> None:
    found = list(client.judgements("wine", project="cellar"))
    assert [each.status for each in found] == ["drift", "drift", "suspected"]
    request = pb.JudgementsRequest(model="wine", project="cellar", limit=2)
    call = client._calls.unary
    first = call(client._monitors.Judgements, request).judgements
    request.below = first[-1].number
    rest = call(client._monitors.Judgements, request).judgements
    assert [each.number for each in itertools.chain(first, rest)] == [3, 2, 1]
    request.limit = 1001
    with pytest.raises(InvalidSpec, match="limit"):
        call(client._monitors.Judgements, request)


def test_whoever_may_only_look_may_not_pause(stack: Stack, client: Client) -> None:
    with stack.client(stack.token("cellar", Role.VIEWER)) as viewer:
        assert viewer.monitor("wine").status == "drift"
        with pytest.raises(Denied, match="user"):
            viewer.pause_monitor("wine")
    assert client.pause_monitor("wine", reason="holidays", project="cellar").words == "paused by first-admin: holidays"
    assert client.resume_monitor("wine", project="cellar").status == "drift"


@pytest.mark.parametrize("sketches", [False, True])
def test_what_an_observer_records_is_judged_with_the_labels_that_it_learns_later(
    stack: Stack, client: Client, sketches: bool
) -> None:
    model = "sketched" if sketches else "recorded"
    put_on_watch(stack, model, windows=0)
    made = columns(600, 7)
    labels, answers, confidences = (made.pop(name) for name in ("(label)", PREDICTION, CONFIDENCE))
    with Observer(model, version=1, server=stack.address, token=stack.admin, sketches=sketches) as observer:
        rows = [dict(zip(made, values, strict=True)) for values in zip(*made.values(), strict=True)]
        requests = [
            observer.record(row, prediction=answer, confidence=sure)
            for row, answer, sure in zip(rows, answers, confidences, strict=True)
        ]
        for request, label in zip(requests, labels, strict=True):
            observer.label(request, label)
        observer.label("nobody", "cat")
    assert observer.counts.dropped == 0
    while stack.parts.monitors.one_pass():
        pass

    found = client.monitor(model)

    assert (found.status, found.figures.rows) == ("stable", 600)
    assert (found.figures.labels, found.figures.unknown_labels) == (600, 1)


def test_of_images_an_observer_sends_what_they_look_like(stack: Stack, client: Client, tmp_path: Path) -> None:
    put_on_watch(stack, "scans", windows=0)
    profile = prepare(section(Data, {"source": "sklearn://digits"}, "data"), tmp_path).profile
    stack.store.put_fact("default", "scans", 1, "profile", profile)
    client.pause_monitor("scans")
    client.resume_monitor("scans")  # which reads the version's facts anew
    images = load_digits().images / 16
    flawed = np.maximum(images, 0.5)
    with Observer("scans", version=1, server=stack.address, token=stack.admin) as observer:
        for image in flawed[:500]:
            observer.record({"image": image}, prediction="3", confidence=0.9)
            image[:] = 0.0  # what the program does with it later is its own business
        observer.record_many({"image": flawed[500:1000]}, predictions=["3"] * 500)
    assert (observer.counts.sent, observer.counts.dropped) == (1000, 0)
    kept = stack.parts.observations.read("default", "scans", after=0)
    assert sum(len(each.data) for each in kept) < 200 * 1000
    while stack.parts.monitors.one_pass():
        pass
    found = client.monitor("scans")
    assert found.status == "drift"
    assert "contrast: median 0.37" in found.words
    assert {each.feature for each in found.pictures} == set(profile["looks"])
