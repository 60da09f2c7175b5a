"""Every setting, with a sentence each. The only reader of the environment.

`Settings` is the server's, read from `EVERTRAIN_*`. `Connection` is how a client finds its server: `EVERTRAIN_SERVER`
and `EVERTRAIN_TOKEN` first, then the context file that `evertrain up` wrote.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from orchestrator.core.money import Prices
from orchestrator.errors import Refused

DEFAULT_GRPC_PORT = 7460
DEFAULT_HTTP_PORT = 7461
LOOPBACK_HOSTS = ("127.0.0.1", "::1", "localhost")

_Port = Annotated[int, Field(ge=0, le=65535)]
_Seconds = Annotated[float, Field(gt=0)]
_Price = Annotated[float, Field(ge=0)]
_Days = Annotated[float, Field(gt=0)]
_Bytes = Annotated[int, Field(gt=0)]

_WEBHOOK = re.compile(r"https?://[^\s/]+(/\S*)?")

MIB = 2**20


class Settings(BaseSettings):
    """The server's settings. Durations in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(env_prefix="EVERTRAIN_", frozen=True, extra="forbid")

    data_dir: Path = Field(
        default=Path.home() / ".evertrain" / "server",
        description="Directory of everything the embedded server keeps: database, logs, bundles, first tokens.",
    )
    store_url: str = Field(default="", description="SQLAlchemy URL of the store; empty: SQLite in data_dir.")
    store_url_file: Path | None = Field(
        default=None, description="File that holds store_url, which then needs no place in the environment."
    )
    storage: str = Field(
        default="",
        description="fsspec URL or path of checkpoints, unless a run file says otherwise; empty: in data_dir.",
    )

    secrets_key_file: Path | None = Field(
        default=None,
        description="File with the key that secret values are encrypted with, made at the first start; empty: in data_dir.",
    )

    tokens_dir: Path | None = Field(
        default=None,
        description="Directory with admin.token, agent.token, viewer.token or user.token, made by whoever deploys the server;"
        " empty: the first start makes two, in data_dir.",
    )

    grpc_host: str = Field(default="127.0.0.1", description="Address that the gRPC API listens on.")
    grpc_port: _Port = Field(default=DEFAULT_GRPC_PORT, description="Port of the gRPC API; 0 takes any free one.")
    http_host: str = Field(
        default="127.0.0.1", description="Address that /metrics, /alerts, /healthz and /readyz listen on."
    )
    http_port: _Port = Field(default=DEFAULT_HTTP_PORT, description="Port of the HTTP side; 0 takes any free one.")
    tls_cert: Path | None = Field(
        default=None,
        description="PEM file of the certificate chain; with tls_key it turns TLS on. Both are read again once replaced.",
    )
    tls_key: Path | None = Field(default=None, description="PEM file of the certificate's private key.")
    metrics_without_token: bool | None = Field(
        default=None, description="Whether /metrics answers without a token; unset: only while bound to loopback."
    )

    message_bytes: _Bytes = Field(default=8 * MIB, description="Largest gRPC message taken.")
    spec_bytes: _Bytes = Field(default=256 * 1024, description="Largest run file taken.")
    bundle_bytes: _Bytes = Field(default=64 * MIB, description="Largest code bundle taken.")
    concurrent_streams: Annotated[int, Field(gt=0)] = Field(
        default=1000, description="Most open calls of one connection."
    )
    unary_deadline_s: _Seconds = Field(default=30.0, description="A unary call that took longer is given up.")
    api_threads: Annotated[int, Field(gt=0)] = Field(
        default=16, description="Threads in which calls wait for the store."
    )
    token_cache_s: _Seconds = Field(
        default=2.0, description="How long a token's record is believed; revoking through this server is at once."
    )

    log_line_bytes: _Bytes = Field(default=16 * 1024, description="A longer log line is cut, and says so.")
    log_run_bytes: _Bytes = Field(
        default=256 * MIB, description="Kept of one run's log; beyond it the oldest lines go."
    )
    log_rate_bytes_per_s: _Bytes = Field(
        default=2 * MIB, description="Log bytes a second that one run may write for long."
    )
    log_burst_bytes: _Bytes = Field(
        default=32 * MIB, description="Log bytes that one run may write before the rate holds."
    )
    log_credit: Annotated[int, Field(gt=0)] = Field(
        default=8, description="Log batches that an agent may have unanswered."
    )
    log_drain_s: _Seconds = Field(
        default=2.0, description="After a run's end its log counts as complete when no line came for so long."
    )
    log_keep_days: _Days = Field(
        default=90.0, description="The log of a run that has ended goes so many days after its last line."
    )
    bundle_keep_days: _Days = Field(
        default=30.0, description="A code bundle that no unfinished run needs goes so many days after its last use."
    )

    observation_batch_bytes: _Bytes = Field(
        default=4 * MIB, description="Largest batch of live traffic taken; a gRPC message must have room for it."
    )
    observation_bytes: _Bytes = Field(
        default=1024 * MIB, description="Kept of one monitor's live traffic; beyond it the oldest batches go."
    )
    observation_keep_days: _Days = Field(default=30.0, description="Live traffic goes after so many days.")
    snapshot_keep_days: _Days = Field(
        default=90.0,
        description="The data of a retraining go so many days after its end, unless a version that serves, or would after a "
        "rollback, learned from them.",
    )

    price_cpu_hour: _Price = Field(default=0.0, description="What one CPU core costs an hour; for max_cost.")
    price_gpu_hour: _Price = Field(default=0.0, description="What one GPU costs an hour; for max_cost.")
    price_currency: Annotated[str, Field(pattern="^[A-Z]{3}$")] = Field(
        default="USD", description="Currency of the prices, by its three letters."
    )

    webhooks: str = Field(
        default="", description="URLs that every step of a retraining is posted to, separated by commas."
    )
    webhook_secret_file: Path | None = Field(
        default=None,
        description="File with the secret that posts to webhooks are signed with, made at first use; empty: in data_dir.",
    )

    watch_poll_s: _Seconds = Field(
        default=2.0, description="A watcher looks again after so long even when nothing woke it."
    )
    metrics_grace_s: _Seconds = Field(
        default=300.0, description="Series of a finished run stay on /metrics for so long."
    )
    metrics_runs: Annotated[int, Field(gt=0)] = Field(
        default=1000, description="Most runs with series of their own at a time."
    )
    metrics_ranks: Annotated[int, Field(ge=0)] = Field(
        default=0, description="So many ranks of each run, the lowest, have series of their own; 0: none."
    )

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="Level of the server's own log."
    )
    log_format: Literal["json", "text"] = Field(default="json", description="Form of the server's own log.")

    @field_validator("webhooks")
    @classmethod
    def _of_http(cls, value: str) -> str:
        strange = [each for each in value.split(",") if each.strip() and not _WEBHOOK.fullmatch(each.strip())]
        if strange:
            raise ValueError(f"must be http:// or https:// URLs, separated by commas; {strange[0].strip()!r} is none")
        return value

    @property
    def database_url(self) -> str:
        return self.store_url or f"sqlite:///{self.data_dir / 'evertrain.db'}"

    @property
    def secrets_key(self) -> Path:
        return self.secrets_key_file or self.data_dir / "secrets.key"

    @property
    def webhook_urls(self) -> tuple[str, ...]:
        return tuple(each.strip() for each in self.webhooks.split(",") if each.strip())

    @property
    def webhook_secret(self) -> Path:
        return self.webhook_secret_file or self.data_dir / "webhook.secret"

    @property
    def storage_root(self) -> str:
        return self.storage or str(self.data_dir / "storage")

    @property
    def prices(self) -> Prices:
        return Prices(self.price_cpu_hour, self.price_gpu_hour, self.price_currency)

    @property
    def open_metrics(self) -> bool:
        """Whether /metrics answers without a token."""
        if self.metrics_without_token is None:
            return self.http_host in LOOPBACK_HOSTS
        return self.metrics_without_token


