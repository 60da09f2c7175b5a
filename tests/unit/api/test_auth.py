from __future__ import annotations

import stat
from pathlib import Path

import pytest

from orchestrator.api.auth import (
    Authenticator,
    Caller,
    adopt_tokens,
    allows,
    bearer,
    digest,
    ensure_first_tokens,
    make_token,
)
from orchestrator.core.records import Role, Token
from orchestrator.errors import Denied, Refused, Unauthenticated
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


def write_tokens(directory: Path, **secrets: str) -> Path:
    for role, secret in secrets.items():
        (directory / f"{role}.token").write_text(f"{secret}\n")
    return directory


def test_deployed_tokens_are_let_in_each_with_its_role_and_a_restart_adds_none(
    store: MemoryStore, clock: HandClock, tmp_path: Path
) -> None:
    write_tokens(tmp_path, admin="a" * 40, agent="b" * 40, viewer="c" * 40)
    for _ in range(2):
        assert set(adopt_tokens(store, clock, tmp_path)) == {Role.ADMIN, Role.AGENT, Role.VIEWER}
    authenticator = Authenticator(store, clock, 2.0)
    found = {sign: authenticator.authenticate(sign * 40).token for sign in "abc"}
    assert {sign: (each.role, each.project) for sign, each in found.items()} == {
        "a": (Role.ADMIN, "*"),
        "b": (Role.AGENT, "*"),
        "c": (Role.VIEWER, "*"),
    }
    assert len(store.tokens("*")) == 3


def test_a_deployed_token_is_rotated_by_replacing_its_file(
    store: MemoryStore, clock: HandClock, tmp_path: Path
) -> None:
    adopt_tokens(store, clock, write_tokens(tmp_path, admin="a" * 40, agent="b" * 40))
    adopt_tokens(store, clock, write_tokens(tmp_path, agent="n" * 40))
    authenticator = Authenticator(store, clock, 2.0)
    assert [authenticator.authenticate(sign * 40).token.role for sign in "an"] == [Role.ADMIN, Role.AGENT]
    with pytest.raises(Unauthenticated, match="revoked"):
        authenticator.authenticate("b" * 40)


def test_a_deployed_token_that_was_revoked_by_a_call_stays_revoked(
    store: MemoryStore, clock: HandClock, tmp_path: Path
) -> None:
    adopt_tokens(store, clock, write_tokens(tmp_path, admin="a" * 40, agent="b" * 40))
    leaked = Authenticator(store, clock, 2.0).authenticate("b" * 40).token
    store.revoke_token("*", leaked.id, clock.now())
    adopt_tokens(store, clock, tmp_path)
    with pytest.raises(Unauthenticated, match="revoked"):
        Authenticator(store, clock, 2.0).authenticate("b" * 40)


@pytest.mark.parametrize(
    ("secrets", "words"),
    [
        ({"agent": "b" * 40}, "admin.token is missing"),
        ({"admin": "short"}, "at least 32 random characters, this one has 5"),
        ({"admin": "a" * 40, "agent": "a" * 40}, "each role needs a token of its own"),
    ],
)
def test_deployed_tokens_that_cannot_be_used_are_refused(
    store: MemoryStore, clock: HandClock, tmp_path: Path, secrets: dict[str, str], words: str
) -> None:
    with pytest.raises(Refused, match=words):
        adopt_tokens(store, clock, write_tokens(tmp_path, **secrets))


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
