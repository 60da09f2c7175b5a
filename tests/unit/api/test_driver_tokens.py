"""What a sweep's driver speaks to the server with."""

from __future__ import annotations

from orchestrator.api.auth import digest
from orchestrator.api.driver_tokens import LIVES_S, DriverTokens
from orchestrator.core.records import Role
from orchestrator.store import MemoryStore
from tests.builders import queued_run
from tests.unit.control.plane import HandClock


def test_a_driver_keeps_its_token_for_half_its_life_and_loses_all_of_them_with_its_sweep() -> None:
    store, clock, forgotten = MemoryStore(), HandClock(), []
    tokens = DriverTokens(store, clock, lambda: forgotten.append(True))
    run = queued_run(kind="sweep")
    first = tokens.of(run)
    assert tokens.of(run) == first
    clock.forward(LIVES_S * 0.6)
    second = tokens.of(run)
    restarted = DriverTokens(store, clock, lambda: forgotten.append(True))
    third = restarted.of(run)
    assert len({first, second, third}) == 3
    found = [store.token_by_hash(digest(secret)) for secret in (first, second, third)]
    assert all(each is not None and each.role is Role.USER and each.project == run.project for each in found)
    restarted.retire(run.id)
    after = [store.token_by_hash(digest(secret)) for secret in (first, second, third)]
    assert all(each is not None and each.revoked_at is not None for each in after)
    assert forgotten == [True]


def test_a_run_that_was_no_sweep_revokes_nothing() -> None:
    store = MemoryStore()
    tokens = DriverTokens(store, HandClock(), lambda: None)
    tokens.of(queued_run(kind="sweep"))
    tokens.retire("run-other")
    assert [each.revoked_at for each in store.tokens("*")] == [None]
