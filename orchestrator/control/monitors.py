"""The judging loop: what replicas said of live traffic, from each monitor's cursor on, becomes judgements and triggers.

A pass reads batches, judges the windows that they end, and writes the judgements, the cursor and all that is remembered in
one transaction, by the monitor's revision. So whatever is killed, a batch counts once: what was not written is read again.
What reads numbers (numpy, Arrow) is imported in the thread that judges, never by the server's start.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from orchestrator.core.aliases import CHAMPION
from orchestrator.core.monitors import Figures, Judgement, Monitor, Picture, Watched
from orchestrator.core.retraining import Cause, Trigger
from orchestrator.errors import Conflict, EvertrainError
from orchestrator.ports import Clock, ObservationStore, Observed, Store, Wakeups
from orchestrator.spec.monitor import Monitor as Settings

if TYPE_CHECKING:
    from orchestrator.drift.watch import Judged, Reference, Rules, Watch

log = logging.getLogger(__name__)

PASS_EVERY_S = 2.0
AFTER_FAILURE_S = 5.0
BATCH_ROWS = 50_000
UNSAVED_ROWS = 200_000  # that may have to be read again after a crash
UNSAVED_S = 60.0
ALARM_ITEMS = 10_000  # labels in which the probability of a false alarm is held
ATTEMPTS = 20

Triggered = Callable[[Monitor, Trigger], None]


class Unjudgeable(Exception):
    """There is nothing to judge live data against; says why."""


@dataclass
class _Kept:
    """A monitor in memory: ahead of the store by what was read since it was last written."""

    monitor: Monitor
    cursor: int
    watch: Watch | None = None
    unjudgeable: str = ""  # why there is no watch; asked again when the server, or the monitor, starts again
    triggers: list[Trigger] = field(default_factory=list)  # not yet handed over
    unsaved_rows: int = 0
    saved_at: float = 0.0

    def state(self) -> dict[str, Any]:
        from orchestrator.drift.watch_state import saved

        return {
            "cursor": self.cursor,
            "settings": dict(self.monitor.settings),
            "watch": saved(self.watch) if self.watch is not None else None,
            "triggers": [asdict(each) for each in self.triggers],
        }


class Monitors:
    """Safe from several threads; one at a time judges."""

    def __init__(
        self,
        *,
        store: Store,
        observations: ObservationStore,
        clock: Clock,
        wakeups: Wakeups,
        triggered: Triggered,
    ) -> None:
        """`triggered` is told of every trigger, in the thread that judges. It may be told twice, by one key, and again after
        it has raised.
        """
        self._store, self._observations, self._clock, self._wakeups = store, observations, clock, wakeups
        self._triggered = triggered
        self._kept: dict[tuple[str, str], _Kept] = {}
        self._figures: dict[tuple[str, str], Figures] = {}
        self._judging = threading.Lock()
        self._began_at = clock.now()

    async def run(self) -> None:
        """Until cancelled. A pass that fails is logged and tried again: nothing it does is lost by that."""
        async for _ in self._wakeups.wait("observed", PASS_EVERY_S):
            try:
                while await asyncio.to_thread(self.one_pass):
                    pass
                await asyncio.sleep(PASS_EVERY_S / 4)  # each notification is one batch: judge several at once
            except EvertrainError as error:
                log.error("judging failed, trying again in %g s: %s", AFTER_FAILURE_S, error)
                await asyncio.sleep(AFTER_FAILURE_S)

    def one_pass(self) -> bool:
        """A share of what waits, of each monitor. Whether more waits. Blocks. Raises Unavailable, Conflict."""
        with self._judging:
            listed = self._store.monitors("*")
            for key in self._kept.keys() - {(each.project, each.model) for each in listed}:
                del self._kept[key]
            waits = [self._guarded(each) for each in listed]
            return any(waits)

    # ---- for people -------------------------------------------------------------------------------------------------

    def watched(self, project: str, most: int | None = None) -> list[Watched]:
        """The monitors of the project, or of all ("*"), as they stand, by model. Blocks."""
        return [self._seen(each) for each in self._store.monitors(project)[:most]]

    def get(self, project: str, model: str) -> Watched:
        """Blocks. Raises NotFound, Refused for a model that several projects watch."""
        monitor = self._store.monitor(project, model)
        return replace(self._seen(monitor), pictures=self._pictures(monitor))

    def judgements(self, project: str, model: str, *, below: int | None, limit: int) -> list[Judgement]:
        """Newest first. Blocks. Raises NotFound, Refused for a model that several projects watch."""
        monitor = self._store.monitor(project, model)
        return self._store.judgements(monitor.project, monitor.model, below=below, limit=limit)

    def pause(self, project: str, model: str, *, by: str, reason: str = "") -> Watched:
        """Nothing is judged any more; what comes is kept. Idempotent. Raises NotFound, Refused, Conflict."""
        words = f"paused by {by}" + (f": {reason}" if reason else "")
        return self._change(project, model, lambda known: known.paused or words)

    def resume(self, project: str, model: str) -> Watched:
        """Goes on where it stopped. Idempotent. Raises NotFound, Refused, Conflict."""
        changed = self._change(project, model, lambda known: "")
        self._wakeups.notify("observed")
        return changed

    def _change(self, project: str, model: str, paused: Callable[[Monitor], str]) -> Watched:
        for _ in range(ATTEMPTS):
            known = self._store.monitor(project, model)
            wanted = paused(known)
            stored = known if wanted == known.paused else self._store.put_monitor(replace(known, paused=wanted))
            if stored is not None:
                return self._seen(stored)
        raise Conflict(f"the monitor of {model} changed {ATTEMPTS} times while it was being changed: try again")

    def _pictures(self, monitor: Monitor) -> tuple[Picture, ...]:
        from orchestrator.drift.telling import SHOWN, pictures
        from orchestrator.drift.watch_state import newest_window, seasonal

        window = newest_window(monitor.state["watch"]) if monitor.state.get("watch") else None
        if window is None:
            return ()
        try:
            rules = _rules(monitor.settings)
            reference = seasonal(monitor.state["watch"], rules, window.start) or self._reference(monitor, rules).table
        except Unjudgeable:
            return ()
        newest = self._store.judgements(monitor.project, monitor.model, limit=1)
        told = [shown["feature"] for each in newest for shown in each.evidence.get("features", ())]
        return pictures(reference, window.table, told or list(reference.columns)[:SHOWN])

    def _seen(self, monitor: Monitor) -> Watched:
        newest = next(iter(self._store.judgements(monitor.project, monitor.model, limit=1)), None)
        status, words = ("waiting", "nothing was judged yet") if newest is None else (newest.status, newest.words)
        if monitor.paused:
            status, words = "paused", monitor.paused
        key = (monitor.project, monitor.model)
        return Watched(
            monitor.project,
            monitor.model,
            monitor.settings,
            monitor.run,
            monitor.reference,
            monitor.created_at,
            monitor.paused,
            status,
            words,
            self._figures.get(key, Figures()),
            newest,
        )

    # ---- a pass -----------------------------------------------------------------------------------------------------

    def _guarded(self, listed: Monitor) -> bool:
        """What is wrong with one monitor stops that one, with words that people see, and no other."""
        key = (listed.project, listed.model)
        try:
            return self._one(listed)
        except EvertrainError as error:
            self._kept.pop(key, None)
            log.error("monitor of %s/%s: nothing was judged in this pass: %s", *key, error)
        except Exception as error:
            self._kept.pop(key, None)
            log.exception("the monitor of %s/%s stops: its state and what it reads are kept", *key)
            words = f"stopped by an error: {error!r}; `evertrain monitor resume {listed.model}` tries again"
            self._change(listed.project, listed.model, lambda known: known.paused or words)
        return False

    def _one(self, listed: Monitor) -> bool:
        """Whether more waits."""
        key, now = (listed.project, listed.model), self._clock.now()
        if listed.paused:
            self._kept.pop(key, None)
            return False
        kept = self._kept.get(key)
        if kept is None or kept.monitor.revision != listed.revision:
            kept = self._kept[key] = self._load(self._store.monitor(*key), now)
        judged, begun = self._follow_champion(kept, now)
        judged += self._rewound(kept, now)
        if kept.watch is not None:
            kept.watch.expect(self._observations.rows(*key, since=kept.cursor))
        batches = self._observations.read(*key, after=kept.cursor, limit_rows=BATCH_ROWS)
        for batch in batches:
            judged += self._take(kept, batch, now)
            kept.cursor = batch.number
        behind = self._observations.rows(*key, since=kept.cursor)
        if kept.watch is not None and not behind:
            judged += [*kept.watch.passed(now), *kept.watch.silent(self._began_at, now)]
        kept.triggers += [each for one in judged for each in one.triggers]
        if judged or begun or kept.unsaved_rows > UNSAVED_ROWS or (batches and now - kept.saved_at > UNSAVED_S):
            self._save(kept, [each.judgement for each in judged], now)
        self._hand_over(kept, now)
        self._figures[key] = _figures(kept, behind)
        return behind > 0

    def _load(self, monitor: Monitor, now: float) -> _Kept:
        """As it was last written. A file that says something else than its state begins the watch anew."""
        from orchestrator.drift.watch_state import restored

        state = monitor.state
        triggers = [_trigger(each) for each in state.get("triggers", ())]
        kept = _Kept(monitor, state.get("cursor", 0), triggers=triggers, saved_at=now)
        if state.get("watch") and state.get("settings") == monitor.settings:
            rules = _rules(monitor.settings)
            kept.watch = restored(state["watch"], self._reference(monitor, rules), rules)
        return kept

    def _rewound(self, kept: _Kept, now: float) -> list[Judged]:
        """Where the journal ends before the cursor, its disk was lost or an older copy restored: what comes has numbers that
        were judged already, and is judged from the journal's end on.
        """
        last = self._observations.last(kept.monitor.project, kept.monitor.model)
        if last >= kept.cursor:
            return []
        words = (
            f"blind: the journal of observations ends with batch {last}, and {kept.cursor} were judged: it was lost, or an "
            f"older copy was restored; judging goes on with batch {last + 1}"
        )
        log.warning("monitor of %s/%s: %s", kept.monitor.project, kept.monitor.model, words)
        kept.cursor = last
        return [_blind(words, now)]

    def _follow_champion(self, kept: _Kept, now: float) -> tuple[list[Judged], bool]:
        """Where another version serves now, or nothing was watched yet, the watch begins anew. Whether it did."""
        monitor = kept.monitor
        versions = self._store.models(monitor.project, monitor.model)
        champion = next((each.version for each in versions if CHAMPION in each.aliases), monitor.reference)
        if champion == monitor.reference and (kept.watch is not None or kept.unjudgeable):
            return [], False
        from orchestrator.drift.watch import Watch

        counts = kept.watch.counts if kept.watch is not None else None
        kept.monitor = replace(monitor, reference=champion)
        kept.watch, kept.unjudgeable = None, ""
        try:
            rules = _rules(monitor.settings)
            kept.watch = Watch.begin(self._reference(kept.monitor, rules), rules, now, counts)
        except Unjudgeable as error:
            kept.unjudgeable = str(error)
            log.warning("monitor of %s/%s: %s", monitor.project, monitor.model, error)
            return [_blind(str(error), now)], True
        log.info("monitor of %s/%s: judges against version %d", monitor.project, monitor.model, champion)
        return [], True

    def _reference(self, monitor: Monitor, rules: Rules) -> Reference:
        """Raises Unjudgeable."""
        from orchestrator.drift.batches import OURS
        from orchestrator.drift.reference import ProfileError, read_calibration, read_looks, read_profile, read_rows
        from orchestrator.drift.watch import Reference

        facts = self._store.facts(monitor.project, monitor.model, monitor.reference)
        profile = facts.get("profile")
        if not isinstance(profile, Mapping):
            raise Unjudgeable(
                f"blind: version {monitor.reference} has no profile that live data could be judged against"
            )
        try:
            table, calibration = read_profile(profile), read_calibration(profile)
            rows = read_rows(profile, rules.features)
        except ProfileError as error:
            raise Unjudgeable(f"blind: version {monitor.reference}: {error}") from error
        if rules.features is not None:
            kept = {name: each for name, each in table.columns.items() if name in rules.features or name in OURS}
            table = replace(table, columns=kept)
        deviation = (profile.get("label") or {}).get("deviation") if not profile.get("predictions") else None
        return Reference(monitor.reference, table, calibration, deviation, rows, read_looks(profile))

    def _take(self, kept: _Kept, batch: Observed, now: float) -> list[Judged]:
        from orchestrator.drift.batches import BatchError, read_batch
        from orchestrator.drift.sketches import CategorySummary, SketchError, TableSummary

        kept.unsaved_rows += batch.rows
        watch = kept.watch
        if watch is None:
            return []
        if batch.kind == "shadow":
            return []
        if batch.version not in (0, watch.reference.version):
            watch.counts.other_versions += batch.rows
            return []
        try:
            if batch.kind == "sketch":
                return watch.sketch(TableSummary.from_bytes(batch.data), batch.at, now)
            columns = watch.reference.table.columns
            texts = {name for name, each in columns.items() if isinstance(each, CategorySummary)}
            read = read_batch(batch.data, batch.at, texts)
            return (watch.rows if batch.kind == "rows" else watch.labels)(read, batch.at, now)
        except (BatchError, SketchError) as error:
            watch.counts.malformed += 1
            log.warning("monitor of %s: batch %d of %s: %s", kept.monitor.model, batch.number, batch.source, error)
            return []

    def _save(self, kept: _Kept, judgements: Sequence[Judgement], now: float) -> None:
        stored = self._store.record_judgements(replace(kept.monitor, state=kept.state()), judgements)
        if stored is None:  # it was paused, or a run file changed it: read again from what is written
            del self._kept[kept.monitor.project, kept.monitor.model]
            kept.triggers.clear()
            return
        for each in judgements:
            log.info("monitor of %s/%s: %s", stored.project, stored.model, each.words)
        kept.monitor, kept.unsaved_rows, kept.saved_at = replace(stored, state={}), 0, now

    def _hand_over(self, kept: _Kept, now: float) -> None:
        """Triggers that are written with their judgements; they are told again until that they were told is written, too."""
        if not kept.triggers:
            return
        for trigger in kept.triggers:
            self._triggered(kept.monitor, trigger)
        kept.triggers.clear()
        self._save(kept, (), now)


def _rules(settings: Mapping[str, Any]) -> Rules:
    """Raises Unjudgeable for what this version cannot read."""
    from orchestrator.drift.detectors import FalseAlarms
    from orchestrator.drift.verdicts import Policy
    from orchestrator.drift.watch import Rules
    from orchestrator.drift.windows import Cut

    try:
        parsed = Settings.model_validate(settings)
    except ValidationError as error:
        raise Unjudgeable(f"blind: the section monitor cannot be read: {error.errors()[0]['msg']}") from error
    window, judge = parsed.window, parsed.judge
    alpha = judge.false_alarms / 2  # one half for the windows, one for the labels
    return Rules(
        Cut(window.by, window.rows, window.length, window.late or 0.0),
        Policy(alpha, judge.persistence, window.minimum, judge.least_effect),
        FalseAlarms(alpha, ALARM_ITEMS),
        judge.error_shift,
        frozenset(parsed.features) if parsed.features is not None else None,
        parsed.detect.concept,
        parsed.detect.multivariate,
        parsed.detect.embeddings,
        window.season,
        3600.0 * parsed.retrain.utc_offset if parsed.retrain is not None else 0.0,
    )


def _blind(words: str, now: float) -> Judged:
    from orchestrator.drift.verdicts import Status
    from orchestrator.drift.watch import Judged

    return Judged(Judgement(0, now, now, now, 0, Status.BLIND.value, 0, words))


def _trigger(state: Mapping[str, Any]) -> Trigger:
    return Trigger(**{**state, "cause": Cause(state["cause"])})


def _figures(kept: _Kept, behind: int) -> Figures:
    watch = kept.watch
    if watch is None:
        return Figures(behind_rows=behind)
    return Figures(
        **asdict(watch.counts),
        unknown_labels=watch.joining.unknown,
        late_rows=watch.windows.late,
        judged=watch.history.judged,
        behind_rows=behind,
    )
