"""`evertrain monitor decisions|retrain|approve|reject`, as they are typed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator

import pytest

from orchestrator.cli.app import main
from orchestrator.core.retraining import Cause, Trigger
from orchestrator.spec import dump, load
from tests.integration.api.stack import Stack

RUN = {
    "name": "flights",
    "entrypoint": "flights.training:task",
    "train": {"epochs": 1},
    "monitor": {"retrain": {"minimum_rows": 0}},
}

Evertrain = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("server")) as started:
        started.end(started.place(started.submit("default", name="flights", spec=dump(load(RUN)))))
        yield started


@pytest.fixture
def evertrain(stack: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Evertrain:
    monkeypatch.setenv("EVERTRAIN_SERVER", stack.address)
    monkeypatch.setenv("EVERTRAIN_TOKEN", stack.admin)
    monkeypatch.setenv("COLUMNS", "240")

    def run(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["evertrain", "monitor", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        shown = capsys.readouterr()
        return int(ended.value.code or 0), shown.out + shown.err

    return run


def test_decisions_are_answered_on_the_command_line(stack: Stack, evertrain: Evertrain) -> None:
    assert evertrain("decisions", "flights") == (0, "nothing was decided yet\n")
    for number in (1, 2):
        trigger = Trigger(Cause.DRIFT, f"drift/v1/{number}", stack.clock.now(), "drift (major): distance", 3)
        stack.parts.retraining.triggered(stack.store.monitor("default", "flights"), trigger)
        if number == 1:
            assert "flights #1 is rejected: rejected by first-admin: a holiday" in " ".join(
                evertrain("reject", "flights", "1", "--reason", "a holiday")[1].split()
            )
    assert "flights #2 is accepted: approved by first-admin" in evertrain("approve", "flights", "2")[1]
    code, shown = evertrain("retrain", "flights", "--reason", "new sensors")
    assert (code, "flights #3 is closed: decision 2 is still under way" in shown) == (0, True)
    code, shown = evertrain("decisions", "flights")
    assert "approved by first-admin" in shown
    listed = json.loads(evertrain("decisions", "flights", "--limit", "2", "-o", "json")[1])
    assert [each["standing"] for each in listed] == ["closed", "accepted"]


def test_what_is_not_there_is_told_by_exit_code(evertrain: Evertrain) -> None:
    assert evertrain("approve", "flights", "99")[0] == 102
    assert evertrain("decisions", "nobody")[0] == 102
