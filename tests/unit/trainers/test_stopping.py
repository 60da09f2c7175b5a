"""What a SIGTERM does, where."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from trainers.errors import Stopped
from trainers.stopping import StopRequest


@pytest.fixture
def stop() -> Iterator[StopRequest]:
    before = signal.getsignal(signal.SIGTERM)
    request = StopRequest()
    request.listen()
    yield request
    signal.signal(signal.SIGTERM, before)


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_it_raises_at_once_where_nothing_is_lost(stop: StopRequest) -> None:
    with pytest.raises(Stopped), stop.immediate():  # noqa: PT012
        terminate()
        pytest.fail("went on")


def test_it_waits_until_what_holds_it_has_ended(stop: StopRequest) -> None:
    done = []
    with pytest.raises(Stopped), stop.immediate():  # noqa: PT012  (the order is the point)
        with stop.held():
            terminate()
            assert stop.asked()
            done.append("message")
        pytest.fail("went on")
    assert done == ["message"]


def test_the_second_one_does_not_disturb_an_ending_rank(stop: StopRequest) -> None:
    with pytest.raises(Stopped), stop.immediate():
        terminate()
    terminate()
    with stop.held():
        terminate()


def test_an_error_in_what_holds_it_is_the_one_that_is_told(stop: StopRequest) -> None:
    with pytest.raises(OSError), stop.immediate(), stop.held():  # noqa: PT012
        terminate()
        raise OSError
    assert stop.asked()


def test_one_that_came_before_is_not_forgotten(stop: StopRequest) -> None:
    terminate()
    with pytest.raises(Stopped), stop.immediate():
        pytest.fail("went on")
