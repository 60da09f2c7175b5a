"""The store without a disk: for tests of whatever stands on a store. Held to the same contract suite, durability apart."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from orchestrator.core import lifecycle
from orchestrator.core.alerts import Firing
from orchestrator.core.aliases import CHAMPION
from orchestrator.core.decisions import DecisionRecord
from orchestrator.core.monitors import KEPT_JUDGEMENTS, Judgement, Monitor, brought, first_champion
from orchestrator.core.records import (
    AliasMove,
    Checkpoint,
    Cluster,
    EventDraft,
    ModelVersion,
    RunFilter,
    Submission,
    Token,
    registered_with,
)
from orchestrator.core.runs import STATE_NAMES, Event, Run
from orchestrator.core.words import in_project
from orchestrator.errors import Conflict, NotFound
from orchestrator.ports import Change, Page, Submitted
from orchestrator.store import codec, paging
from orchestrator.store.names import no_decision, refuse_ambiguous


class MemoryStore:
    """Implements ports.Store."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._runs: dict[str, Run] = {}  # in the order of submission
        self._numbers: dict[str, int] = {}
        self._keys: dict[tuple[str, str], tuple[str, str]] = {}  # to hash of the document, and run id
        self._events: dict[str, list[Event]] = {}
        self._checkpoints: dict[str, dict[tuple[int, int, int], Checkpoint]] = {}
        self._models: dict[tuple[str, str], list[ModelVersion]] = {}
        self._facts: dict[tuple[str, str, int], dict[str, Any]] = {}  # one entry for each version
        self._monitors: dict[tuple[str, str], Monitor] = {}
        self._judgements: dict[tuple[str, str], list[Judgement]] = {}
        self._moves: dict[tuple[str, str], list[AliasMove]] = {}  # oldest first
        self._untold: set[tuple[str, str, int]] = set()  # moves, by project, name and number
        self._tokens: dict[str, Token] = {}
        self._secrets: dict[tuple[str, str], str] = {}
        self._clusters: dict[str, Cluster] = {}
        self._decisions: dict[tuple[str, str], list[DecisionRecord]] = {}  # by project and model, in order of number
        self._first_decided: dict[tuple[str, str, str, str], int] = {}  # place there, by project, model, key and reason
        self._firings: dict[tuple[str, str, float], Firing] = {}

    def close(self) -> None:
        """Nothing to let go of."""

    # ---- runs -------------------------------------------------------------------------------------------------------

    def submit(self, submissions: Sequence[Submission]) -> list[Submitted]:
        with self._lock:
            self._refuse(submissions)
            return [self._submit(submission) for submission in submissions]

    def _refuse(self, submissions: Sequence[Submission]) -> None:
        """Raises Conflict before anything of the batch is recorded."""
        documents = {key: sha256 for key, (sha256, _) in self._keys.items()}
        ids = set(self._runs)
        for each in submissions:
            key = (each.project, each.idempotency_key) if each.idempotency_key is not None else None
            if key is not None and key in documents:
                if documents[key] != each.spec_sha256:
                    raise Conflict(f"idempotency key {each.idempotency_key!r} was used with another run file")
                continue
            if each.run_id in ids:
                raise Conflict(f"run {each.run_id} exists already")
            ids.add(each.run_id)
            if key is not None:
                documents[key] = each.spec_sha256

    def _submit(self, submission: Submission) -> Submitted:
        key = (submission.project, submission.idempotency_key or "")
        if submission.idempotency_key is not None and key in self._keys:
            return Submitted(self._runs[self._keys[key][1]], False)
        begun = lifecycle.begin(submission)
        run = replace(begun.run, spec=codec.copy_spec(submission.spec))
        self._runs[run.id] = run
        self._numbers[run.id] = len(self._numbers) + 1
        self._record(run.id, begun.events)
        if submission.idempotency_key is not None:
            self._keys[key] = (submission.spec_sha256, run.id)
        return Submitted(run, True)

    def used_keys(self, project: str, keys: Iterable[str]) -> set[str]:
        with self._lock:
            return {key for key in keys if (project, key) in self._keys}

    def run(self, project: str, id_or_name: str) -> Run:
        with self._lock:
            mine = [run for run in self._runs.values() if project in ("*", run.project)]
        for run in mine:
            if run.id == id_or_name:
                return run
        refuse_ambiguous(id_or_name, {run.project for run in mine if run.name == id_or_name})
        for run in reversed(mine):
            if run.name == id_or_name:
                return run
        raise NotFound(f"no run {id_or_name!r}{in_project(project)}: see `evertrain list`")

    def runs(self, where: RunFilter, *, page: str = "", limit: int = 100) -> Page:
        below, size = paging.number(page), paging.size(limit)
        with self._lock:
            found = [
                run
                for run in reversed(self._runs.values())
                if (below is None or self._numbers[run.id] < below) and _shown(run, where)
            ]
        shown = found[:size]
        next_page = paging.cursor(self._numbers[shown[-1].id]) if len(found) > size else ""
        return Page(tuple(replace(run, spec={}, attempts=()) for run in shown), next_page)

    def trials(self, sweep: str) -> list[Run]:
        with self._lock:
            return [run for run in self._runs.values() if run.lineage is not None and run.lineage.sweep == sweep]

    def unfinished(self) -> list[Run]:
        with self._lock:
            alive = [run for run in self._runs.values() if not run.terminal]
        return sorted(alive, key=lambda run: -run.priority)

    def count_by_state(self) -> dict[str, int]:
        counts = dict.fromkeys(STATE_NAMES, 0)
        with self._lock:
            for run in self._runs.values():
                counts[run.state.kind] += 1
        return counts

    def apply(self, changes: Sequence[Change]) -> list[Run | None]:
        with self._lock:
            return [self._apply(change) for change in changes]

    def _apply(self, change: Change) -> Run | None:
        stored = self._runs.get(change.run.id)
        if stored is None or stored.version != change.run.version:
            return None
        run = replace(change.run, version=change.run.version + 1)
        self._runs[run.id] = run
        self._record(run.id, change.events)
        for each in change.checkpoints:
            self._checkpoints.setdefault(run.id, {})[each.key] = each
        if change.model is not None:
            self._register(change.model, change.facts, change.monitor)
        return run

    def _record(self, run_id: str, drafts: Iterable[EventDraft]) -> None:
        kept = self._events.setdefault(run_id, [])
        for each in drafts:
            kept.append(Event(run_id, len(kept) + 1, each.at, each.kind, each.message, dict(each.data)))

    def events(self, run_id: str, *, after: int = 0, limit: int = 1000) -> list[Event]:
        with self._lock:
            return [event for event in self._events.get(run_id, ()) if event.seq > after][:limit]

    def newest_event(self, run_id: str) -> int:
        with self._lock:
            return len(self._events.get(run_id, ()))

    def checkpoints(
        self, run_id: str, *, below: tuple[int, int, int] | None = None, limit: int = 1000
    ) -> list[Checkpoint]:
        with self._lock:
            kept = self._checkpoints.get(run_id, {})
            return [kept[key] for key in sorted(kept, reverse=True) if below is None or key < below][:limit]

    # ---- models -----------------------------------------------------------------------------------------------------

    def _register(self, draft: ModelVersion, facts: Mapping[str, Any], monitor: Monitor | None) -> None:
        versions = self._models.setdefault((draft.project, draft.name), [])
        if any(version.run_id == draft.run_id for version in versions):
            return
        version = len(versions) + 1
        versions.append(replace(draft, version=version, aliases=()))
        self._facts[(draft.project, draft.name, version)] = {fact: _as_stored(value) for fact, value in facts.items()}
        for alias in draft.aliases:
            self._move_alias(registered_with(draft, version, alias), None)
        if monitor is not None:
            self._watch(monitor, version)

    def _watch(self, draft: Monitor, version: int) -> None:
        key = (draft.project, draft.model)
        champion = next((each.version for each in self._models[key] if CHAMPION in each.aliases), None)
        if champion is None:
            champion = version
            self._move_alias(first_champion(draft, version), None)
        known = self._monitors.get(key)
        if (changed := brought(known, draft, champion)) is not None:
            self._monitors[key] = _as_kept(changed)

    def models(self, project: str, name: str = "") -> list[ModelVersion]:
        with self._lock:
            keys = sorted(self._models, key=lambda key: (key[1], key[0]))
            mine = [key for key in keys if project in ("*", key[0]) and name in ("", key[1])]
            return [version for key in mine for version in reversed(self._models[key])]

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
        with self._lock:
            draft = AliasMove(project, name, 0, alias, to, 0, at, by, reason, _as_stored(dict(report or {})))
            return self._move_alias(draft, expected, tell)

    def _move_alias(self, draft: AliasMove, expected: int | None, tell: bool = False) -> AliasMove | None:
        self._facts_of(draft.project, draft.name, draft.version)
        moves = self._moves.setdefault((draft.project, draft.name), [])
        newest = next((each for each in reversed(moves) if each.alias == draft.alias), None)
        stands = newest.version if newest is not None else 0
        if newest is not None and stands == draft.version:
            return newest
        if expected not in (None, stands):
            return None
        move = replace(draft, number=len(moves) + 1, before=stands)
        moves.append(move)
        if tell:
            self._untold.add((move.project, move.name, move.number))
        versions = self._models[draft.project, draft.name]
        for index, each in enumerate(versions):
            kept = {kept for kept in each.aliases if kept != draft.alias}
            kept |= {draft.alias} if each.version == draft.version else set()
            versions[index] = replace(each, aliases=tuple(sorted(kept)))
        return move

    def alias_history(self, project: str, name: str, alias: str = "") -> list[AliasMove]:
        with self._lock:
            moves = self._moves.get((project, name), [])
            return [each for each in reversed(moves) if alias in ("", each.alias)]

    def untold_moves(self) -> list[AliasMove]:
        with self._lock:
            return [self._moves[project, name][number - 1] for project, name, number in sorted(self._untold)]

    def move_told(self, project: str, name: str, number: int) -> None:
        with self._lock:
            self._untold.discard((project, name, number))

    def standing(self, project: str, alias: str) -> Mapping[str, int]:
        with self._lock:
            found = {name: self.alias_history(owner, name, alias) for owner, name in self._moves if owner == project}
        return {name: moves[0].version for name, moves in found.items() if moves}

    def facts(self, project: str, name: str, version: int) -> Mapping[str, Any]:
        with self._lock:
            return dict(self._facts_of(project, name, version))

    def put_fact(self, project: str, name: str, version: int, fact: str, value: Any) -> None:
        with self._lock:
            self._facts_of(project, name, version)[fact] = _as_stored(value)

    def _facts_of(self, project: str, name: str, version: int) -> dict[str, Any]:
        if (project, name, version) not in self._facts:
            raise NotFound(f"no version {version} of model {name!r} in project {project!r}")
        return self._facts[(project, name, version)]

    # ---- monitors ---------------------------------------------------------------------------------------------------

    def monitor(self, project: str, model: str) -> Monitor:
        with self._lock:
            found = [each for each in self._monitors.values() if each.model == model and project in ("*", each.project)]
        refuse_ambiguous(model, {each.project for each in found}, "monitored model")
        if not found:
            raise NotFound(f"no model {model!r} is watched{in_project(project)}: see `evertrain monitor list`")
        return found[0]

    def monitors(self, project: str) -> list[Monitor]:
        with self._lock:
            mine = [replace(each, state={}) for each in self._monitors.values() if project in ("*", each.project)]
        return sorted(mine, key=lambda each: (each.model, each.project))

    def put_monitor(self, monitor: Monitor) -> Monitor | None:
        return self.record_judgements(monitor, ())

    def record_judgements(self, monitor: Monitor, judgements: Sequence[Judgement]) -> Monitor | None:
        key = (monitor.project, monitor.model)
        with self._lock:
            known = self._monitors.get(key)
            if (known.revision if known is not None else 0) != monitor.revision:
                return None
            self._monitors[key] = _as_kept(monitor)
            kept = self._judgements.setdefault(key, [])
            last = kept[-1].number if kept else 0
            kept += [replace(each, number=last + count) for count, each in enumerate(judgements, 1)]
            del kept[:-KEPT_JUDGEMENTS]
            return self._monitors[key]

    def judgements(self, project: str, model: str, *, below: int | None = None, limit: int = 100) -> list[Judgement]:
        with self._lock:
            kept = self._judgements.get((project, model), [])
            return [each for each in reversed(kept) if below is None or each.number < below][:limit]

    # ---- tokens and secrets -----------------------------------------------------------------------------------------

    def add_token(self, token: Token) -> None:
        with self._lock:
            if token.id in self._tokens or self.token_by_hash(token.secret_sha256) is not None:
                raise Conflict(f"token {token.id!r} exists already")
            self._tokens[token.id] = token

    def token_by_hash(self, secret_sha256: str) -> Token | None:
        with self._lock:
            return next((token for token in self._tokens.values() if token.secret_sha256 == secret_sha256), None)

    def tokens(self, project: str) -> list[Token]:
        with self._lock:
            mine = [token for token in self._tokens.values() if project in ("*", token.project)]
        return sorted(mine, key=lambda token: (token.created_at, token.id))

    def revoke_token(self, project: str, token_id: str, at: float) -> None:
        with self._lock:
            token = self._tokens.get(token_id)
            if token is None or project not in ("*", token.project):
                raise NotFound(f"no token {token_id!r} in project {project!r}: see `evertrain token list`")
            if token.revoked_at is None:
                self._tokens[token_id] = replace(token, revoked_at=at)

    def put_secret(self, project: str, name: str, value: str) -> None:
        with self._lock:
            self._secrets[project, name] = value

    def secrets(self, project: str, names: Iterable[str]) -> dict[str, str]:
        with self._lock:
            return {name: self._secrets[project, name] for name in names if (project, name) in self._secrets}

    def secret_names(self, project: str) -> list[str]:
        with self._lock:
            return sorted(name for owner, name in self._secrets if owner == project)

    def delete_secret(self, project: str, name: str) -> None:
        with self._lock:
            if self._secrets.pop((project, name), None) is None:
                raise NotFound(f"no secret {name!r} in project {project!r}")

    # ---- clusters ---------------------------------------------------------------------------------------------------

    def put_cluster(self, cluster: Cluster) -> bool:
        with self._lock:
            stored = self._clusters.get(cluster.name)
            if stored is not None and stored.epoch > cluster.epoch:
                return False
            self._clusters[cluster.name] = cluster
            return True

    def clusters(self) -> list[Cluster]:
        with self._lock:
            return [self._clusters[name] for name in sorted(self._clusters)]

    # ---- decisions --------------------------------------------------------------------------------------------------

    def record_decision(self, draft: DecisionRecord) -> DecisionRecord:
        with self._lock:
            mine = self._decisions.setdefault((draft.project, draft.model), [])
            first = (draft.project, draft.model, *draft.key)
            if (known := self._first_decided.setdefault(first, len(mine))) < len(mine):
                return mine[known]
            mine.append(_decision_as_stored(replace(draft, number=len(mine) + 1)))
            return mine[-1]

    def change_decision(self, record: DecisionRecord) -> DecisionRecord | None:
        with self._lock:
            mine = self._decisions.get((record.project, record.model), [])
            if not 1 <= record.number <= len(mine) or mine[record.number - 1].revision != record.revision:
                return None
            changed = _decision_as_stored(replace(record, revision=record.revision + 1))
            mine[record.number - 1] = changed
            return changed

    def decisions(
        self, project: str, model: str, *, accepted: bool = False, below: int | None = None, limit: int = 100
    ) -> list[DecisionRecord]:
        with self._lock:
            mine = list(reversed(self._decisions.get((project, model), [])))
        found = [each for each in mine if each.accepted or not accepted]
        return [each for each in found if below is None or each.number < below][: paging.size(limit)]

    def decision(self, project: str, model: str, number: int) -> DecisionRecord:
        with self._lock:
            mine = self._decisions.get((project, model), [])
            if not 1 <= number <= len(mine):
                raise no_decision(project, model, number)
            return mine[number - 1]

    def open_decisions(self) -> list[DecisionRecord]:
        with self._lock:
            return [each for key in sorted(self._decisions) for each in self._decisions[key] if each.pending]

    # ---- alerts -----------------------------------------------------------------------------------------------------

    def firings(self, keys: Iterable[tuple[str, str, float]]) -> dict[tuple[str, str, float], Firing]:
        with self._lock:
            return {key: self._firings[key] for key in keys if key in self._firings}

    def keep_firings(self, firings: Sequence[Firing]) -> None:
        with self._lock:
            self._firings.update({each.alert.key: each for each in firings})

    def alerts_told_at(self) -> float | None:
        with self._lock:
            return max((each.told_at for each in self._firings.values()), default=None)

    def forget_firings(self, before_at: float) -> int:
        with self._lock:
            old = [key for key, each in self._firings.items() if each.told_at < before_at]
            for key in old:
                del self._firings[key]
        return len(old)


def _shown(run: Run, where: RunFilter) -> bool:
    return (
        where.project in ("*", run.project)
        and (not where.states or run.state.kind in where.states)
        and run.name.startswith(where.name_prefix)
        and where.queue in ("", run.queue)
        and where.kind in ("", run.kind)
        and not (where.without_trials and run.kind == "trial")
        and where.sweep in ("", run.lineage.sweep if run.lineage is not None else None)
    )


def _as_stored(value: Any) -> Any:
    return codec.fact(codec.fact_record(value))


def _decision_as_stored(record: DecisionRecord) -> DecisionRecord:
    return codec.decision(codec.decision_record(record))


def _as_kept(monitor: Monitor) -> Monitor:
    """With the next revision, and as it is once it has been stored and read."""
    columns = codec.monitor_columns(replace(monitor, revision=monitor.revision + 1))
    return codec.monitor(str(columns["record"]), str(columns["state"]))
