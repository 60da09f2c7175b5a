"""What control asks of the world. Each docstring is the contract that tests/contract holds every implementation to."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from orchestrator.core.alerts import Firing
from orchestrator.core.announcements import Announcement
from orchestrator.core.decisions import DecisionRecord, Order
from orchestrator.core.monitors import Judgement, Monitor
from orchestrator.core.records import (
    AliasMove,
    Checkpoint,
    Cluster,
    EventDraft,
    LogLine,
    LogQuery,
    ModelVersion,
    RunFilter,
    Submission,
    Token,
)
from orchestrator.core.runs import Event, Run
from orchestrator.errors import Refused


class Clock(Protocol):
    def now(self) -> float:
        """Wall clock, seconds since the epoch: for people and for records."""
        ...

    def monotonic_ns(self) -> int:
        """Never goes back: for durations."""
        ...


@dataclass(frozen=True)
class Submitted:
    run: Run
    created: bool  # False: the idempotency key had been used, and this is the run of then


@dataclass(frozen=True)
class Change:
    """A new value of one run with all that belongs to the same moment: written whole or not at all."""

    run: Run  # as it shall be; its `version` is that which was loaded
    events: tuple[EventDraft, ...] = ()
    checkpoints: tuple[Checkpoint, ...] = ()
    model: ModelVersion | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)  # of that model version, by name: JSON values
    monitor: Monitor | None = None  # a draft: what shall watch that model from this version on


@dataclass(frozen=True)
class Page:
    """Runs newest first. `next_page` is empty on the last page."""

    runs: tuple[Run, ...]
    next_page: str


class Store(Protocol):
    """The only truth. Calls block (callers on an event loop use a thread); every one is safe from several threads.

    A call that returned is durable: it survives `kill -9` of the process and loss of power. Raises Unavailable when the
    database cannot be reached: nothing was written, unless the connection broke in the very moment of a commit. A submission
    with an idempotency key and a change by version may be repeated safely.
    """

    def submit(self, submissions: Sequence[Submission]) -> list[Submitted]:
        """Record all in one transaction, each as a Run in Queued(SUBMITTED) with its first event, in order.

        Idempotent by (project, idempotency_key). Raises Conflict, and records none, when a key was used with another
        document (`spec_sha256`).
        """
        ...

    def used_keys(self, project: str, keys: Iterable[str]) -> set[str]:
        """Those of the idempotency keys that a run of the project was submitted with."""
        ...

    def run(self, project: str, id_or_name: str) -> Run:
        """By id, or the newest run of that name. Project "*" looks everywhere. Raises NotFound, and Refused for a name that
        runs of several projects have: a guess could hit another team's run.
        """
        ...

    def runs(self, where: RunFilter, *, page: str = "", limit: int = 100) -> Page:
        """Newest first, by order of recording and not by anybody's clock; a run is seen at most once over the pages, and
        insertions shift nothing. Constant cost at any depth. For that, `spec` and `attempts` of the runs are empty: ask
        `run` for them, and never `apply` a run of a listing. `limit` is held within 1 and 1,000. Raises InvalidSpec for a
        `page` that no answer held.
        """
        ...

    def trials(self, sweep: str) -> list[Run]:
        """The runs of the sweep with this id, whole, in order of recording."""
        ...

    def unfinished(self) -> list[Run]:
        """Every run that is not in a terminal state, by priority (high first), then by submission."""
        ...

    def count_by_state(self) -> dict[str, int]:
        """Number of runs in every state of STATE_NAMES."""
        ...

    def apply(self, changes: Sequence[Change]) -> list[Run | None]:
        """Compare and set: where the stored version is still `change.run.version`, write it with version + 1 and append
        the events; answer the stored run. Otherwise write nothing for that change and answer None: load and think again.
        Changes are independent of one another; all of a call share one transaction.

        A change with a `monitor` makes the version that it registers the model's champion, where there is none, and
        brings the monitor as `core.monitors.brought` has it.
        """
        ...

    def events(self, run_id: str, *, after: int = 0, limit: int = 1000) -> list[Event]:
        """In order of seq, those above `after`."""
        ...

    def newest_event(self, run_id: str) -> int:
        """The highest seq of the run's events; 0 where there is none."""
        ...

    def checkpoints(
        self, run_id: str, *, below: tuple[int, int, int] | None = None, limit: int = 1000
    ) -> list[Checkpoint]:
        """Newest step first, those whose key is lower than `below`."""
        ...

    def models(self, project: str, name: str = "") -> list[ModelVersion]:
        """By name, then newest version first."""
        ...

    def move_alias(
        self,
        project: str,
        name: str,
        alias: str,
        to: int,
        *,
        expected: int | None = None,
        at: float,
        by: str,
        reason: str,
        report: Mapping[str, Any] | None = None,
        tell: bool = False,
    ) -> AliasMove | None:
        """Compare and set: where `alias` stands on version `expected` (0: nowhere; None: wherever it stands), move it to
        version `to` and append to the model's history, in one transaction; answer the move. `tell`: in the same transaction
        it becomes one of `untold_moves`. None: it stands elsewhere, and
        nothing was written. Where it stands on `to` already, nothing is written and the newest of its moves is answered, so
        that a move may be repeated. Raises NotFound for a version that there is not.
        """
        ...

    def alias_history(self, project: str, name: str, alias: str = "") -> list[AliasMove]:
        """Newest first; "": of all aliases of the model. An alias of a version's draft has moved when that was registered.
        Empty where there is no such model, and of aliases that have not moved since histories are kept.
        """
        ...

    def untold_moves(self) -> list[AliasMove]:
        """Those to be told that were not, of every project, by project, name and number."""
        ...

    def move_told(self, project: str, name: str, number: int) -> None:
        """It is no longer one of them. Idempotent."""
        ...

    def standing(self, project: str, alias: str) -> Mapping[str, int]:
        """The version on which the alias stands, of each model of the project that has it."""
        ...

    def facts(self, project: str, name: str, version: int) -> Mapping[str, Any]:
        """What is known of a version beside its record, by name: JSON values. Raises NotFound."""
        ...

    def put_fact(self, project: str, name: str, version: int, fact: str, value: Any) -> None:
        """Set or replace one of them. Raises NotFound."""
        ...

    def monitor(self, project: str, model: str) -> Monitor:
        """Project "*" looks everywhere. Raises NotFound, and Refused for a model that several projects watch."""
        ...

    def monitors(self, project: str) -> list[Monitor]:
        """Those of the project, "*": all; by model, then by project. Their `state`, which may be large, is empty: ask
        `monitor` for it, and never put one of a listing.
        """
        ...

    def put_monitor(self, monitor: Monitor) -> Monitor | None:
        """Compare and set by `revision`: 0 inserts what is not there. Answers it as stored, with the next revision; None:
        another change came first, and nothing was written.
        """
        ...

    def record_judgements(self, monitor: Monitor, judgements: Sequence[Judgement]) -> Monitor | None:
        """`put_monitor` together with what was judged, in their order: all of it or, where it answers None, nothing. The
        newest KEPT_JUDGEMENTS of a monitor are kept.
        """
        ...

    def judgements(self, project: str, model: str, *, below: int | None = None, limit: int = 100) -> list[Judgement]:
        """Newest first, those whose number is lower than `below`; none of a monitor that is not there."""
        ...

    def add_token(self, token: Token) -> None: ...

    def token_by_hash(self, secret_sha256: str) -> Token | None: ...

    def tokens(self, project: str) -> list[Token]:
        """Those of the project; "*": all."""
        ...

    def revoke_token(self, project: str, token_id: str, at: float) -> None:
        """Idempotent. Raises NotFound."""
        ...

    def put_secret(self, project: str, name: str, value: str) -> None: ...

    def secrets(self, project: str, names: Iterable[str]) -> dict[str, str]:
        """Values of those that exist."""
        ...

    def secret_names(self, project: str) -> list[str]: ...

    def delete_secret(self, project: str, name: str) -> None:
        """Raises NotFound."""
        ...

    def put_cluster(self, cluster: Cluster) -> bool:
        """Insert or replace, unless the stored epoch is higher: then write nothing and answer False."""
        ...

    def clusters(self) -> list[Cluster]: ...

    def record_decision(self, draft: DecisionRecord) -> DecisionRecord:
        """Keep it under the model's next number, and answer it as stored. Idempotent by (project, model, `draft.key`): a
        decision that was first kept under it is answered as it stands now, whatever it was decided to be since.
        """
        ...

    def change_decision(self, record: DecisionRecord) -> DecisionRecord | None:
        """Compare and set: where the stored revision is still `record.revision`, write it with revision + 1 and answer it;
        otherwise write nothing and answer None.
        """
        ...

    def decisions(
        self, project: str, model: str, *, accepted: bool = False, below: int | None = None, limit: int = 100
    ) -> list[DecisionRecord]:
        """Newest first, those whose number is lower than `below`. `accepted`: only those that started a retraining, or ask
        to. `limit` is held within 1 and 1,000.
        """
        ...

    def decision(self, project: str, model: str, number: int) -> DecisionRecord:
        """Raises NotFound."""
        ...

    def open_decisions(self) -> list[DecisionRecord]:
        """Of every project: those with something still to be done, awaited or announced, by project, model and number."""
        ...

    def firings(self, keys: Iterable[tuple[str, str, float]]) -> dict[tuple[str, str, float], Firing]:
        """Those that are kept of the keys (project, fingerprint, start)."""
        ...

    def keep_firings(self, firings: Sequence[Firing]) -> None:
        """Insert each, or replace the one of its key; all or none."""
        ...

    def alerts_told_at(self) -> float | None:
        """When the newest of the kept firings was last told; None where none is kept."""
        ...

    def forget_firings(self, before_at: float) -> int:
        """Delete those last told before that time. How many."""
        ...

    def close(self) -> None: ...


