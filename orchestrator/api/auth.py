"""Who may call what. Denied by default: a call that RULES does not list is denied to everybody.

A token is `evt_` and 256 random bits; the store keeps its SHA-256 only. It has one role and one project ("*": every
project). viewer < user < admin; `agent` is no step of that ladder: it may attach a cluster and nothing else, and nobody
else may.

`grpc.health.v1.Health/Check` needs no token: a load balancer has none, and it says only "serving". Reflection and the
streaming `Health/Watch` need any token.
"""

from __future__ import annotations

import contextvars
import hashlib
import re
import secrets
import threading
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.core.records import Role, Token
from orchestrator.errors import Denied, InvalidSpec, Problem, Refused, Unauthenticated
from orchestrator.ports import Clock, Store
from orchestrator.settings import write_private

PREFIX = "evt_"
EVERY_PROJECT = "*"
DEFAULT_PROJECT = "default"

LABEL = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")
LABEL_RULE = "must be lower-case letters, digits, '.', '_' and '-', at most 63, no sign first or last"

FEWEST_TOKEN_CHARS = 32  # of a token made elsewhere: only a hash is kept, and that of a short one can be searched

ANYBODY = "anybody"  # without a token
ANY_TOKEN = "any token"

RULES: Mapping[str, Role | str] = {
    "/evertrain.v1.Runs/Submit": Role.USER,
    "/evertrain.v1.Runs/SubmitBatch": Role.USER,
    "/evertrain.v1.Runs/Plan": Role.VIEWER,
    "/evertrain.v1.Runs/Get": Role.VIEWER,
    "/evertrain.v1.Runs/List": Role.VIEWER,
    "/evertrain.v1.Runs/Watch": Role.VIEWER,
    "/evertrain.v1.Runs/Cancel": Role.USER,
    "/evertrain.v1.Runs/Inspect": Role.USER,
    "/evertrain.v1.Runs/Logs": Role.VIEWER,
    "/evertrain.v1.Runs/Events": Role.VIEWER,
    "/evertrain.v1.Runs/Checkpoints": Role.VIEWER,
    "/evertrain.v1.Runs/UploadBundle": Role.USER,
    "/evertrain.v1.Runs/Pause": Role.USER,
    "/evertrain.v1.Runs/Resume": Role.USER,
    "/evertrain.v1.Sweeps/List": Role.VIEWER,
    "/evertrain.v1.Sweeps/Get": Role.VIEWER,
    "/evertrain.v1.Sweeps/StartTrial": Role.USER,
    "/evertrain.v1.Sweeps/Stop": Role.USER,
    "/evertrain.v1.Models/List": Role.VIEWER,
    "/evertrain.v1.Models/Get": Role.VIEWER,
    "/evertrain.v1.Models/SetAlias": Role.USER,
    "/evertrain.v1.Models/Facts": Role.VIEWER,
    "/evertrain.v1.Models/PutFact": Role.USER,
    "/evertrain.v1.Models/Promote": Role.USER,
    "/evertrain.v1.Models/Rollback": Role.USER,
    "/evertrain.v1.Models/History": Role.VIEWER,
    "/evertrain.v1.Models/Compare": Role.VIEWER,
    "/evertrain.v1.Models/Lineage": Role.VIEWER,
    "/evertrain.v1.Monitors/Observe": Role.USER,
    "/evertrain.v1.Monitors/List": Role.VIEWER,
    "/evertrain.v1.Monitors/Get": Role.VIEWER,
    "/evertrain.v1.Monitors/Judgements": Role.VIEWER,
    "/evertrain.v1.Monitors/Pause": Role.USER,
    "/evertrain.v1.Monitors/Resume": Role.USER,
    "/evertrain.v1.Monitors/Decisions": Role.VIEWER,
    "/evertrain.v1.Monitors/Retrain": Role.USER,
    "/evertrain.v1.Monitors/Approve": Role.USER,
    "/evertrain.v1.Monitors/Reject": Role.USER,
    "/evertrain.v1.Tokens/Create": Role.ADMIN,
    "/evertrain.v1.Tokens/List": Role.ADMIN,
    "/evertrain.v1.Tokens/Revoke": Role.ADMIN,
    "/evertrain.v1.Secrets/Put": Role.USER,
    "/evertrain.v1.Secrets/List": Role.USER,
    "/evertrain.v1.Secrets/Delete": Role.USER,
    "/evertrain.v1.Clusters/Attach": Role.AGENT,
    "/evertrain.v1.Clusters/ShipLogs": Role.AGENT,
    "/evertrain.v1.Clusters/GetBundle": Role.AGENT,
    "/evertrain.v1.Clusters/List": Role.VIEWER,
    "/evertrain.v1.Clusters/Drain": Role.ADMIN,
    "/grpc.health.v1.Health/Check": ANYBODY,
    "/grpc.health.v1.Health/Watch": ANY_TOKEN,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": ANY_TOKEN,
}

