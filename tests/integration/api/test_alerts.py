"""POST /alerts: by hand, and by Debian's Alertmanager."""

from __future__ import annotations

import datetime
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from orchestrator.api import alert_intake
from orchestrator.core.alerts import Outcome
from orchestrator.core.observations import FirstStep, IncarnationStarted
from orchestrator.core.records import Role
from orchestrator.core.runs import Run
from orchestrator.errors import Refused, Unavailable
from tests.integration.api.http_side import Http
from tests.integration.api.stack import Stack
from tests.integration.watchers import alertmanager, fetch

BEGAN = "2026-01-02T03:04:05.678Z"


class Heard:
    """What is called for every alert that fires."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, Mapping[str, str], float]] = []

    def __call__(self, name: str, fingerprint: str, labels: Mapping[str, str], starts_at: float) -> None:
        self.calls.append((name, fingerprint, labels, starts_at))


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def http(stack: Stack, heard: Heard) -> Iterator[Http]:
    with Http(stack, heard) as started:
        yield started


@pytest.fixture
def secret(stack: Stack) -> str:
    return stack.token("*", Role.USER)


def told(fingerprint: str, status: str = "firing", starts_at: str = BEGAN, **labels: str) -> dict[str, Any]:
    return {
        "status": status,
        "labels": {"alertname": "ModelErrorHigh", **labels},
        "annotations": {"summary": "too many errors"},
        "startsAt": starts_at,
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "http://prometheus/graph",
        "fingerprint": fingerprint,
    }


def group(*alerts: dict[str, Any]) -> dict[str, Any]:
    return {"version": "4", "groupKey": "{}", "receiver": "evertrain", "status": "firing", "alerts": list(alerts)}


def outcomes(answer: tuple[int, str]) -> dict[str, str]:
    """By fingerprint."""
    assert answer[0] == 200, answer
    return {each["fingerprint"]: each["outcome"] for each in json.loads(answer[1])["alerts"]}


def training(stack: Stack, project: str = "default") -> Run:
    run = stack.place(stack.submit(project))
    stack.observe(run, IncarnationStarted(1, 2))
    return stack.observe(run, FirstStep(1, 1))


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.05)


def test_only_a_token_that_may_change_runs_is_let_in(http: Http, stack: Stack, heard: Heard) -> None:
    alert = group(told("a0"))
    assert http.post("/alerts", alert)[0] == 401
    assert http.post("/alerts", alert, "evt_wrong")[0] == 401
    assert http.post("/alerts", alert, stack.token("*", Role.VIEWER))[0] == 403
    assert http.post("/alerts", alert, stack.agent)[0] == 403
    assert http.get("/alerts")[0] == 405
    assert heard.calls == []


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b'{"version": "4"', group(told("nothex")), {**group(), "version": "5"}, group({"status": "firing"})],
)
def test_what_is_no_webhook_of_alertmanager_is_refused_in_words_and_counted(
    http: Http, secret: str, heard: Heard, body: Any
) -> None:
    status, words = http.post("/alerts", body, secret)
    assert (status, heard.calls) == (400, [])
    assert words.startswith("not what Alertmanager's webhook sends: ")
    assert http.alerts.counts()[Outcome.REFUSED] == 1


def test_a_request_without_end_is_cut_off(http: Http, secret: str) -> None:
    status, words = http.post("/alerts", b" " * (alert_intake.LARGEST_BYTES + 1), secret)
    assert status == 413
    assert "lower max_alerts" in words


def test_an_alert_that_fires_is_handed_on_once_and_again_when_it_fires_anew(
    http: Http, secret: str, heard: Heard
) -> None:
    assert outcomes(http.post("/alerts", group(told("a1", model="digits")), secret)) == {"a1": "noted"}
    assert outcomes(http.post("/alerts", group(told("a1", model="digits")), secret)) == {"a1": "repeated"}
    assert outcomes(http.post("/alerts", group(told("a1", "resolved", model="digits")), secret)) == {"a1": "resolved"}
    later = "2026-01-02T05:00:00Z"
    assert outcomes(http.post("/alerts", group(told("a1", starts_at=later)), secret)) == {"a1": "noted"}
    began = datetime.datetime.fromisoformat(BEGAN).timestamp()
    assert heard.calls[0] == ("ModelErrorHigh", "a1", {"alertname": "ModelErrorHigh", "model": "digits"}, began)
    assert len(heard.calls) == 2
    counts = http.alerts.counts()
    assert (counts[Outcome.NOTED], counts[Outcome.REPEATED], counts[Outcome.RESOLVED]) == (2, 1, 1)
    shown = http.get("/metrics")[1]
    assert 'evertrain_alerts_total{outcome="noted"} 2.0' in shown
    assert "evertrain_alerts_heard_timestamp_seconds" in shown


def test_an_alert_whose_rule_says_so_pauses_its_run_once(http: Http, stack: Stack, secret: str) -> None:
    run = training(stack)
    alert = group(told("a2", run=run.id, evertrain_action="pause"))
    assert outcomes(http.post("/alerts", alert, secret)) == {"a2": "paused"}
    paused = stack.store.run("*", run.id)
    assert paused.stop is not None
    assert (paused.stop.kind, paused.paused) == (
        "preempt",
        "paused by user-of-all: alert ModelErrorHigh: too many errors",
    )
    stack.parts.commands.resume("*", run.id, by="ada")
    assert outcomes(http.post("/alerts", alert, secret)) == {"a2": "repeated"}
    assert stack.store.run("*", run.id).paused == "", "somebody has resumed it, and the alert still fires"


def test_what_was_acted_on_is_known_after_a_restart(stack: Stack, secret: str) -> None:
    first, second = Heard(), Heard()
    alert = group(told("a3"))
    with Http(stack, first) as http:
        http.post("/alerts", alert, secret)
    with Http(stack, second) as http:
        assert outcomes(http.post("/alerts", alert, secret)) == {"a3": "repeated"}
    assert (len(first.calls), second.calls) == (1, [])


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ({"evertrain_action": "explode"}, "only 'pause' is known"),
        ({"evertrain_action": "pause"}, "has no label `run`"),
        ({"evertrain_action": "pause", "run": "run-nosuch"}, "no run 'run-nosuch'"),
    ],
)
def test_what_cannot_be_done_is_said_and_not_asked_for_again(
    http: Http, secret: str, labels: dict[str, str], words: str
) -> None:
    status, answer = http.post("/alerts", group(told("a4", project=f"p{len(words)}", **labels)), secret)
    (said,) = json.loads(answer)["alerts"]
    assert (status, said["outcome"]) == (200, "refused")
    assert words in said["reason"]


def test_a_run_that_has_ended_is_not_paused(http: Http, stack: Stack, secret: str) -> None:
    run = stack.end(training(stack))
    answer = http.post("/alerts", group(told("a5", run=run.id, evertrain_action="pause")), secret)
    assert outcomes(answer) == {"a5": "refused"}
    assert "it is SUCCEEDED" in answer[1]


def test_a_token_of_one_project_acts_there_only_and_the_rest_of_the_request_is_done(
    http: Http, stack: Stack, heard: Heard
) -> None:
    mine, other = training(stack, "alpha"), training(stack, "beta")
    pause = {"evertrain_action": "pause"}
    alerts = [
        told("b1", project="beta", run=other.id, **pause),
        told("b2", project="alpha", run=other.id, **pause),
        told("b3", project="alpha", run=mine.id, **pause),
        told("b4", project="Not A Name"),
    ]
    answer = http.post("/alerts", group(*alerts), stack.token("alpha", Role.USER))
    assert outcomes(answer) == {"b1": "refused", "b2": "refused", "b3": "paused", "b4": "refused"}
    assert stack.store.run("*", other.id).paused == ""
    assert stack.store.run("*", mine.id).paused
    assert [call[1] for call in heard.calls] == ["b2", "b3"]


def test_an_alert_of_no_project_means_the_tokens_own(http: Http, stack: Stack, heard: Heard) -> None:
    for fingerprint, project in (("b5", "alpha"), ("b6", "*")):
        assert http.post("/alerts", group(told(fingerprint)), stack.token(project, Role.USER))[0] == 200
    assert [call[2].get("project") for call in heard.calls] == ["alpha", None]


def test_a_model_that_cannot_be_trained_again_does_not_keep_a_run_from_being_paused(stack: Stack, secret: str) -> None:
    def refuse(name: str, *rest: object) -> None:
        raise Refused("its run file is gone")

    run = training(stack)
    with Http(stack, refuse) as http:
        status, answer = http.post("/alerts", group(told("b7", run=run.id, evertrain_action="pause")), secret)
    (said,) = json.loads(answer)["alerts"]
    assert (status, said["outcome"]) == (200, "refused")
    assert "its run file is gone" in said["reason"]
    assert stack.store.run("*", run.id).paused


def test_a_store_that_does_not_answer_has_alertmanager_come_again(
    http: Http, stack: Stack, secret: str, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*args: object) -> None:
        raise Unavailable("the database at /srv/secret does not answer")

    with monkeypatch.context() as broken:
        broken.setattr(stack.store, "firings", away)
        status, words = http.post("/alerts", group(told("a6")), secret)
    assert (status, words) == (503, "not now, send it again\n")
    assert outcomes(http.post("/alerts", group(told("a6")), secret)) == {"a6": "noted"}
    assert len(heard.calls) == 1


def test_a_storm_is_taken_in_turn_and_acts_once_on_each_alert(http: Http, secret: str, heard: Heard) -> None:
    storm = group(*(told(f"{number:04x}", run=f"run-{number}") for number in range(500)))
    answers: list[tuple[int, str]] = []
    threads = [threading.Thread(target=lambda: answers.append(http.post("/alerts", storm, secret))) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    assert [status for status, _ in answers] == [200] * 8
    assert len({call[1] for call in heard.calls}) == len(heard.calls) == 500
    counts = http.alerts.counts()
    assert (counts[Outcome.NOTED], counts[Outcome.REPEATED]) == (500, 7 * 500)


def test_more_requests_than_can_wait_are_told_to_come_again(
    http: Http, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alert_intake, "MOST_WAITING", 0)
    assert http.post("/alerts", group(told("a7")), secret)[0] == 503


def test_alertmanager_tells_the_server_until_it_has_heard_and_a_run_is_paused_once(
    stack: Stack, secret: str, tmp_path: Path
) -> None:
    run, heard, began = training(stack), Heard(), datetime.datetime.now(datetime.UTC).isoformat()
    token = tmp_path / "token"
    token.write_text("evt_wrong")
    labels = {"alertname": "LossRises", "project": "default", "run": run.id, "evertrain_action": "pause"}
    alert = {"labels": labels, "annotations": {"summary": "it rises"}, "startsAt": began}
    with Http(stack, heard) as http, alertmanager(tmp_path, http.server.port, token) as url:
        fetch(f"{url}/api/v2/alerts", [alert])
        until(lambda: "401" in (tmp_path / "alertmanager.log").read_text())
        assert stack.store.run("*", run.id).paused == ""
        token.write_text(secret)
        fetch(f"{url}/api/v2/alerts", [{**alert, "startsAt": began}])
        until(lambda: stack.store.run("*", run.id).paused)
        until(lambda: http.alerts.counts()[Outcome.REPEATED] > 0)
        assert [call[:1] for call in heard.calls] == [("LossRises",)]
        assert stack.store.run("*", run.id).paused == "paused by user-of-all: alert LossRises: it rises"
        fetch(f"{url}/api/v2/alerts", [{**alert, "endsAt": datetime.datetime.now(datetime.UTC).isoformat()}])
        until(lambda: http.alerts.counts()[Outcome.RESOLVED] > 0)
    assert http.alerts.counts()[Outcome.PAUSED] == 1


def test_an_alertmanager_that_was_killed_and_has_forgotten_starts_nothing_anew(
    stack: Stack, secret: str, tmp_path: Path
) -> None:
    run, heard, began = training(stack), Heard(), datetime.datetime.now(datetime.UTC).isoformat()
    (tmp_path / "token").write_text(secret)
    labels = {"project": "default", "run": run.id, "evertrain_action": "pause"}
    storm = [
        {"labels": {**labels, "alertname": "LossRises", "instance": f"host-{number}"}, "startsAt": began}
        for number in range(200)
    ]
    with Http(stack, heard) as http:
        with alertmanager(tmp_path, http.server.port, tmp_path / "token") as url:
            fetch(f"{url}/api/v2/alerts", storm)
            until(lambda: len(heard.calls) == 200)
        stack.parts.commands.resume("*", run.id, by="ada")
        told_at = stack.store.alerts_told_at()
        shutil.rmtree(tmp_path / "alertmanager")  # what it has sent is in there
        with alertmanager(tmp_path, http.server.port, tmp_path / "token") as url:
            assert stack.store.alerts_told_at() == told_at, "nobody told anything while it was down"
            fetch(f"{url}/api/v2/alerts", storm)  # as Prometheus does, again and again
            until(lambda: http.alerts.counts()[Outcome.REPEATED] >= 200)
    assert len(heard.calls) == len({call[1] for call in heard.calls}) == 200
    assert stack.store.run("*", run.id).paused == "", "somebody has resumed it, and the alerts still fire"
