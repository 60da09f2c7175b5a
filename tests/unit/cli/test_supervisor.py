"""When an ended part is started again."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from orchestrator.cli import supervisor
from orchestrator.cli.stack_state import Part, StackState
from orchestrator.cli.supervisor import Sibling


@pytest.fixture
def state(tmp_path: Path) -> StackState:
    (tmp_path / "logs").mkdir()
    return StackState("mark-of-no-process", str(tmp_path), "local", 0, 0, 0, str(tmp_path))


def ended(state: StackState, monkeypatch: pytest.MonkeyPatch, name: str, code: int) -> Sibling:
    monkeypatch.setattr(supervisor, "command", lambda *_: [sys.executable, "-c", f"raise SystemExit({code})"])
    monkeypatch.setattr(supervisor, "may_start", lambda *_: True)
    sibling = Sibling(name, state)
    assert sibling.tend(time.monotonic())
    deadline = time.monotonic() + 30
    while not sibling.tend(time.monotonic()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return sibling


@pytest.mark.parametrize(("name", "code"), [("agent", 1), ("server", 3)])
def test_a_part_that_ended_is_started_again(
    state: StackState, monkeypatch: pytest.MonkeyPatch, name: str, code: int
) -> None:
    sibling = ended(state, monkeypatch, name, code)
    assert sibling.tend(time.monotonic() + 3600)
    sibling.stop()


def test_restarts_count_until_the_part_has_run_steadily(state: StackState, monkeypatch: pytest.MonkeyPatch) -> None:
    sibling = ended(state, monkeypatch, "server", 3)
    assert sibling.part.restarts == 1
    monkeypatch.setattr(supervisor, "command", lambda *_: [sys.executable, "-c", "import time; time.sleep(600)"])
    later = time.monotonic() + 60
    try:
        assert sibling.tend(later)
        assert not sibling.tend(later + 59)
        assert sibling.part.restarts == 1
        assert sibling.tend(later + 61)
        assert sibling.part.restarts == 0
        assert not sibling.tend(later + 62)
    finally:
        sibling.stop()


@pytest.mark.parametrize(("lived_s", "restarts"), [(59.0, 4), (61.0, 1)])
def test_an_end_after_a_steady_spell_is_the_first_of_a_row(
    state: StackState, monkeypatch: pytest.MonkeyPatch, lived_s: float, restarts: int
) -> None:
    sibling = ended(state, monkeypatch, "server", 3)
    sibling.part = Part(restarts=3)
    started_s = time.monotonic() + 60
    assert sibling.tend(started_s)
    assert sibling._child is not None
    sibling._child.wait(30)  # it ends at once, and is looked at later, as after a laptop's sleep
    assert sibling.tend(started_s + lived_s)
    assert sibling.part.restarts == restarts


def test_an_agent_that_another_one_took_over_from_is_not_started_again(
    state: StackState, monkeypatch: pytest.MonkeyPatch
) -> None:
    sibling = ended(state, monkeypatch, "agent", 3)
    assert not sibling.tend(time.monotonic() + 1e9)
    assert "another agent serves this cluster" in sibling.part.last_end


def test_the_code_is_the_agents() -> None:
    agent = pytest.importorskip("orchestrator.cluster.agent")
    assert agent.EXIT_SUPERSEDED == supervisor._AGENT_SUPERSEDED
