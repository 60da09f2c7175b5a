"""Versions that stand by: what they answer in shadow is counted beside the champion, and the better one serves.

After a restart it is counted again from the journal, from the last comparison on: up to which batch that was is a fact of the
champion. After each move of the champion the count begins with what comes then.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from orchestrator.control.journal import before_newest, last_before
from orchestrator.control.live_answers import words
from orchestrator.control.model_versions import champion_of, find_version
from orchestrator.control.promotions import Promotions
from orchestrator.core import recall
from orchestrator.core.aliases import CHAMPION
from orchestrator.core.monitors import Monitor
from orchestrator.core.records import AliasMove, ModelVersion
from orchestrator.drift.shadows import MOST_REQUESTS, Shadows
from orchestrator.errors import Conflict, EvertrainError
from orchestrator.ports import ObservationStore, Observed, Store, Wakeups
from orchestrator.spec.retraining import recall_of

log = logging.getLogger(__name__)

BY = "recall"
FACT = "recall"
"""Of a version that serves: up to which batch of live rows it was compared with those that stand by."""
PASS_EVERY_S = 2.0


@dataclass
class _Followed:
    cursor: int
    shadows: Shadows
    compared: int = 0  # the batch up to which labelled rows had their comparison


class Recalls:
    """One thread at a time."""

    def __init__(self, store: Store, promotions: Promotions, observations: ObservationStore, wakeups: Wakeups) -> None:
        self._store, self._promotions = store, promotions
        self._observations, self._wakeups = observations, wakeups
        self._followed: dict[tuple[str, str], _Followed] = {}
        self._silent: dict[tuple[str, str], str] = {}  # why a model is not followed

    async def run(self) -> None:
        """Until cancelled. A pass that fails is logged, and the next one does its work."""
        async for _ in self._wakeups.wait("observed", PASS_EVERY_S):
            try:
                await asyncio.to_thread(self.one_pass)
            except EvertrainError as error:
                log.error("recalls: trying again in %g s: %s", PASS_EVERY_S, error)
            await asyncio.sleep(PASS_EVERY_S / 4)  # each notification is one batch

    def one_pass(self) -> None:
        """What has come, of each monitor that asks for it. Blocks. Raises Unavailable."""
        for monitor in self._store.monitors("*"):
            key = (monitor.project, monitor.model)
            try:
                policy = recall_of(monitor.settings)
                if policy is not None and not monitor.paused:
                    self._follow(monitor, policy)
                self._silent.pop(key, None)
            except EvertrainError as error:  # one model's settings or journal: the others are followed all the same
                if self._silent.get(key) != str(error):
                    self._silent[key] = str(error)
                    log.error("no version of %s/%s is recalled: %s", *key, error)

    def _follow(self, monitor: Monitor, policy: recall.Policy) -> None:
        versions = self._store.models(monitor.project, monitor.model)
        if (champion := champion_of(versions)) is None:
            return
        followed = self._current(monitor, champion, versions, policy)
        while batches := self._observations.read(monitor.project, monitor.model, after=followed.cursor):
            for batch in batches:
                _take(batch, followed.shadows)
                followed.cursor = batch.number
                if batch.number <= followed.compared:
                    followed.shadows.compared()  # once more: only answers are wanted whose labels are yet to come
                elif followed.shadows.rows >= policy.rows and self._recalled(monitor, versions, followed, policy):
                    return

    def _current(
        self, monitor: Monitor, champion: ModelVersion, versions: list[ModelVersion], policy: recall.Policy
    ) -> _Followed:
        """Begun anew where another version serves by now, or where the journal was lost; who stands by is looked up again."""
        key, last = (monitor.project, monitor.model), self._observations.last(monitor.project, monitor.model)
        followed = self._followed.get(key)
        moves = self._store.alias_history(monitor.project, monitor.model, CHAMPION)
        if followed is None:
            followed = self._followed[key] = self._resumed(champion, moves, last)
        elif followed.shadows.champion != champion.version or followed.cursor > last:
            followed = self._followed[key] = _Followed(min(followed.cursor, last), Shadows(champion.version, {}))
        made = {each.version: each.created_at for each in versions}
        beside = recall.standing_by(champion.version, recall.last_served(made, moves), policy)
        followed.shadows.made = {each: made[each] for each in beside}
        return followed

    def _resumed(self, champion: ModelVersion, moves: list[AliasMove], last: int) -> _Followed:
        """As a server that ended left it. What it remembered of requests is read again, too, as far as that went back."""
        key = (champion.project, champion.name)
        fact = self._store.facts(*key, champion.version).get(FACT) or {}
        compared = min(int(fact.get("compared", 0)), last)
        newest = before_newest(self._observations, *key, MOST_REQUESTS)
        serves_since = last_before(self._observations, *key, moves[0].at) if moves else 0
        begin = max(serves_since, min(compared, newest) if compared else newest)
        return _Followed(begin, Shadows(champion.version, {}), compared)

    def _recalled(
        self, monitor: Monitor, versions: list[ModelVersion], followed: _Followed, policy: recall.Policy
    ) -> bool:
        """Whether another version serves from now on."""
        champion = followed.shadows.champion
        found = recall.judge(champion, followed.shadows.compared(), policy)
        if not found.version:
            log.debug("model %s: %s", monitor.model, found.words)
            self._store.put_fact(monitor.project, monitor.model, champion, FACT, {"compared": followed.cursor})
            return False
        version = find_version(versions, monitor.project, monitor.model, str(found.version))
        try:
            self._promotions.recall(version, by=BY, reason=found.words, expected=champion)
        except Conflict as error:
            log.info("model %s: %s", monitor.model, error)
        return True


def _take(batch: Observed, shadows: Shadows) -> None:
    from orchestrator.drift.batches import BatchError, read_batch
    from orchestrator.drift.reference import PREDICTION

    if batch.kind == "sketch":
        return
    try:
        read = read_batch(batch.data, batch.at)
    except BatchError:  # the judging loop has counted it
        return
    if read.requests is None:
        return
    if PREDICTION in read.columns and batch.kind != "labels":
        shadows.answered(batch.version, read.requests, words(read.columns[PREDICTION]), batch.at)
    if read.labels is not None and batch.kind != "shadow":
        shadows.labelled(read.requests, words(read.labels))
