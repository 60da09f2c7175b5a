"""The store over SQLite and PostgreSQL: short statements, all writes through the group writer, all reads beside it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Row, Select, and_, delete, func, insert, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite

from orchestrator.core import lifecycle, records
from orchestrator.core.alerts import Firing
from orchestrator.core.aliases import CHAMPION
from orchestrator.core.decisions import DecisionRecord
from orchestrator.core.monitors import KEPT_JUDGEMENTS, Judgement, Monitor, brought, first_champion
from orchestrator.core.records import AliasMove, Checkpoint, Cluster, ModelVersion, Role, RunFilter, Submission, Token
from orchestrator.core.runs import STATE_NAMES, TERMINAL_NAMES, Event, Run
from orchestrator.core.words import in_project
from orchestrator.errors import Conflict, NotFound, Unavailable
from orchestrator.ports import Change, Page, Submitted
from orchestrator.store import codec, listing, migrations, paging
from orchestrator.store.engines import Engines, open_engines
from orchestrator.store.foreign_errors import translated
from orchestrator.store.names import no_decision, refuse_ambiguous
from orchestrator.store.sealing import SecretBox
from orchestrator.store.tables import (
    alerts,
    alias_moves,
    checkpoints,
    clusters,
    decisions,
    events,
    judgements,
    model_aliases,
    model_facts,
    model_versions,
    models,
    monitors,
    runs,
    searches,
    secrets,
    tokens,
    untold_moves,
)
from orchestrator.store.writer import GroupWriter

T = TypeVar("T")
_DOCUMENT = (runs.c.record, runs.c.spec, runs.c.attempts)
_ALIVE = runs.c.state.in_([name for name in STATE_NAMES if name not in TERMINAL_NAMES])
_CHUNK = 500  # bound parameters of one statement; databases limit them


def open_store(url: str, key_file: Path) -> SqlStore:
    """Open the database at `sqlite:///PATH` or `postgresql://...`, made or migrated to the newest tables. `key_file` has,
    or gets, the key that secret values are encrypted with.

    Raises Refused when another server uses the file, a newer version wrote it, or the key is not its own; StorageFailed
    when a file cannot be made, Unavailable when the database does not answer.
    """
    engines = open_engines(url)
    try:
        with translated(engines.where):
            migrations.upgrade(engines.writer)
            box = SecretBox(key_file)
            box.take_over(engines.writer)
    except BaseException:
        engines.close()
        raise
    return SqlStore(engines, box)


class SqlStore:
    """Implements ports.Store. One process at a time owns a SQLite file."""

    def __init__(self, engines: Engines, box: SecretBox) -> None:
        self._engines, self._box = engines, box
        self._writer = GroupWriter(engines.writer, engines.where)
        self._unfinished: dict[str, Run] = {}  # as of the last call: only what changed since is decoded again
        self._unfinished_lock = threading.Lock()
        self._closed = False

    def close(self) -> None:
        """Finish the writes that were begun, refuse all that come after. Idempotent."""
        self._writer.close()
        if not self._closed:
            self._closed = True
            self._engines.close()

    def _read(self, work: Callable[[Connection], T]) -> T:
        if self._closed:
            raise Unavailable(f"{self._engines.where}: the store is closed")
        with translated(self._engines.where), self._engines.reader.connect() as connection:
            return work(connection)

    # ---- runs -------------------------------------------------------------------------------------------------------

    def submit(self, submissions: Sequence[Submission]) -> list[Submitted]:
        with translated(self._engines.where):
            drafts = [_Draft(submission) for submission in submissions]
        return self._writer.write(lambda connection: _submit(connection, drafts))

    def used_keys(self, project: str, keys: Iterable[str]) -> set[str]:
        mine = runs.c.project == project
        query = select(runs.c.idempotency_key).where(mine, runs.c.idempotency_key.in_(list(keys)))
        return self._read(lambda connection: {row[0] for row in connection.execute(query)})

    def run(self, project: str, id_or_name: str) -> Run:
        mine = [] if project == "*" else [runs.c.project == project]
        by_id = select(*_DOCUMENT).where(runs.c.id == id_or_name, *mine)
        by_name = select(*_DOCUMENT).where(runs.c.name == id_or_name, *mine)
        newest = by_name.order_by(runs.c.number.desc()).limit(1)
        owners = select(runs.c.project).distinct().where(runs.c.name == id_or_name, *mine)

        def find(connection: Connection) -> Any:
            row = connection.execute(by_id).first()
            if row is None and project == "*":
                refuse_ambiguous(id_or_name, connection.scalars(owners).all())
            return row or connection.execute(newest).first()

        row = self._read(find)
        if row is None:
            raise NotFound(f"no run {id_or_name!r}{in_project(project)}: see `evertrain list`")
        return codec.run(*row)

    def runs(self, where: RunFilter, *, page: str = "", limit: int = 100) -> Page:
        below, size = paging.number(page), paging.size(limit)
        found = self._read(lambda connection: listing.page(connection, where, below, size + 1))
        shown = found[:size]
        next_page = paging.cursor(shown[-1][0]) if len(found) > size else ""
        return Page(tuple(codec.run_summary(record) for _, record in shown), next_page)

    def trials(self, sweep: str) -> list[Run]:
        query = select(*_DOCUMENT).where(runs.c.id.in_(listing.trials_of(sweep))).order_by(runs.c.number)
        return [codec.run(*row) for row in self._read(lambda connection: connection.execute(query).all())]

    def unfinished(self) -> list[Run]:
        with self._unfinished_lock:
            known = self._unfinished
            self._unfinished = self._read(lambda connection: _unfinished(connection, known))
            return list(self._unfinished.values())

    def count_by_state(self) -> dict[str, int]:
        query = select(runs.c.state, func.count()).group_by(runs.c.state)
        found = self._read(lambda connection: connection.execute(query).all())
        return dict.fromkeys(STATE_NAMES, 0) | {row[0]: row[1] for row in found}

    def apply(self, changes: Sequence[Change]) -> list[Run | None]:
        with translated(self._engines.where):
            moves = [_Move(change) for change in changes]
        return self._writer.write(lambda connection: [_apply(connection, move) for move in moves])

    def events(self, run_id: str, *, after: int = 0, limit: int = 1000) -> list[Event]:
        query = (
            select(events.c.seq, events.c.record)
            .where(events.c.run_id == run_id, events.c.seq > after)
            .order_by(events.c.seq)
            .limit(limit)
        )
        found = self._read(lambda connection: connection.execute(query).all())
        return [codec.event(run_id, seq, record) for seq, record in found]

    def newest_event(self, run_id: str) -> int:
        query = select(func.max(events.c.seq)).where(events.c.run_id == run_id)
        return self._read(lambda connection: connection.execute(query).scalar()) or 0

    def checkpoints(
        self, run_id: str, *, below: tuple[int, int, int] | None = None, limit: int = 1000
    ) -> list[Checkpoint]:
        key = (checkpoints.c.step, checkpoints.c.attempt, checkpoints.c.incarnation)
        mine = [checkpoints.c.run_id == run_id] + ([tuple_(*key) < below] if below is not None else [])
        query = select(checkpoints.c.record).where(*mine).order_by(*(part.desc() for part in key)).limit(limit)
        return [codec.checkpoint(record) for record in self._read(lambda c: c.scalars(query).all())]

    # ---- models -----------------------------------------------------------------------------------------------------

    def models(self, project: str, name: str = "") -> list[ModelVersion]:
        table, aliases = model_versions, model_aliases
        same = [getattr(aliases.c, key) == getattr(table.c, key) for key in ("project", "name", "version")]
        mine = [] if project == "*" else [table.c.project == project]
        if name:
            mine.append(table.c.name == name)
        query = (
            select(table.c.project, table.c.name, table.c.version, table.c.record, aliases.c.alias)
            .outerjoin(aliases, same[0] & same[1] & same[2])
            .where(*mine)
            .order_by(table.c.name, table.c.project, table.c.version.desc(), aliases.c.alias)
        )
        found: dict[tuple[str, str, int], tuple[str, list[str]]] = {}
        for row in self._read(lambda connection: connection.execute(query).all()):
            _, names = found.setdefault((row.project, row.name, row.version), (row.record, []))
            names += [row.alias] if row.alias is not None else []
        return [codec.model(record, tuple(names)) for record, names in found.values()]

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
        draft = AliasMove(project, name, 0, alias, to, 0, at, by, reason, dict(report or {}))
        return self._writer.write(lambda connection: _move_alias(connection, draft, expected, tell))

    def alias_history(self, project: str, name: str, alias: str = "") -> list[AliasMove]:
        query = _moves_of(project, name, alias)
        return [codec.alias_move(record) for record in self._read(lambda c: c.scalars(query).all())]

    def untold_moves(self) -> list[AliasMove]:
        same = [getattr(alias_moves.c, key) == getattr(untold_moves.c, key) for key in ("project", "name", "number")]
        query = select(alias_moves.c.record).join(untold_moves, and_(*same))
        query = query.order_by(untold_moves.c.project, untold_moves.c.name, untold_moves.c.number)
        return [codec.alias_move(record) for record in self._read(lambda c: c.scalars(query).all())]

    def move_told(self, project: str, name: str, number: int) -> None:
        table = untold_moves
        this = (table.c.project == project, table.c.name == name, table.c.number == number)
        self._writer.write(lambda connection: connection.execute(delete(table).where(*this)))

    def standing(self, project: str, alias: str) -> Mapping[str, int]:
        table = model_aliases
        query = select(table.c.name, table.c.version).where(table.c.project == project, table.c.alias == alias)
        return {row.name: row.version for row in self._read(lambda connection: connection.execute(query).all())}

    def facts(self, project: str, name: str, version: int) -> Mapping[str, Any]:
        table = model_facts
        query = select(table.c.fact, table.c.record).where(
            table.c.project == project, table.c.name == name, table.c.version == version
        )

        def work(connection: Connection) -> Mapping[str, Any]:
            _insist_on_version(connection, project, name, version)
            return {row.fact: codec.fact(row.record) for row in connection.execute(query)}

        return self._read(work)

    def put_fact(self, project: str, name: str, version: int, fact: str, value: Any) -> None:
        record = codec.fact_record(value)

        def work(connection: Connection) -> None:
            _insist_on_version(connection, project, name, version)
            _note(connection, project, name, version, fact, record)

        self._writer.write(work)

    # ---- monitors ---------------------------------------------------------------------------------------------------

    def monitor(self, project: str, model: str) -> Monitor:
        where = [monitors.c.model == model] + ([] if project == "*" else [monitors.c.project == project])
        query = select(monitors.c.record, monitors.c.state).where(*where)
        found = [codec.monitor(*row) for row in self._read(lambda connection: connection.execute(query).all())]
        refuse_ambiguous(model, {each.project for each in found}, "monitored model")
        if not found:
            raise NotFound(f"no model {model!r} is watched{in_project(project)}: see `evertrain monitor list`")
        return found[0]

    def monitors(self, project: str) -> list[Monitor]:
        mine = [] if project == "*" else [monitors.c.project == project]
        query = select(monitors.c.record).where(*mine).order_by(monitors.c.model, monitors.c.project)
        return [codec.monitor(record) for record in self._read(lambda connection: connection.scalars(query).all())]

    def put_monitor(self, monitor: Monitor) -> Monitor | None:
        return self.record_judgements(monitor, ())

    def record_judgements(self, monitor: Monitor, judgements: Sequence[Judgement]) -> Monitor | None:
        stored = replace(monitor, revision=monitor.revision + 1)
        with translated(self._engines.where):
            columns = codec.monitor_columns(stored)
        done = self._writer.write(lambda connection: _judged(connection, monitor, columns, judgements))
        return codec.monitor(str(columns["record"]), str(columns["state"])) if done else None

    def judgements(self, project: str, model: str, *, below: int | None = None, limit: int = 100) -> list[Judgement]:
        table = judgements
        mine = [table.c.project == project, table.c.model == model]
        mine += [table.c.number < below] if below is not None else []
        query = select(table.c.record).where(*mine).order_by(table.c.number.desc()).limit(limit)
        return [codec.judgement(record) for record in self._read(lambda c: c.scalars(query).all())]

    # ---- tokens and secrets -----------------------------------------------------------------------------------------

    def add_token(self, token: Token) -> None:
        row = {**vars(token), "role": token.role.value}
        self._writer.write(lambda connection: connection.execute(insert(tokens), row) and None)

    def token_by_hash(self, secret_sha256: str) -> Token | None:
        query = select(tokens).where(tokens.c.secret_sha256 == secret_sha256)
        row = self._read(lambda connection: connection.execute(query).first())
        return _token(row) if row is not None else None

    def tokens(self, project: str) -> list[Token]:
        mine = [] if project == "*" else [tokens.c.project == project]
        query = select(tokens).where(*mine).order_by(tokens.c.created_at, tokens.c.id)
        return [_token(row) for row in self._read(lambda connection: connection.execute(query).all())]

    def revoke_token(self, project: str, token_id: str, at: float) -> None:
        mine = [tokens.c.id == token_id] + ([] if project == "*" else [tokens.c.project == project])
        first = func.coalesce(tokens.c.revoked_at, at)

        def work(connection: Connection) -> None:
            if not connection.execute(update(tokens).where(*mine).values(revoked_at=first)).rowcount:
                raise NotFound(f"no token {token_id!r} in project {project!r}: see `evertrain token list`")

        self._writer.write(work)

    def put_secret(self, project: str, name: str, value: str) -> None:
        with translated(self._engines.where):
            row = {"project": project, "name": name, "value": self._box.seal(value)}
        self._writer.write(lambda connection: _upsert(connection, secrets, row, ("value",)))

    def secrets(self, project: str, names: Iterable[str]) -> dict[str, str]:
        query = select(secrets.c.name, secrets.c.value).where(
            secrets.c.project == project, secrets.c.name.in_(list(names))
        )
        return {row[0]: self._box.open(row[1]) for row in self._read(lambda c: c.execute(query).all())}

    def secret_names(self, project: str) -> list[str]:
        query = select(secrets.c.name).where(secrets.c.project == project).order_by(secrets.c.name)
        return list(self._read(lambda connection: connection.scalars(query).all()))

    def delete_secret(self, project: str, name: str) -> None:
        gone = delete(secrets).where(secrets.c.project == project, secrets.c.name == name)

        def work(connection: Connection) -> None:
            if not connection.execute(gone).rowcount:
                raise NotFound(f"no secret {name!r} in project {project!r}")

        self._writer.write(work)

    # ---- clusters ---------------------------------------------------------------------------------------------------

    def put_cluster(self, cluster: Cluster) -> bool:
        row = {"name": cluster.name, "epoch": cluster.epoch, "record": codec.cluster_record(cluster)}
        older = clusters.c.epoch <= cluster.epoch
        return self._writer.write(lambda connection: _upsert(connection, clusters, row, ("epoch", "record"), older))

    def clusters(self) -> list[Cluster]:
        query = select(clusters.c.record).order_by(clusters.c.name)
        return [codec.cluster(record) for record in self._read(lambda c: c.scalars(query).all())]

    # ---- decisions --------------------------------------------------------------------------------------------------

    def record_decision(self, draft: DecisionRecord) -> DecisionRecord:
        return self._writer.write(lambda connection: _record_decision(connection, draft))

    def change_decision(self, record: DecisionRecord) -> DecisionRecord | None:
        changed = replace(record, revision=record.revision + 1)
        columns = _decision_columns(changed)
        same = (_this_decision(record), decisions.c.revision == record.revision)
        done = update(decisions).where(*same).values(**columns)
        return changed if self._writer.write(lambda connection: connection.execute(done).rowcount) else None

    def decisions(
        self, project: str, model: str, *, accepted: bool = False, below: int | None = None, limit: int = 100
    ) -> list[DecisionRecord]:
        mine = [decisions.c.project == project, decisions.c.model == model]
        mine += [decisions.c.accepted] if accepted else []
        mine += [decisions.c.number < below] if below is not None else []
        query = select(decisions.c.record).where(*mine).order_by(decisions.c.number.desc()).limit(paging.size(limit))
        return [codec.decision(record) for record in self._read(lambda c: c.scalars(query).all())]

    def decision(self, project: str, model: str, number: int) -> DecisionRecord:
        wanted = (decisions.c.project == project, decisions.c.model == model, decisions.c.number == number)
        record = self._read(lambda connection: connection.scalar(select(decisions.c.record).where(*wanted)))
        if record is None:
            raise no_decision(project, model, number)
        return codec.decision(record)

    def open_decisions(self) -> list[DecisionRecord]:
        order = (decisions.c.project, decisions.c.model, decisions.c.number)
        query = select(decisions.c.record).where(decisions.c.pending).order_by(*order)
        return [codec.decision(record) for record in self._read(lambda c: c.scalars(query).all())]

    # ---- alerts -----------------------------------------------------------------------------------------------------

    def firings(self, keys: Iterable[tuple[str, str, float]]) -> dict[tuple[str, str, float], Firing]:
        wanted = list(keys)
        key = tuple_(alerts.c.project, alerts.c.fingerprint, alerts.c.starts_at)
        queries = [
            select(alerts.c.record).where(key.in_(wanted[start : start + _CHUNK]))
            for start in range(0, len(wanted), _CHUNK)
        ]
        found = self._read(lambda connection: [row for each in queries for row in connection.scalars(each)])
        return {each.alert.key: each for each in map(codec.firing, found)}

    def keep_firings(self, firings: Sequence[Firing]) -> None:
        with translated(self._engines.where):
            rows = [_firing_row(each) for each in firings]
        replaced = ("told_at", "record")
        self._writer.write(lambda connection: [_upsert(connection, alerts, row, replaced) for row in rows] and None)

    def alerts_told_at(self) -> float | None:
        newest = select(func.max(alerts.c.told_at))
        told_at: float | None = self._read(lambda connection: connection.scalar(newest))
        return told_at

    def forget_firings(self, before_at: float) -> int:
        gone = delete(alerts).where(alerts.c.told_at < before_at)
        return self._writer.write(lambda connection: connection.execute(gone).rowcount)


# ---- submitting ----------------------------------------------------------------------------------------------------


class _Draft:
    """A submission with its rows: encoded by the caller's thread, before the writer's turn."""

    def __init__(self, submission: Submission) -> None:
        self.submission = submission
        begun = lifecycle.begin(submission)
        columns = codec.run_columns(begun.run)
        self.run = replace(begun.run, spec=codec.stored_spec(columns["spec"]))
        self.row = {
            "id": submission.run_id,
            "project": submission.project,
            "name": submission.name,
            "last_event": len(begun.events),
            "idempotency_key": submission.idempotency_key,
            "spec_sha256": submission.spec_sha256,
            **columns,
        }
        self.events = _event_rows(begun.run.id, 0, begun.events)

    @property
    def search(self) -> dict[str, str] | None:
        """The row that tells a sweep or a trial from other runs."""
        run = self.run
        if run.kind == "run":
            return None
        return {"run_id": run.id, "kind": run.kind, "sweep": run.lineage.sweep if run.lineage is not None else run.id}

    @property
    def key(self) -> tuple[str, str] | None:
        key = self.submission.idempotency_key
        return (self.submission.project, key) if key is not None else None


def _submit(connection: Connection, drafts: list[_Draft]) -> list[Submitted]:
    keyed = _earlier(connection, [draft.key for draft in drafts if draft.key is not None])
    new: list[_Draft] = []
    answers: list[Submitted] = []
    for draft in drafts:
        earlier = keyed.get(draft.key) if draft.key is not None else None
        if earlier is None:
            new.append(draft)
            answers.append(Submitted(draft.run, True))
            if draft.key is not None:
                keyed[draft.key] = (draft.submission.spec_sha256, draft.run)
            continue
        sha256, run = earlier
        if sha256 != draft.submission.spec_sha256:
            raise Conflict(
                f"idempotency key {draft.submission.idempotency_key!r} of project {draft.submission.project!r} was "
                f"used for run {run.id} with another run file: use a new key, or send the same file"
            )
        answers.append(Submitted(run, False))
    if new:
        connection.execute(insert(runs), [draft.row for draft in new])
        connection.execute(insert(events), [row for draft in new for row in draft.events])
        if searched := [draft.search for draft in new if draft.search is not None]:
            connection.execute(insert(searches), searched)
    return answers


def _earlier(connection: Connection, keys: list[tuple[str, str]]) -> dict[tuple[str, str], tuple[str, Run]]:
    """The runs that the keys have made: hash of their documents, and what they are now."""
    found: dict[tuple[str, str], tuple[str, Run]] = {}
    for project in sorted({project for project, _ in keys}):
        wanted = [key for owner, key in keys if owner == project]
        for start in range(0, len(wanted), _CHUNK):
            query = select(runs.c.idempotency_key, runs.c.spec_sha256, *_DOCUMENT).where(
                runs.c.project == project, runs.c.idempotency_key.in_(wanted[start : start + _CHUNK])
            )
            for key, sha256, *document in connection.execute(query):
                found[project, key] = (sha256, codec.run(*document))
    return found


def _event_rows(run_id: str, last: int, drafts: Iterable[Any]) -> list[dict[str, object]]:
    return [
        {"run_id": run_id, "seq": last + count, "record": codec.event_record(draft)}
        for count, draft in enumerate(drafts, 1)
    ]


# ---- changing ------------------------------------------------------------------------------------------------------


class _Move:
    """A change with its columns: encoded by the caller's thread, before the writer's turn."""

    def __init__(self, change: Change) -> None:
        self.change = change
        self.run = replace(change.run, version=change.run.version + 1)
        self.columns = codec.run_columns(self.run)


def _apply(connection: Connection, move: _Move) -> Run | None:
    change, run = move.change, move.run
    changed = (
        update(runs)
        .where(runs.c.id == run.id, runs.c.version == change.run.version)
        .values(last_event=runs.c.last_event + len(change.events), **move.columns)
        .returning(runs.c.last_event)
    )
    last = connection.scalar(changed)
    if last is None:
        return None
    if change.events:
        connection.execute(insert(events), _event_rows(run.id, last - len(change.events), change.events))
    for checkpoint in change.checkpoints:
        row = {key: getattr(checkpoint, key) for key in ("run_id", "step", "attempt", "incarnation")}
        row["record"] = codec.checkpoint_record(checkpoint)
        _upsert(connection, checkpoints, row, ("record",))
    if change.model is not None:
        _register(connection, change.model, change.facts, change.monitor)
    return run


def _register(connection: Connection, draft: ModelVersion, facts: Mapping[str, Any], monitor: Monitor | None) -> None:
    """Give the model its next version; a run that has one in that name keeps it."""
    mine = {"project": draft.project, "name": draft.name}
    table = model_versions
    known = select(table.c.version).where(
        table.c.project == draft.project, table.c.name == draft.name, table.c.run_id == draft.run_id
    )
    if connection.execute(known).first() is not None:
        return
    made = _insert(connection, models).values(**mine, last_version=1)
    counted = made.on_conflict_do_update(
        index_elements=["project", "name"], set_={"last_version": models.c.last_version + 1}
    ).returning(models.c.last_version)
    version = connection.execute(counted).scalar_one()
    record = codec.model_record(replace(draft, version=version))
    connection.execute(insert(table), {**mine, "version": version, "run_id": draft.run_id, "record": record})
    for alias in draft.aliases:
        _move_alias(connection, records.registered_with(draft, version, alias), None)
    for fact, value in facts.items():
        _note(connection, draft.project, draft.name, version, fact, codec.fact_record(value))
    if monitor is not None:
        _watch(connection, monitor, version)


def _watch(connection: Connection, draft: Monitor, version: int) -> None:
    """The champion, where there is none, and the monitor of a model whose newest version is `version`."""
    mine = {"project": draft.project, "model": draft.model}
    table, aliases = monitors, model_aliases
    champion = connection.scalar(
        select(aliases.c.version).where(
            aliases.c.project == draft.project, aliases.c.name == draft.model, aliases.c.alias == CHAMPION
        )
    )
    if champion is None:
        champion = version
        _move_alias(connection, first_champion(draft, version), None)
    query = select(table.c.record, table.c.state).where(*(table.c[key] == value for key, value in mine.items()))
    row = connection.execute(query).first()
    changed = brought(codec.monitor(*row) if row is not None else None, draft, champion)
    if changed is not None:
        columns = codec.monitor_columns(replace(changed, revision=changed.revision + 1))
        _judged(connection, changed, columns, ())


def _judged(connection: Connection, was: Monitor, columns: dict[str, object], drafts: Sequence[Judgement]) -> bool:
    """Compare and set the monitor by the revision that it had, with what was judged. False: nothing was written."""
    mine = {"project": was.project, "model": was.model}
    table = monitors
    known = [table.c[key] == value for key, value in mine.items()]
    if was.revision == 0:
        made = _insert(connection, table).values(**mine, last_judgement=len(drafts), **columns)
        last = connection.scalar(made.on_conflict_do_nothing().returning(table.c.last_judgement))
    else:
        changed = update(table).where(*known, table.c.revision == was.revision)
        changed = changed.values(last_judgement=table.c.last_judgement + len(drafts), **columns)
        last = connection.scalar(changed.returning(table.c.last_judgement))
    if last is None:
        return False
    if drafts:
        numbered = [replace(draft, number=number) for number, draft in enumerate(drafts, last - len(drafts) + 1)]
        rows = [{**mine, "number": each.number, "record": codec.judgement_record(each)} for each in numbered]
        connection.execute(insert(judgements), rows)
        theirs = [judgements.c[key] == value for key, value in mine.items()]
        connection.execute(delete(judgements).where(*theirs, judgements.c.number <= last - KEPT_JUDGEMENTS))
    return True


def _insist_on_version(connection: Connection, project: str, name: str, version: int) -> None:
    table = model_versions
    known = select(table.c.version).where(table.c.project == project, table.c.name == name, table.c.version == version)
    if connection.execute(known).first() is None:
        raise NotFound(f"no version {version} of model {name!r} in project {project!r}")


def _note(connection: Connection, project: str, name: str, version: int, fact: str, record: str) -> None:
    row = {"project": project, "name": name, "version": version, "fact": fact, "record": record}
    _upsert(connection, model_facts, row, ("record",))


def _move_alias(connection: Connection, draft: AliasMove, expected: int | None, tell: bool = False) -> AliasMove | None:
    """The draft as a move, with its number and where the alias stood, written; see ports.Store.move_alias."""
    project, name, alias = draft.project, draft.name, draft.alias
    _insist_on_version(connection, project, name, draft.version)
    mine = {"project": project, "name": name}
    # Held until the end of the transaction, so that two servers on one PostgreSQL move the model's aliases in turn.
    of_model = (models.c.project == project, models.c.name == name)
    connection.execute(select(models.c.last_version).where(*of_model).with_for_update())
    newest = connection.scalar(_moves_of(project, name, alias).limit(1))
    before = codec.alias_move(newest) if newest is not None else None
    stands = before.version if before is not None else 0
    if before is not None and stands == draft.version:
        return before
    if expected not in (None, stands):
        return None
    last = connection.scalar(_moves_of(project, name, "").with_only_columns(alias_moves.c.number).limit(1)) or 0
    move = replace(draft, number=last + 1, before=stands)
    _upsert(connection, model_aliases, {**mine, "alias": alias, "version": move.version}, ("version",))
    row = {**mine, "number": move.number, "alias": alias, "record": codec.alias_move_record(move)}
    connection.execute(insert(alias_moves), row)
    if tell:
        connection.execute(insert(untold_moves), {**mine, "number": move.number})
    return move


def _moves_of(project: str, name: str, alias: str) -> Select[Any]:
    """Newest first; "": of all aliases."""
    mine = [alias_moves.c.project == project, alias_moves.c.name == name]
    mine += [alias_moves.c.alias == alias] if alias else []
    return select(alias_moves.c.record).where(*mine).order_by(alias_moves.c.number.desc())


def _record_decision(connection: Connection, draft: DecisionRecord) -> DecisionRecord:
    mine = (decisions.c.project == draft.project, decisions.c.model == draft.model)
    key, because = draft.key
    known = select(decisions.c.record).where(*mine, decisions.c.key == key, decisions.c.because == because)
    record = connection.scalar(known)
    if record is not None:
        return codec.decision(record)
    last = connection.scalar(select(func.max(decisions.c.number)).where(*mine)) or 0
    made = replace(draft, number=last + 1)
    row = {"project": made.project, "model": made.model, "number": made.number, "key": key, "because": because}
    connection.execute(insert(decisions), {**row, **_decision_columns(made)})
    return made


def _decision_columns(record: DecisionRecord) -> dict[str, Any]:
    """Those that change with it."""
    return {
        "accepted": record.accepted,
        "pending": record.pending,
        "revision": record.revision,
        "record": codec.decision_record(record),
    }


def _this_decision(record: DecisionRecord) -> Any:
    same = (decisions.c.project == record.project, decisions.c.model == record.model)
    return and_(*same, decisions.c.number == record.number)


def _insert(connection: Connection, table: Any) -> Any:
    """An insert that can say ON CONFLICT: both databases can, each through its own dialect."""
    return (sqlite if connection.dialect.name == "sqlite" else postgresql).insert(table)


def _upsert(
    connection: Connection, table: Any, row: dict[str, Any], replaced: tuple[str, ...], where: Any = None
) -> bool:
    """Insert, or replace those columns where `where` holds of the stored row. False: it did not."""
    made = _insert(connection, table).values(**row)
    keys = [column.name for column in table.primary_key]
    done = made.on_conflict_do_update(
        index_elements=keys, set_={name: made.excluded[name] for name in replaced}, where=where
    )
    answered = connection.execute(done.returning(*table.primary_key))  # drivers differ in counting what was not written
    return answered.first() is not None


# ---- reading -------------------------------------------------------------------------------------------------------


def _unfinished(connection: Connection, known: dict[str, Run]) -> dict[str, Run]:
    """Every run that is not over, in the queue's order, decoding only those whose version is not `known`."""
    order = (runs.c.priority.desc(), runs.c.number)
    listed = connection.execute(select(runs.c.id, runs.c.version).where(_ALIVE).order_by(*order)).all()
    changed = [id for id, version in listed if id not in known or known[id].version != version]
    fresh: dict[str, Run] = {}
    for start in range(0, len(changed), _CHUNK):
        wanted: Select[Any] = select(*_DOCUMENT).where(runs.c.id.in_(changed[start : start + _CHUNK]))
        fresh |= {run.id: run for run in (codec.run(*row) for row in connection.execute(wanted))}
    found = {id: fresh.get(id) or known[id] for id, _ in listed}
    return {id: run for id, run in found.items() if not run.terminal}  # one may have ended between the two queries


def _firing_row(firing: Firing) -> dict[str, object]:
    project, fingerprint, starts_at = firing.alert.key
    own = {"project": project, "fingerprint": fingerprint, "starts_at": starts_at, "told_at": firing.told_at}
    return {**own, "record": codec.firing_record(firing)}


def _token(row: Row[Any]) -> Token:
    return Token(**{**row._mapping, "role": Role(row.role)})
