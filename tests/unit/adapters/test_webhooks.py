"""What a webhook gets: signed, told again until it was taken, and by whom it was not."""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from orchestrator.adapters.webhooks import HttpWebhooks
from orchestrator.control.announcing import FIRST_PAUSE_S, Announcer
from orchestrator.control.promotions import Promotions
from orchestrator.control.wakeups import LocalWakeups
from orchestrator.core.announcements import of_decision
from orchestrator.core.decisions import DecisionRecord, Order, Standing, became, draft
from orchestrator.core.retraining import Action, Because, Cause, Decision, Trigger
from orchestrator.store import MemoryStore
from tests.unit.control.plane import HandClock
from tests.unit.control.test_promotions import Registry
from tests.webhook_receiver import Receiver

SECRET = b"of this test"


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
    assert HttpWebhooks([receiver.url], SECRET, clock).tell(of_decision(replace(decision(), number=7)))
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
    assert not HttpWebhooks([receiver.url], SECRET, HandClock()).tell(of_decision(decision()))
    assert len(receiver.taken) == 1, "nobody follows to elsewhere"


def test_every_receiver_is_told_also_where_one_is_down(receiver: Receiver) -> None:
    assert not HttpWebhooks(["http://127.0.0.1:1/", receiver.url], SECRET, HandClock()).tell(of_decision(decision()))
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
        assert not HttpWebhooks([url], SECRET, HandClock()).tell(of_decision(decision()))
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


def test_what_a_person_promotes_and_rolls_back_is_told_once_also_where_the_receiver_was_down(
    receiver: Receiver,
) -> None:
    registry, clock = Registry(), HandClock()
    store, webhooks = registry.store, HttpWebhooks([receiver.url], SECRET, clock)
    announcer = Announcer(store, webhooks, LocalWakeups(), clock)
    first, second = registry.register(), registry.register()
    registry.promote(first)
    receiver.status = 503
    announcer.one_pass()
    receiver.status = 200
    registry.promote(second, anyway=True, reason="seen by hand")
    registry.roll_back(reason="complaints")
    restarted = Announcer(store, webhooks, LocalWakeups(), clock)  # it has not noted that it was told
    restarted.one_pass()
    restarted.one_pass()
    told = [(headers["Evertrain-Delivery"], json.loads(body)) for headers, body in receiver.taken[1:]]
    assert [each[0] for each in told] == [f"default/digits/moves/{number}" for number in (1, 2, 3)]
    assert [(each["event"], each["before"], each["version"]) for _, each in told] == [
        ("model.promoted", 0, 1),
        ("model.promoted", 1, 2),
        ("model.rolled_back", 2, 1),
    ]
    assert (told[2][1]["by"], told[2][1]["reason"]) == ("ann", "version 2 taken back: complaints")
    assert store.untold_moves() == []


def test_what_a_retraining_moves_is_told_by_its_decision_alone(receiver: Receiver) -> None:
    registry = Registry()
    Promotions(registry.store, HandClock()).promote(registry.register(), by="retraining", tell=False)
    assert registry.store.untold_moves() == []