def load_settings() -> Settings:
    """From the environment and, where it names one, the file of `store_url`. Raises Refused, naming what is wrong."""
    try:
        settings = Settings()
    except ValidationError as error:
        lines = [
            f"EVERTRAIN_{'_'.join(str(part) for part in each['loc']).upper()}: {each['msg']} (got {each['input']!r})"
            for each in error.errors()
        ]
        raise Refused("the server's settings are wrong:\n" + "\n".join(lines)) from error
    if settings.store_url_file is None:
        return settings
    if settings.store_url:
        raise Refused("EVERTRAIN_STORE_URL and EVERTRAIN_STORE_URL_FILE are both set: keep one of them")
    return settings.model_copy(update={"store_url": _read_line(settings.store_url_file)})


def _read_line(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError as error:
        raise Refused(f"EVERTRAIN_STORE_URL_FILE: {path} cannot be read: {error.strerror}") from error


# ---- clients --------------------------------------------------------------------------------------------------------


class _ClientEnvironment(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="EVERTRAIN_", frozen=True, extra="ignore")

    server: str = ""
    token: str = ""
    ca_cert: Path | None = None
    home: Path = Path.home() / ".evertrain"
    context: Path | None = None

    @property
    def context_file(self) -> Path:
        return self.context or self.home / "context"


def home_dir() -> Path:
    """EVERTRAIN_HOME: where `evertrain up` keeps its stack, and clients the context file."""
    return _ClientEnvironment().home.absolute()


@dataclass(frozen=True)
class Connection:
    """Where a server is and who asks. `ca_cert`: PEM file to check the server's certificate against; None: no TLS."""

    server: str  # host:port
    token: str
    ca_cert: Path | None = None

    def __repr__(self) -> str:  # the token never reaches a log through this object
        return f"Connection(server={self.server!r}, ca_cert={self.ca_cert!r})"


def find_connection(server: str = "", token: str = "") -> Connection:
    """From EVERTRAIN_SERVER and EVERTRAIN_TOKEN where the arguments are empty; what they leave open comes from the context
    file. Raises Refused.
    """
    environment = _ClientEnvironment()
    server, token = server or environment.server, token or environment.token
    saved = _read_context(environment.context_file) if not (server and token) else None
    server = server or (saved.server if saved else "")
    # A saved token belongs to the saved server: it is not shown to another one.
    token = token or (saved.token if saved and saved.server == server else "")
    if not server or not token:
        missing = "EVERTRAIN_SERVER" if not server else "EVERTRAIN_TOKEN"
        raise Refused(
            f"no server to talk to: {missing} is not set and {environment.context_file} does not say either. "
            "Start one with `evertrain up`, or set EVERTRAIN_SERVER=host:port and EVERTRAIN_TOKEN"
        )
    saved_ca = saved.ca_cert if saved and saved.server == server else None
    return Connection(server, token, environment.ca_cert or saved_ca)


def save_connection(connection: Connection) -> Path:
    """Write the context file, mode 0600, and answer its path."""
    path = _ClientEnvironment().context_file
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {"server": connection.server, "token": connection.token, "ca_cert": str(connection.ca_cert or "")}
    write_private(path, json.dumps(document) + "\n")
    return path


def forget_connection(server: str) -> None:
    """Remove the context file if it still names that server. One that cannot be read names none, and the next `up` replaces
    it.
    """
    path = _ClientEnvironment().context_file
    try:
        saved = _read_context(path)
    except Refused:
        return
    if saved is not None and saved.server == server:
        path.unlink(missing_ok=True)


def _read_context(path: Path) -> Connection | None:
    try:
        raw = json.loads(path.read_text())
        return Connection(raw["server"], raw["token"], Path(raw["ca_cert"]) if raw.get("ca_cert") else None)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Refused(f"{path} is not a readable context ({error}): remove it, or run `evertrain up` again") from error


def write_private(path: Path, text: str) -> None:
    """Replace a file's text, mode 0600 at every moment; no half of it is ever seen."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