_LADDER = (Role.VIEWER, Role.USER, Role.ADMIN)


def allows(rule: Role | str, role: Role) -> bool:
    """Whether a token of `role` satisfies `rule`."""
    if rule in (ANYBODY, ANY_TOKEN):
        return True
    if Role.AGENT in (rule, role):
        return rule == role
    return _LADDER.index(role) >= _LADDER.index(Role(rule))


# ---- the caller of the present call -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Caller:
    token: Token

    @property
    def name(self) -> str:
        return self.token.name

    def scope(self, asked: str) -> str:
        """The project to look in: the one asked for, else the token's; "*" looks everywhere.

        Raises Denied, and InvalidSpec for what cannot be a project's name: it would become part of paths and labels.
        """
        if not asked:
            return self.token.project
        self._check(asked)
        return asked

    def target(self, asked: str) -> str:
        """The one project to write to; a token of every project that names none writes to "default".

        Raises Denied, InvalidSpec.
        """
        project = self.scope(asked)
        if project == EVERY_PROJECT:
            return DEFAULT_PROJECT
        return project

    def _check(self, project: str) -> None:
        if self.token.project not in (EVERY_PROJECT, project):
            raise Denied(
                f"token {self.token.name!r} is of project {self.token.project!r} and may not act in {project!r}: "
                "ask an administrator of that project for a token"
            )
        if project != EVERY_PROJECT and not LABEL.fullmatch(project):
            raise InvalidSpec([Problem("project", project[:80], LABEL_RULE)])


_caller: contextvars.ContextVar[Caller] = contextvars.ContextVar("caller")


def set_caller(caller: Caller) -> None:
    _caller.set(caller)


def caller() -> Caller:
    """Who makes the present call. Raises Unauthenticated outside of a checked call."""
    try:
        return _caller.get()
    except LookupError:
        raise Unauthenticated("this call was not checked for a token") from None


# ---- tokens ---------------------------------------------------------------------------------------------------------


def digest(secret: str) -> str:
    """What is stored of a token. It holds 256 random bits, so that a plain hash cannot be searched."""
    return hashlib.sha256(secret.encode()).hexdigest()


def make_token(name: str, project: str, role: Role, now: float, expires_s: float | None = None) -> tuple[str, Token]:
    """A new secret, to be shown once, and its record."""
    secret = PREFIX + secrets.token_urlsafe(32)
    expires_at = None if expires_s is None else now + expires_s
    return secret, Token(uuid.uuid4().hex[:12], name, project, role, digest(secret), now, expires_at)


def bearer(authorization: str | bytes | None) -> str:
    """The secret in an `authorization` header. Raises Unauthenticated."""
    text = authorization.decode("ascii", "replace") if isinstance(authorization, bytes) else authorization or ""
    scheme, _, secret = text.partition(" ")
    if scheme.lower() != "bearer" or not secret:
        raise Unauthenticated("no token: send `authorization: Bearer TOKEN`, or set EVERTRAIN_TOKEN for the CLI")
    return secret.strip()


def unusable(token: Token, now: float) -> str | None:
    """Why nobody gets in with it any more; None for a token that holds."""
    if token.revoked_at is not None:
        return "was revoked"
    if token.expires_at is not None and token.expires_at <= now:
        return "has expired"
    return None