class LogStore(Protocol):
    """Lines of ranks, kept apart from the store. Calls block."""

    def append(self, lines: Sequence[LogLine]) -> None:
        """Idempotent by (run, attempt, source, seq). When it returns, the lines survive the death of the process.
        Beyond a run's size limit the oldest are dropped, with a line in their place that says how many. Raises StorageFailed.
        """
        ...

    def read(
        self, run_id: str, query: LogQuery, *, after: str = "", until: str = "", limit: int = 1000
    ) -> tuple[list[LogLine], str]:
        """Lines in order of arrival, and the cursor to go on from. `query.tail` counts only when `after` is empty; a tail of
        0 answers the log's end. `until`: a cursor behind which nothing is read.
        """
        ...

    def last_seq(self, run_id: str, attempt: int, source: str) -> int:
        """Highest seq kept, 0 for none: where a shipper goes on after a broken connection."""
        ...


class BundleStore(Protocol):
    """Code bundles by content, kept once whoever put them; a project sees those that were put for it. Calls block."""

    def put(self, project: str, data: bytes) -> str:
        """Keep it for the project and answer its sha256 in hex. Idempotent. Raises TooLarge."""
        ...

    def has(self, project: str, sha256: str) -> bool:
        """Whether `get` would find it, without reading it. Counts as a use."""
        ...

    def get(self, project: str, sha256: str) -> bytes:
        """Project "*" looks everywhere. Raises NotFound, of another project's bundle as of one that is not there."""
        ...


