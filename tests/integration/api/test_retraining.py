"""Decisions on retraining over the wire and on the command line: asked for, approved, rejected, and kept apart by project."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator import Client
from orchestrator.core.records import Role
from orchestrator.core.retraining import Cause, Trigger
from orchestrator.errors import Denied, InvalidSpec, NotFound, Refused
from orchestrator.spec import dump, load
from tests.integration.api.stack import Stack

RUN: dict[str, Any] = {
    "name": "flights",
    "entrypoint": "flights.training:task",
    "train": {"epochs": 1},
    "monitor": {"retrain": {"mode": "approve", "minimum_rows": 0}},
}


@pytest.fixture
def project(stack: Stack, request: pytest.FixtureRequest) -> str:
    """A project of the test's own, with a watched model `flights`."""
    name = f"p{abs(hash(request.node.name)) % 10**9}"
    stack.end(stack.place(stack.submit(name, name="flights", spec=dump(load(RUN)))))
    return name


def drift(stack: Stack, project: str, key: str = "drift/v1/900") -> None:
    trigger = Trigger(Cause.DRIFT, key, stack.clock.now(), "drift (major): distance", 3)
    stack.parts.retraining.triggered(stack.store.monitor(project, "flights"), trigger)


def test_what_was_decided_is_seen_newest_first_with_its_reason(stack: Stack, client: Client, project: str) -> None:
    drift(stack, project)
    drift(stack, project, "drift/v1/950")
    second, first = client.decisions("flights", project=project)
    assert (first.standing, first.action, first.cause, first.severity) == ("asked", "ask", "drift", 3)
    assert first.words == "waits for approval: drift (major): distance"
    assert (second.standing, second.because) == ("closed", "in_progress")


def test_a_person_approves_or_rejects_and_is_named(stack: Stack, client: Client, project: str) -> None:
    drift(stack, project)
    approved = client.approve("flights", 1, project=project)
    assert (approved.standing, approved.by, approved.champion) == ("accepted", "first-admin", 1)
    with pytest.raises(Refused, match="only what waits"):
        client.reject("flights", 1, project=project)
    with pytest.raises(NotFound, match="no decision 9"):
        client.approve("flights", 9, project=project)


def test_a_person_asks_once_however_often_the_call_is_repeated(client: Client, project: str) -> None:
    first = client.retrain("flights", reason="new sensors", idempotency_key="k", project=project)
    assert (first.standing, first.number) == ("accepted", 1)
    assert client.retrain("flights", reason="new sensors", idempotency_key="k", project=project) == first
    refused = client.retrain("flights", project=project)
    assert (refused.standing, refused.because) == ("closed", "in_progress")
    with pytest.raises(NotFound, match="nobody"):
        client.retrain("nobody", project=project)
    with pytest.raises(InvalidSpec, match="model"):
        client.retrain("", project=project)


def test_another_projects_decisions_are_neither_seen_nor_answered(stack: Stack, project: str) -> None:
    drift(stack, project)
    with stack.client(stack.token("other", Role.ADMIN)) as stranger:
        with pytest.raises(NotFound):
            list(stranger.decisions("flights"))
        with pytest.raises(Denied):
            stranger.approve("flights", 1, project=project)
    with stack.client(stack.token(project, Role.VIEWER)) as viewer:
        assert len(list(viewer.decisions("flights"))) == 1
        with pytest.raises(Denied):
            viewer.approve("flights", 1)


def test_many_decisions_come_page_by_page(stack: Stack, client: Client, project: str) -> None:
    for number in range(120):
        drift(stack, project, f"drift/v1/{number}")
    found = [each.number for each in client.decisions("flights", project=project)]
    assert found == list(range(120, 0, -1))


def test_a_retraining_without_labelled_rows_fails_in_words(stack: Stack, client: Client, project: str) -> None:
    drift(stack, project)
    client.approve("flights", 1, project=project)
    stack.parts.retraining.one_pass()
    (decision,) = client.decisions("flights", project=project)
    assert (decision.standing, decision.data) == ("failed", {})
    assert "none of 0 observed rows" in decision.told[-1]
