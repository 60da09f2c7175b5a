"""Ending a stack, whatever else is broken."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.cli import stack
from orchestrator.cli.stack_state import StackState, load_state


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a stack whose processes have all ended."""
    monkeypatch.setenv("EVERTRAIN_HOME", str(tmp_path))
    monkeypatch.delenv("EVERTRAIN_CONTEXT", raising=False)
    monkeypatch.setattr(stack, "remove_dead_nodes", lambda _: None)
    StackState("mark-of-no-process", str(tmp_path), "local", 1, 2, 3, str(tmp_path / "ray")).save()
    return tmp_path


@pytest.mark.parametrize("context", ["{", "[]", '{"server": "other:1"}', "\x00"])
def test_a_broken_context_file_does_not_keep_a_stack_from_being_ended(home: Path, context: str) -> None:
    (home / "context").write_text(context)
    assert stack.down(home) == 0
    assert load_state(home) is None
    assert stack.down(home) is None


def test_a_context_file_that_cannot_be_removed_does_not_either(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(server: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(stack, "forget_connection", fail)
    with pytest.raises(PermissionError):
        stack.down(home)
    assert load_state(home) is None