class Authenticator:
    """Knows tokens. Blocks on the store; safe from several threads.

    A record is believed for `cache_s` seconds; `forget` makes a revocation hold at once in this process.
    """

    def __init__(self, store: Store, clock: Clock, cache_s: float) -> None:
        self._store = store
        self._clock = clock
        self._cache_ns = int(cache_s * 1e9)
        self._known: dict[str, tuple[int, Token]] = {}
        self._lock = threading.Lock()
        self._forgotten = 0  # counts `forget`s: a record read before one of them is not kept

    def cached(self, secret: str) -> Caller | None:
        """Without blocking; None: ask `authenticate`. Raises Unauthenticated."""
        kept = self._known.get(digest(secret))
        if kept is None or self._clock.monotonic_ns() - kept[0] > self._cache_ns:
            return None
        return self._checked(kept[1])

    def authenticate(self, secret: str) -> Caller:
        """Raises Unauthenticated for a token that is unknown, revoked or expired."""
        sha256, forgotten = digest(secret), self._forgotten
        token = self._store.token_by_hash(sha256)
        if token is None:
            raise Unauthenticated("this token is not known here: check EVERTRAIN_TOKEN, or ask for a new one")
        caller = self._checked(token)
        with self._lock:
            if forgotten == self._forgotten:
                self._known[sha256] = (self._clock.monotonic_ns(), token)
        return caller

    def forget(self) -> None:
        """Believe no record any longer."""
        with self._lock:
            self._forgotten += 1
            self._known.clear()

    def _checked(self, token: Token) -> Caller:
        if (why := unusable(token, self._clock.now())) is not None:
            raise Unauthenticated(f"token {token.name!r} {why}: ask for a new one")
        return Caller(token)


def ensure_first_tokens(store: Store, clock: Clock, data_dir: Path) -> tuple[Path, Path]:
    """Write admin.token and agent.token (mode 0600) at the first start; later starts keep them. Answers both paths.

    A file whose token lets nobody in is replaced: one that the store does not know (a new database beside old files), that
    was revoked or has expired. Whoever can read these files could read the database as well, and without them nobody could
    get in again.
    """
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    admin, agent = data_dir / "admin.token", data_dir / "agent.token"
    for path, name, role in ((admin, "first-admin", Role.ADMIN), (agent, "first-agent", Role.AGENT)):
        known = store.token_by_hash(digest(path.read_text().strip())) if path.exists() else None
        if known is not None and unusable(known, clock.now()) is None:
            continue
        secret, token = make_token(name, EVERY_PROJECT, role, clock.now())
        store.add_token(token)
        write_private(path, secret + "\n")
    return admin, agent


def adopt_tokens(store: Store, clock: Clock, directory: Path) -> tuple[Role, ...]:
    """Let in the tokens that whoever deployed the server has put into `directory`, `ROLE.token` each, for every project.

    The files are the truth: what an earlier start took from a file that says another thing now is revoked, so that replacing
    the file and starting again rotates a token. One that was revoked by a call stays revoked. Answers the roles.

    Raises Refused for a directory without admin.token, and for a token that is too short or stands in two files.
    """
    roles = tuple(role for role in Role if (directory / f"{role.value}.token").exists())
    if Role.ADMIN not in roles:
        raise Refused(f"{directory / 'admin.token'} is missing: put a token there, or leave EVERTRAIN_TOKENS_DIR empty")
    for role in roles:
        _adopt(store, clock, directory / f"{role.value}.token", role)
    return roles


def _adopt(store: Store, clock: Clock, path: Path, role: Role) -> None:
    try:
        secret = path.read_text().strip()
    except OSError as error:
        raise Refused(f"{path} cannot be read: {error.strerror}") from error
    if len(secret) < FEWEST_TOKEN_CHARS:
        raise Refused(
            f"{path}: a token needs at least {FEWEST_TOKEN_CHARS} random characters, this one has {len(secret)}"
        )
    name, sha256 = f"deployed-{role.value}", digest(secret)
    known = store.token_by_hash(sha256)
    if known is not None and known.role != role:
        raise Refused(f"{path} holds the {known.role.value} token {known.name!r}: each role needs a token of its own")
    if known is None:
        store.add_token(Token(uuid.uuid4().hex[:12], name, EVERY_PROJECT, role, sha256, clock.now()))
    for each in store.tokens(EVERY_PROJECT):
        if each.name == name and each.secret_sha256 != sha256 and each.revoked_at is None:
            store.revoke_token(EVERY_PROJECT, each.id, clock.now())
