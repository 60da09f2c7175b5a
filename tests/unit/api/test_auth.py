from __future__ import annotations

import stat
from pathlib import Path

import pytest

from orchestrator.api.auth import Authenticator, Caller, allows, bearer, digest, ensure_first_tokens, make_token
from orchestrator.core.records import Role, Token
from orchestrator.errors import Denied, Unauthenticated
from orchestrator.store.memory import MemoryStore


class HandClock:
    def __init__(self) -> None:
        self.at_s = 1000.0

    def now(self) -> float:
        return self.at_s

    def monotonic_ns(self) -> int:
        return int(self.at_s * 1e9)


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def known(store: MemoryStore, clock: HandClock, expires_s: float | None = None) -> tuple[str, Token]:
    secret, token = make_token("ci", "alpha", Role.USER, clock.now(), expires_s)
    store.add_token(token)
    return secret, token


def test_the_first_start_writes_two_private_tokens_and_a_restart_keeps_them(
    store: MemoryStore, clock: HandClock, tmp_path: Path
) -> None:
    paths = ensure_first_tokens(store, clock, tmp_path / "data")
    secrets = [path.read_text() for path in paths]
    assert [stat.S_IMODE(path.stat().st_mode) for path in paths] == [0o600, 0o600]
    records = [store.token_by_hash(digest(secret.strip())) for secret in secrets]
    assert [(each.role, each.project) for each in records if each] == [(Role.ADMIN, "*"), (Role.AGENT, "*")]
    ensure_first_tokens(store, clock, tmp_path / "data")
    assert [path.read_text() for path in paths] == secrets
    assert len(store.tokens("*")) == 2


def test_files_of_another_database_are_replaced(store: MemoryStore, clock: HandClock, tmp_path: Path) -> None:
    admin, _ = ensure_first_tokens(MemoryStore(), clock, tmp_path)
    old = admin.read_text()
    ensure_first_tokens(store, clock, tmp_path)
    assert admin.read_text() != old
    assert store.token_by_hash(digest(admin.read_text().strip())) is not None


def test_a_first_token_that_was_revoked_stays_revoked_and_the_next_start_makes_another(
    store: MemoryStore, clock: HandClock, tmp_path: Path
) -> None:
    authenticator = Authenticator(store, clock, 2.0)
    for path in ensure_first_tokens(store, clock, tmp_path):
        old = path.read_text().strip()
        role = authenticator.authenticate(old).token.role
        store.revoke_token("*", authenticator.authenticate(old).token.id, clock.now())
        authenticator.forget()
        ensure_first_tokens(store, clock, tmp_path)
        with pytest.raises(Unauthenticated, match="revoked"):
            authenticator.authenticate(old)
        assert authenticator.authenticate(path.read_text().strip()).token.role == role


def test_a_first_token_that_has_expired_is_replaced(store: MemoryStore, clock: HandClock, tmp_path: Path) -> None:
    admin, _ = ensure_first_tokens(store, clock, tmp_path)
    secret, token = make_token("by-hand", "*", Role.ADMIN, clock.now(), expires_s=10)
    store.add_token(token)
    admin.write_text(secret)
    clock.at_s += 10
    ensure_first_tokens(store, clock, tmp_path)
    assert Authenticator(store, clock, 2.0).authenticate(admin.read_text().strip()).token.name == "first-admin"


def test_only_the_hash_is_kept(store: MemoryStore, clock: HandClock) -> None:
    secret, token = known(store, clock)
    assert secret not in repr(token)
    assert token.secret_sha256 == digest(secret)


def test_a_record_is_believed_for_a_while_and_a_revocation_here_holds_at_once(
    store: MemoryStore, clock: HandClock
) -> None:
    authenticator = Authenticator(store, clock, 2.0)
    secret, token = known(store, clock)
    assert authenticator.cached(secret) is None
    assert authenticator.authenticate(secret) == Caller(token)
    assert authenticator.cached(secret) == Caller(token)
    store.revoke_token("alpha", token.id, clock.now())
    authenticator.forget()
    assert authenticator.cached(secret) is None
    with pytest.raises(Unauthenticated):
        authenticator.authenticate(secret)


def test_a_revocation_elsewhere_holds_after_the_cache_time(store: MemoryStore, clock: HandClock) -> None:
    authenticator = Authenticator(store, clock, 2.0)
    secret, token = known(store, clock)
    authenticator.authenticate(secret)
    store.revoke_token("alpha", token.id, clock.now())
    clock.at_s += 2.1
    assert authenticator.cached(secret) is None


def test_expiry_is_looked_at_even_in_the_cache(store: MemoryStore, clock: HandClock) -> None:
    authenticator = Authenticator(store, clock, 60.0)
    secret, _ = known(store, clock, expires_s=10.0)
    authenticator.authenticate(secret)
    clock.at_s += 10.0
    with pytest.raises(Unauthenticated, match="expired"):
        authenticator.cached(secret)


def test_a_record_that_was_read_before_a_revocation_is_not_kept_after_it(clock: HandClock) -> None:
    class SlowStore(MemoryStore):
        def token_by_hash(self, secret_sha256: str) -> Token | None:
            found = super().token_by_hash(secret_sha256)
            authenticator.forget()  # somebody revokes between the read and its use
            return found

    store = SlowStore()
    authenticator = Authenticator(store, clock, 60.0)
    secret, _ = known(store, clock)
    authenticator.authenticate(secret)
    assert authenticator.cached(secret) is None


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic dXNlcg==", "evt_x", b"\xff\xfe"])
def test_what_is_not_a_bearer_token_is_refused(header: str | bytes | None) -> None:
    with pytest.raises(Unauthenticated, match="EVERTRAIN_TOKEN"):
        bearer(header)


def test_roles_are_a_ladder_and_agents_stand_beside_it() -> None:
    ladder = [Role.VIEWER, Role.USER, Role.ADMIN]
    allowed = [[allows(rule, role) for role in ladder] for rule in ladder]
    assert allowed == [[True, True, True], [False, True, True], [False, False, True]]
    assert [allows(Role.AGENT, role) for role in Role] == [role is Role.AGENT for role in Role]
    assert not any(allows(rule, Role.AGENT) for rule in ladder)


def test_a_token_acts_in_its_project_only(store: MemoryStore, clock: HandClock) -> None:
    caller = Caller(known(store, clock)[1])
    assert (caller.scope(""), caller.target("alpha")) == ("alpha", "alpha")
    for foreign in ("beta", "*"):
        with pytest.raises(Denied, match="alpha"):
            caller.scope(foreign)


def test_a_token_of_every_project_reads_all_and_writes_to_one(clock: HandClock) -> None:
    caller = Caller(make_token("root", "*", Role.ADMIN, clock.now())[1])
    assert (caller.scope(""), caller.scope("beta")) == ("*", "beta")
    assert (caller.target(""), caller.target("beta")) == ("default", "beta")