@dataclass(frozen=True)
class Observed:
    """What a replica said of live traffic in one go, as it is kept."""

    number: int  # 1, 2, ... in each monitor, in the order of arrival; 0 in a draft: the store counts
    at: float  # received, by the server's clock
    source: str  # the replica
    seq: int  # from 1 in each source
    kind: Literal["rows", "labels", "sketch", "shadow"]  # shadow: what one that stands by would have said
    version: int  # of the model that answered; 0: not known
    rows: int
    data: bytes  # an Arrow IPC stream (`drift/batches.py`); of a sketch, a serialized TableSummary

    @property
    def served(self) -> int:
        """Rows of live traffic: labels are none, and answers in shadow are of rows that are there already."""
        return self.rows if self.kind in ("rows", "sketch") else 0


class ObservationStore(Protocol):
    """Live traffic by monitor, which is a project and a model: a journal that the judging loop reads from a cursor.

    Calls block; every one is safe from several threads. Raises Refused for a project or a model that is no name, and
    StorageFailed.
    """

    def append(self, project: str, model: str, batches: Sequence[Observed]) -> None:
        """Durable when it returns: it survives `kill -9` and loss of power. A (source, seq) that was kept before is dropped
        silently, also one that came out of order; of one source, a seq 512 or more below its highest counts as such. Beyond
        the monitor's size limit the oldest batches go, read or not.
        """
        ...

    def read(self, project: str, model: str, *, after: int, limit_rows: int = 50_000) -> list[Observed]:
        """In order of number, those above `after`: as many as have `limit_rows` rows together, fewer where they are large,
        and one at least where there is any. Numbers that are missing in the answer have gone, and will not come.
        """
        ...

    def rows(self, project: str, model: str, *, since: int = 0) -> int:
        """Rows of the batches above number `since` that are still kept: `Observed.served`."""
        ...

    def last(self, project: str, model: str) -> int:
        """The highest number ever given; 0 for none."""
        ...


