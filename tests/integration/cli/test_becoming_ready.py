"""What `evertrain up` makes of what it sees while it waits."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.api.auth import digest
from orchestrator.cli import stack as local
from orchestrator.cli.stack_state import StackState
from orchestrator.core.records import Role
from orchestrator.errors import Unauthenticated
from tests.integration.api.stack import Stack


def state_of(stack: Stack, home: Path, token: str) -> StackState:
    """As if `up` of this home had started that server."""
    state = StackState("mark", str(home), "local", stack.server.port, 0, 0, "")
    state.server_dir.mkdir(parents=True)
    (state.server_dir / "admin.token").write_text(token + "\n")
    return state


def revoked(stack: Stack) -> str:
    secret = stack.token("*", Role.ADMIN)
    token = stack.store.token_by_hash(digest(secret))
    assert token is not None
    stack.store.revoke_token("*", token.id, stack.clock.now())
    return secret


def test_a_server_that_knows_the_token_is_ready(tmp_path: Path) -> None:
    with Stack(tmp_path / "data") as stack:
        assert local._server_answers(state_of(stack, tmp_path, stack.admin))


def test_a_token_that_lets_nobody_in_ends_the_waiting_at_once(tmp_path: Path) -> None:
    with Stack(tmp_path / "data") as stack, pytest.raises(Unauthenticated, match=r"admin\.token.*revoked.*down"):
        local._server_answers(state_of(stack, tmp_path, revoked(stack)))


def test_a_token_that_was_replaced_meanwhile_is_tried_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Stack(tmp_path / "data") as stack:
        state = state_of(stack, tmp_path, stack.admin)
        read = iter([revoked(stack), stack.admin, stack.admin])
        monkeypatch.setattr(local, "_admin_token", lambda _: next(read))
        assert not local._server_answers(state)
        assert local._server_answers(state)
