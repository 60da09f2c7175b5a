"""Every error of the tree crosses the wire and comes back as itself."""

from __future__ import annotations

import logging

import grpc
import pytest

from orchestrator import errors
from orchestrator.api.status import CODES, ERROR_KEY, DeadlinePassed, from_status, to_status
from orchestrator.errors import EvertrainError, InvalidSpec, Problem

PROBLEMS = (Problem("train.lr", "-1", "must be greater than 0"), Problem("name", "nothing", "is required"))


def all_errors() -> list[type[EvertrainError]]:
    found: list[type[EvertrainError]] = []
    todo: list[type[EvertrainError]] = [EvertrainError]
    while todo:
        cls = todo.pop()
        found.append(cls)
        todo.extend(cls.__subclasses__())
    return [cls for cls in found if cls not in (EvertrainError, InvalidSpec) and cls.__module__ == errors.__name__]


@pytest.mark.parametrize("cls", [*all_errors(), DeadlinePassed])
def test_an_error_comes_back_as_itself(cls: type[EvertrainError]) -> None:
    code, message, trailing = to_status(cls("the run is gone: look elsewhere"))
    back = from_status(code, message, trailing)
    assert type(back) is cls
    assert str(back) == "the run is gone: look elsewhere"


@pytest.mark.parametrize("cls", all_errors())
def test_every_error_has_a_status_of_its_own(cls: type[EvertrainError]) -> None:
    assert [each for each in CODES.values() if each is CODES[cls]] == [CODES[cls]]


@pytest.mark.parametrize("cls", all_errors())
def test_the_status_alone_is_enough_for_a_client_behind_a_proxy_that_drops_metadata(cls: type[EvertrainError]) -> None:
    code, message, _ = to_status(cls("x"))
    assert type(from_status(code, message, ())) is cls


def test_each_problem_of_a_run_file_comes_back() -> None:
    code, message, trailing = to_status(InvalidSpec(PROBLEMS))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    back = from_status(code, message, trailing)
    assert isinstance(back, InvalidSpec)
    assert back.problems == PROBLEMS


def test_a_thousand_problems_fit_into_the_metadata_that_a_peer_takes() -> None:
    code, message, trailing = to_status(InvalidSpec([Problem(f"env.{n}", "x" * 500, "y" * 900) for n in range(1000)]))
    assert len(message.encode()) * 3 + sum(len(key) + len(value) * 4 // 3 for key, value in trailing) < 8192
    back = from_status(code, message, trailing)
    assert isinstance(back, InvalidSpec)
    assert "more problems" in back.problems[-1].message


def test_a_bug_leaks_nothing_and_can_be_found_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        code, message, trailing = to_status(RuntimeError("password=hunter2 in /srv/secret"))
    assert code is grpc.StatusCode.INTERNAL
    assert "hunter2" not in message
    assert trailing == ()
    incident = message.split()[-1]
    assert incident in caplog.text
    assert "hunter2" in caplog.text


def test_unknown_details_do_not_hide_the_error() -> None:
    back = from_status(grpc.StatusCode.NOT_FOUND, "gone", ((ERROR_KEY, b"\xff{"),))
    assert type(back) is errors.NotFound