@dataclass(frozen=True)
class Snapshot:
    """Labelled rows that stay as they are. `lineage`: JSON, what they are and where they came from."""

    url: str  # of a directory: what `data.source` of a run file may name
    rows: int
    columns: tuple[str, ...]  # features and label
    lineage: Mapping[str, Any]


class TooFewLabels(Refused):
    """Of live rows: a model cannot be trained on them, or not yet."""


class SnapshotStore(Protocol):
    """Training data made of live traffic. Calls block."""

    def take(
        self,
        project: str,
        model: str,
        number: int,
        order: Order,
        *,
        label: str,
        number_label: bool = False,
        columns: Sequence[str] = (),
        least_rows: int = 1,
    ) -> Snapshot:
        """The labelled rows among the batches up to `order.upto`, features in the order of `columns`, by which a model that
        goes on learning knows them, others by their names, and the label as `label`; taken once for each (project, model,
        number), and answered as it was afterwards. `number_label`: it is a number of floating
        point also where all of them are whole, not a class. Raises TooFewLabels where fewer than `least_rows` rows have a
        label, and nothing was taken then; Refused where values of one column cannot be of one type; StorageFailed.
        """
        ...

    def remove(self, project: str, model: str, number: int) -> None:
        """Remove the rows of a snapshot; its lineage stays where it is. Idempotent. Raises StorageFailed."""
        ...


class Webhooks(Protocol):
    """Whoever wants to hear of retrainings and promotions. Calls block."""

    def tell(self, announcement: Announcement) -> bool:
        """Whether every receiver has taken it. Never raises: a receiver that is down is told again later."""
        ...


class Prunable(Protocol):
    """What keeps files for long. Calls block."""

    def prune(self, before_at: float, keep: Container[str]) -> list[str]:
        """Delete what was last used before `before_at`, except of `keep`; the names of what went. Raises StorageFailed."""
        ...


class Wakeups(Protocol):
    """Events only wake; a lost one costs delay, never correctness."""

    def notify(self, topic: str) -> None:
        """Topics: "runs" (something to schedule), "run:<id>", "logs:<id>", "observed" (rows of some monitor)."""
        ...

    def wait(self, topic: str, timeout_s: float) -> AsyncGenerator[None, None]:
        """Yields at once, then after each notification or timeout, whichever is first, until closed."""
        ...
