"""What a webhook gets: signed, told again until it was taken, and by whom it was not."""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from orchestrator.adapters.webhooks import HttpWebhooks
from orchestrator.control.announcing import FIRST_PAUSE_S, Announcer
from orchestrator.control.wakeups import LocalWakeups
from orchestrator.core.decisions import DecisionRecord, Order, Standing, became, draft
from orchestrator.core.retraining import Action, Because, Cause, Decision, Trigger
from orchestrator.store import MemoryStore
from tests.unit.control.plane import HandClock

SECRET = b"of this test"


class Receiver:
    """A team's own web server."""

    def __init__(self) -> None:
        self.status, self.taken = 204, []  # type: tuple[int, list[tuple[Any, bytes]]]
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.taken.append((self.headers, body))
                self.send_response(outer.status)
                self.send_header("Location", "/elsewhere")
                self.end_headers()

            def log_message(self, *words: Any) -> None:
                """Say nothing."""

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


def decision() -> DecisionRecord:
    trigger = Trigger(Cause.DRIFT, "drift/v1/900", 5.0, "drift (major): height")
    made = Decision(trigger, Action.RETRAIN, Because.ACCEPTED, "retrains: drift (major): height")
    return draft("default", "digits", made, Order("run-base", 1, 0, 40), "", 6.0)


def test_a_post_says_what_happened_and_whoever_has_the_secret_can_check_it(receiver: Receiver) -> None:
    clock = HandClock(1_790_000_000.0)
    assert HttpWebhooks([receiver.url], SECRET, clock).tell(replace(decision(), number=7))
    ((headers, body),) = receiver.taken
    assert headers["Evertrain-Delivery"] == "default/digits/7/accepted"
    signed = headers["Evertrain-Timestamp"].encode() + b"." + body
    assert headers["Evertrain-Timestamp"] == "1790000000"
    assert headers["Evertrain-Signature"] == "sha256=" + hmac.new(SECRET, signed, hashlib.sha256).hexdigest()
    told = json.loads(body)
    assert (told["event"], told["model"], told["cause"]) == ("retraining.accepted", "digits", "drift")
    assert told["words"] == "retrains: drift (major): height"


@pytest.mark.parametrize("status", [302, 404, 500])
def test_what_is_not_taken_is_not_told(receiver: Receiver, status: int) -> None:
    receiver.status = status
    assert not HttpWebhooks([receiver.url], SECRET, HandClock()).tell(decision())
    assert len(receiver.taken) == 1, "nobody follows to elsewhere"


def test_every_receiver_is_told_also_where_one_is_down(receiver: Receiver) -> None:
    assert not HttpWebhooks(["http://127.0.0.1:1/", receiver.url], SECRET, HandClock()).tell(decision())
    assert len(receiver.taken) == 1


def test_a_receiver_that_speaks_no_http_is_told_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(b"SSH-2.0-OpenSSH\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        assert not HttpWebhooks([url], SECRET, HandClock()).tell(decision())
        thread.join()


def test_a_step_is_told_once_and_a_receiver_that_was_down_hears_of_it_later(receiver: Receiver) -> None:
    store, clock = MemoryStore(), HandClock()
    announcer = Announcer(store, HttpWebhooks([receiver.url], SECRET, clock), LocalWakeups(), clock)
    record = store.record_decision(decision())
    receiver.status = 503
    announcer.one_pass()
    announcer.one_pass()
    assert len(receiver.taken) == 1, "it is not told again at once"
    receiver.status = 200
    clock.forward(FIRST_PAUSE_S)
    announcer.one_pass()
    announcer.one_pass()
    assert len(receiver.taken) == 2
    told = store.decision("default", "digits", record.number)
    assert told.announced is Standing.ACCEPTED
    store.change_decision(became(told, Standing.FAILED, "nothing to train on"))
    announcer.one_pass()
    assert json.loads(receiver.taken[-1][1])["told"] == ["nothing to train on"]
    assert store.open_decisions() == []
