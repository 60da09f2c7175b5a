"""Monitors over the wire."""

from __future__ import annotations

import itertools

import pytest

from orchestrator import Client
from orchestrator.core.records import Role
from orchestrator.errors import Denied, InvalidSpec, NotFound
from orchestrator.protocol.v1.generated import evertrain_pb2 as pb
from tests.integration.api.stack import Stack
from tests.integration.api.watching import put_on_watch


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
