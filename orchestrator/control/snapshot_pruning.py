"""Snapshots of retrainings that nothing needs any more are removed; what they were stays with decision and version."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from orchestrator.control.challengers import FACT
from orchestrator.control.model_versions import champion_of
from orchestrator.core import recall, snapshots
from orchestrator.core.aliases import CHAMPION, stood_before
from orchestrator.core.decisions import DecisionRecord
from orchestrator.core.monitors import Monitor
from orchestrator.core.records import AliasMove, ModelVersion
from orchestrator.core.runs import Run
from orchestrator.errors import InvalidSpec, NotFound
from orchestrator.ports import Clock, SnapshotStore, Store
from orchestrator.spec.retraining import recall_of

log = logging.getLogger(__name__)

PAGE = 1000
DAY_S = 86_400.0


class SnapshotPruning:
    def __init__(self, store: Store, snapshots: SnapshotStore, clock: Clock, keep_days: float) -> None:
        self._store, self._snapshots, self._clock = store, snapshots, clock
        self._keep_s = keep_days * DAY_S

    def one_pass(self, unfinished: list[Run]) -> int:
        """How many were removed. Blocks. Raises Unavailable, StorageFailed. Whoever is killed between removing rows and
        noting it removes them once more.
        """
        removed = 0
        for monitor in self._store.monitors("*"):
            try:
                removed += self._pruned(monitor, unfinished)
            except InvalidSpec as error:  # who stands by is not known
                log.error("all snapshots of %s/%s are kept: %s", monitor.project, monitor.model, error)
        return removed

    def _pruned(self, monitor: Monitor, unfinished: list[Run]) -> int:
        taken = [each for each in self._decisions(monitor.project, monitor.model) if snapshots.has_rows(each)]
        uses = self._uses(monitor, unfinished) if taken else {}
        return sum(self._judged(each, uses) for each in taken)

    def _judged(self, record: DecisionRecord, uses: Mapping[str, str]) -> bool:
        now = self._clock.now()
        verdict = snapshots.judge(record, uses, now, self._keep_s)
        if verdict.keep:
            log.debug("the snapshot of %s is kept: %s", record.name, verdict.words)
            return False
        self._snapshots.remove(record.project, record.model, record.number)
        self._store.change_decision(snapshots.pruned(record, verdict.words, now))  # None: noted by the next pass
        self._mark_version(record, verdict.words, now)
        log.info("the snapshot of %s was removed: %s (%s)", record.name, verdict.words, record.data["url"])
        return True

    def _mark_version(self, record: DecisionRecord, words: str, now: float) -> None:
        if not record.version:
            return
        fact = self._store.facts(record.project, record.model, record.version).get(FACT)
        if fact is not None:
            marked = {**fact, "data": snapshots.with_mark(fact["data"], words, now)}
            self._store.put_fact(record.project, record.model, record.version, FACT, marked)

    def _decisions(self, project: str, model: str) -> Iterator[DecisionRecord]:
        below: int | None = None
        while page := self._store.decisions(project, model, accepted=True, below=below, limit=PAGE):
            yield from page
            below = page[-1].number

    def _uses(self, monitor: Monitor, unfinished: list[Run]) -> dict[str, str]:
        """Who needs which data, by their source: runs that have not ended, and versions that serve or may do so again."""
        uses = {_source(each.spec): f"run {each.id} has not ended" for each in unfinished}
        versions = self._store.models(monitor.project, monitor.model)
        moves = self._store.alias_history(monitor.project, monitor.model, CHAMPION)
        whys = _standing_by(monitor, versions, moves)
        whys[stood_before(moves)] = "is what a rollback goes back to"
        whys |= {each.version: f"is {', '.join(each.aliases)}" for each in versions if each.aliases}
        for version in versions:
            if version.version in whys:
                uses[self._source_of(version)] = f"version {version.version} {whys[version.version]}"
        return uses

    def _source_of(self, version: ModelVersion) -> str:
        try:
            return _source(self._store.run(version.project, version.run_id).spec)
        except NotFound:
            return ""


def _standing_by(monitor: Monitor, versions: Sequence[ModelVersion], moves: Sequence[AliasMove]) -> dict[int, str]:
    """Why each version is kept that `monitor.retrain.recall` may let serve again. Raises InvalidSpec."""
    policy, champion = recall_of(monitor.settings), champion_of(versions)
    if policy is None or champion is None:
        return {}
    served = recall.last_served({each.version: each.created_at for each in versions}, moves)
    why = f"stands by to be recalled, as monitor.retrain.recall.versions keeps {policy.versions}"
    return dict.fromkeys(recall.standing_by(champion.version, served, policy), why)


def _source(spec: Mapping[str, Any]) -> str:
    return str((spec.get("data") or {}).get("source") or "")
