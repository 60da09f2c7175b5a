"""Retraining: what asks for it is decided on and written down, and what was accepted is carried out, once.

The record of a decision is the only memory. A pass takes each open one a step further; a server that was killed between two
steps finds the record as it was, and takes the step again: the snapshot is taken under the decision's number and the run is
submitted under the trigger's key, so that both are what they were.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from orchestrator.control.challengers import Challengers
from orchestrator.control.commands import Commands, SubmitCommand
from orchestrator.control.journal import before_newest, last_before
from orchestrator.control.model_versions import champion_of
from orchestrator.core.decisions import (
    UNDER_WAY,
    DecisionRecord,
    Order,
    Standing,
    became,
    decided_again,
    draft,
    occasion,
    past,
)
from orchestrator.core.monitors import Monitor
from orchestrator.core.prospects import Proof
from orchestrator.core.retraining import Action, Cause, Decision, Situation, Trigger, decide, due, unlabelled
from orchestrator.core.words import counted
from orchestrator.errors import Conflict, EvertrainError, InvalidSpec, NotFound, Refused, Unavailable
from orchestrator.ports import Clock, ObservationStore, SnapshotStore, Store, TooFewLabels, Wakeups
from orchestrator.spec.retraining import (
    alerts_of,
    columns_of,
    estimates_number,
    label_of,
    newest_rows_of,
    of_images,
    policy_of,
    proof_of,
    retraining_document,
    trials_of,
)
from orchestrator.spec.search import put

log = logging.getLogger(__name__)

TOPIC = "retraining"
PASS_EVERY_S = 2.0
LOOK_BACK = 1000  # retrainings of a model that a decision knows of: a month of them, and more
ATTEMPTS = 20
_SEEN_LIVE = (Cause.DRIFT, Cause.PERFORMANCE)
_COMES_AGAIN = (*_SEEN_LIVE, Cause.DATA_VOLUME)  # under its old key: the others' keys are each of one occasion
_CLOSES = (Action.REFUSE, Action.TELL)
_ALERT_S = 3600.0  # firings of one alert within the same hour are one occasion, however many series fire

_Think = Callable[[DecisionRecord], DecisionRecord | None]  # None: it is right as it is


class Retraining:
    """Safe from several threads. Every method blocks; an event loop calls it in a thread."""

    def __init__(
        self,
        *,
        store: Store,
        commands: Commands,
        observations: ObservationStore,
        snapshots: SnapshotStore,
        challengers: Challengers,
        wakeups: Wakeups,
        clock: Clock,
    ) -> None:
        self._store, self._commands, self._observations = store, commands, observations
        self._snapshots, self._challengers = snapshots, challengers
        self._wakeups, self._clock = wakeups, clock
        self._lock = threading.Lock()  # one decision at a time: each must know what the last one accepted
        self._silent: dict[tuple[str, str], str] = {}  # why a monitor asks for nothing

    # ---- what asks ---------------------------------------------------------------------------------------------------

    def triggered(self, monitor: Monitor, trigger: Trigger, by: str = "") -> DecisionRecord:
        """Decide, and keep the decision. The same trigger told again is the same decision."""
        with self._lock:
            recent = self._store.decisions(monitor.project, monitor.model, limit=LOOK_BACK)
            known = self._store.decisions(monitor.project, monitor.model, accepted=True, limit=LOOK_BACK)
            if trigger.cause in _COMES_AGAIN:
                trigger = occasion(trigger, known, self._seen_at(monitor, trigger))
            if (told := _of(trigger, known) or _of(trigger, _waiting(recent))) is not None:
                return told
            now = self._clock.now()
            decision = decide(trigger, policy_of(monitor.settings), self._situation(monitor, known, now, trigger))
            record = self._kept(monitor, decision, by, now)
        if record not in recent:  # what wakes a pass must be new: a pass asks again for all that is due
            log.info("model %s, %s: %s", record.model, record.decision.because, record.decision.words)
            self._wakeups.notify(TOPIC)
        return record

    def _kept(self, monitor: Monitor, decision: Decision, by: str, now: float) -> DecisionRecord:
        """Under the first record of this trigger and reason, where that was closed and something is to be done now."""
        order = self._order(monitor, decision.trigger) if decision.action is Action.RETRAIN else None
        record = self._store.record_decision(draft(monitor.project, monitor.model, decision, order, by, now))
        if record.standing is not Standing.CLOSED or decision.action in _CLOSES:
            return record
        return self._store.change_decision(decided_again(record, decision, order, now)) or record

    def heard(self, monitor: Monitor, trigger: Trigger) -> None:
        """What the judging loop tells."""
        self.triggered(monitor, trigger)

    def fired(self, name: str, fingerprint: str, labels: Mapping[str, str], starts_at: float) -> None:
        """What Alertmanager tells. `fingerprint` tells the series of one alert apart; to a model they are one occasion."""
        self.alert(name, labels, starts_at)

    def alert(self, name: str, labels: Mapping[str, str], at: float) -> list[DecisionRecord]:
        """An alert fires, since `at`: what was decided for each monitor that retrains for it. Its labels `project` and
        `model` narrow them down, where it has them.
        """
        answers = []
        for monitor in self._store.monitors(labels.get("project") or "*"):
            if labels.get("model", monitor.model) != monitor.model or not self._retrains_for(name, monitor):
                continue
            words = labels.get("summary") or f"alert {name} fires"
            trigger = Trigger(Cause.ALERT, f"alert/{name}/{at // _ALERT_S:.0f}", at, words)
            answers.append(self.triggered(monitor, trigger, by="alert"))
        return answers

    def _retrains_for(self, name: str, monitor: Monitor) -> bool:
        try:
            return name in alerts_of(monitor.settings)
        except InvalidSpec as error:
            self._cannot_ask(monitor, error)
            return False

    def retrain(self, project: str, model: str, *, by: str, reason: str, key: str) -> DecisionRecord:
        """A person asks; the same `key` is the same retraining. Raises NotFound for a model without a monitor."""
        monitor = self._store.monitor(project, model)
        words = f"{by} asked for it" + (f": {reason}" if reason else "")
        return self.triggered(monitor, Trigger(Cause.MANUAL, f"manual/{key}", self._clock.now(), words), by)

    def approve(self, project: str, model: str, number: int, *, by: str) -> DecisionRecord:
        """Let a retraining that waits for approval begin. Idempotent. Raises NotFound, Refused for one that does not wait."""
        monitor = self._store.monitor(project, model)

        def think(record: DecisionRecord) -> DecisionRecord | None:
            if record.accepted and record.order is not None:
                return None
            _insist_on(record, Standing.ASKED)
            return became(
                record, Standing.ACCEPTED, f"approved by {by}", by=by, order=self._order(monitor, record.trigger)
            )

        return self._change(monitor, number, think)

    def reject(self, project: str, model: str, number: int, *, by: str, reason: str) -> DecisionRecord:
        """End one that waits, for approval or for its time. Idempotent. Raises NotFound, Refused."""

        def think(record: DecisionRecord) -> DecisionRecord | None:
            if record.standing is Standing.REJECTED:
                return None
            _insist_on(record, Standing.ASKED, Standing.WAITING)
            return became(record, Standing.REJECTED, f"rejected by {by}" + (f": {reason}" if reason else ""), by=by)

        return self._change(self._store.monitor(project, model), number, think)

    def _change(self, monitor: Monitor, number: int, think: _Think) -> DecisionRecord:
        for _ in range(ATTEMPTS):
            with self._lock:
                record = self._store.decision(monitor.project, monitor.model, number)
                thought = think(record)
                if thought is None:
                    return record
                changed = self._store.change_decision(thought)
            if changed is not None:
                self._wakeups.notify(TOPIC)
                return changed
        raise Conflict(f"decision {number} on {monitor.model} changed {ATTEMPTS} times meanwhile: try again")

    # ---- what follows ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled. A pass that fails is logged, and the next one does its work."""
        async for _ in self._wakeups.wait(TOPIC, PASS_EVERY_S):
            try:
                await asyncio.to_thread(self.one_pass)
            except EvertrainError as error:
                log.error("retraining: trying again in %g s: %s", PASS_EVERY_S, error)

    def one_pass(self) -> None:
        """What time and data alone ask for, and each open decision one step further. Blocks. Raises Unavailable."""
        for monitor in self._store.monitors("*"):
            if not monitor.paused:
                self._ask_whether_due_guarded(monitor)
        for record in self._store.open_decisions():
            self._guarded(record)

    def _guarded(self, record: DecisionRecord) -> None:
        """What is wrong with one retraining ends that one, with words that people see, and no other."""
        try:
            self._advance(record)
        except EvertrainError as error:
            log.error("decision %s stays %s for now: %s", record.name, record.standing, error)
        except Exception as error:
            log.exception("decision %s cannot go on", record.name)
            if record.standing in UNDER_WAY:
                words = f"stopped by an error of the server's own: {error!r}"
                self._store.change_decision(became(record, Standing.FAILED, words, ended_at=self._clock.now()))

    def _ask_whether_due_guarded(self, monitor: Monitor) -> None:
        """One monitor whose settings or journal cannot be read keeps nobody else from being retrained."""
        try:
            self._ask_whether_due(monitor)
        except Unavailable:
            raise
        except EvertrainError as error:
            self._cannot_ask(monitor, error)
        else:
            self._silent.pop((monitor.project, monitor.model), None)

    def _cannot_ask(self, monitor: Monitor, error: EvertrainError) -> None:
        """Said once for as long as it is so: passes are many."""
        key, words = (monitor.project, monitor.model), str(error)
        if self._silent.get(key) != words:
            self._silent[key] = words
            log.error("model %s of project %s is not retrained by itself: %s", monitor.model, monitor.project, words)

    def _ask_whether_due(self, monitor: Monitor) -> None:
        policy = policy_of(monitor.settings)
        if policy.schedule is None and policy.volume_rows is None:
            return
        known = self._store.decisions(monitor.project, monitor.model, accepted=True, limit=LOOK_BACK)
        recent = self._store.decisions(monitor.project, monitor.model, limit=LOOK_BACK)
        scheduled = max((each.trigger.at for each in recent if each.trigger.cause is Cause.SCHEDULE), default=0.0)
        waiting = {each.trigger.cause for each in _waiting(recent)}
        for trigger in due(policy, self._situation(monitor, known, self._clock.now()), monitor.created_at, scheduled):
            if trigger.cause not in waiting:  # one that waits asks for all that came due since
                self.triggered(monitor, trigger)

    def _advance(self, record: DecisionRecord) -> None:
        match record.standing:
            case Standing.WAITING:
                with self._lock:  # until it is written: the next decision must know of what this one accepts
                    changed = self._changed(self._ask_again(record))
            case Standing.ACCEPTED:
                changed = self._changed(self._submit(record))
            case Standing.TRAINING:
                changed = self._changed(self._challengers.follow(record))
            case Standing.PROBATION:
                changed = self._changed(self._challengers.watch(record))
            case _:
                return
        if changed is not None:
            log.info("decision %s is %s: %s", changed.name, changed.standing, changed.told[-1])
            self._wakeups.notify(TOPIC)

    def _changed(self, record: DecisionRecord | None) -> DecisionRecord | None:
        """None: it is right as it is, or another change came first."""
        return self._store.change_decision(record) if record is not None else None

    def _ask_again(self, record: DecisionRecord) -> DecisionRecord | None:
        now, waiting, trigger = self._clock.now(), record.decision, record.trigger
        if waiting.again_at is not None and now < waiting.again_at:
            return None
        monitor = self._store.monitor(record.project, record.model)
        champion = champion_of(self._store.models(record.project, record.model))
        if trigger.version and champion is not None and champion.version != trigger.version:
            words = f"it was seen of version {trigger.version}, and version {champion.version} serves by now"
            return became(record, Standing.CLOSED, words)
        known = self._store.decisions(record.project, record.model, accepted=True, limit=LOOK_BACK)
        if (started := _of(trigger, known)) is not None:
            return became(record, Standing.CLOSED, f"the same as {started.name}: {started.decision.words}")
        decision = decide(trigger, policy_of(monitor.settings), self._situation(monitor, known, now, trigger))
        if decision.because is waiting.because:
            return _still_waiting(record, decision)
        order = self._order(monitor, trigger) if decision.action is Action.RETRAIN else None
        return decided_again(record, decision, order, now)

    def _submit(self, record: DecisionRecord) -> DecisionRecord:
        """Freeze the data and submit the run; done again after a crash, both are answered as they are. Where too few rows
        have a label as yet, it waits for them. What a person let begin fails instead, so that the person hears of it; what a
        person asked for only where no row has one.
        """
        assert record.order is not None  # of what was accepted
        now, asked_for, so_many = self._clock.now(), record.trigger.cause is Cause.MANUAL, ""
        try:
            base = self._base(record.project, record.model, record.order.base)
            profile = self._profile(record.project, record.model, record.order.champion)
            proof = proof_of(base, profile) if record.order.champion else None
            least_rows, so_many = (1, "") if asked_for else self._least_rows(record, proof)
            document, snapshot = self._document(record, record.order, base, profile, least_rows)
            run = self._commands.submit([self._command(record, document)])[0].run
        except TooFewLabels as error:
            words = f"{error}{so_many}"
            if asked_for or record.decision.action is Action.ASK:
                return became(record, Standing.FAILED, words, ended_at=now)
            return decided_again(record, unlabelled(record.trigger, words, now), None, now)
        except (InvalidSpec, Refused, NotFound, Conflict) as error:
            return became(record, Standing.FAILED, f"no run could be submitted: {error}", ended_at=now)
        what = f"sweep {run.id} tries points" if run.kind == "sweep" else f"run {run.id} trains"
        doubts = proof.doubts(snapshot["rows"]) if proof is not None else ""
        words = f"{what} on {counted(snapshot['rows'], 'labelled row')}{doubts}"
        return became(record, Standing.TRAINING, words, run=run.id, data=snapshot)

    def _least_rows(self, record: DecisionRecord, proof: Proof | None) -> tuple[int, str]:
        """With a label, of a retraining that no person asked for; and why, where the run file does not name the number."""
        wanted = policy_of(self._store.monitor(record.project, record.model).settings).least_new_rows
        if proof is None or proof.rows_needed <= wanted:
            return wanted, ""
        return proof.rows_needed, f" (of so many {proof.least_rows} are held out for the proof)"

    def _document(
        self, record: DecisionRecord, order: Order, base: Mapping[str, Any], profile: Mapping[str, Any], least_rows: int
    ) -> tuple[dict[str, Any], Mapping[str, Any]]:
        """The run file, a function of the record alone, and the lineage of its data."""
        label = label_of(base, profile)
        snapshot = self._snapshots.take(
            record.project,
            record.model,
            record.number,
            order,
            label=label,
            number_label=estimates_number(profile),
            columns=columns_of(profile),
            least_rows=least_rows,
        )
        document = retraining_document(
            base,
            base["monitor"],
            source=snapshot.url,
            label=label,
            champion=f"{record.model}@{order.champion}" if order.champion else "",
        )
        return document, {**snapshot.lineage, "url": snapshot.url, "rows": snapshot.rows}

    def _profile(self, project: str, model: str, version: int) -> Mapping[str, Any]:
        """Empty where it has none. `version` 0: there is none."""
        profile = self._store.facts(project, model, version).get("profile") if version else None
        return profile if isinstance(profile, Mapping) else {}

    def _base(self, project: str, model: str, run_id: str) -> dict[str, Any]:
        """The run file that a retraining starts from; of a sweep at the point that its version came from. Raises NotFound."""
        run = self._store.run(project, run_id)
        if run.kind != "sweep":
            return dict(run.spec)
        made = next((each for each in self._store.models(project, model) if each.run_id == run.id), None)
        facts = self._store.facts(made.project, made.name, made.version) if made is not None else {}
        return put(run.spec, (facts.get("sweep") or {}).get("point") or {})

    def _command(self, record: DecisionRecord, document: Mapping[str, Any]) -> SubmitCommand:
        return SubmitCommand(
            project=record.project,
            spec_text=json.dumps(document, sort_keys=True),
            by=record.by or "monitor",
            idempotency_key=f"retrain/{record.model}/{record.trigger.key}",
        )

    # ---- what is known -----------------------------------------------------------------------------------------------

    def _situation(
        self, monitor: Monitor, known: list[DecisionRecord], now: float, trigger: Trigger | None = None
    ) -> Situation:
        """New are rows that no retraining has learned from; of a world that has changed, those that came since then. One that
        failed has learned nothing."""
        learning = [each for each in known if each.order is not None and each.standing is not Standing.FAILED]
        newest = max(learning, key=lambda each: each.at, default=None)  # not the highest number: some wait long
        learned = newest.order.upto if newest is not None and newest.order is not None else 0
        if learned > self._observations.last(monitor.project, monitor.model):
            learned = 0  # of a journal that was lost since: all that there is came later, or from an older copy
        begins_after = self._begins_after(monitor, trigger) if trigger is not None else 0
        learned = max(learned, begins_after)
        costs = [each.cost for each in known if each.cost > 0]
        situation = Situation(
            now=now,
            new_rows=self._observations.rows(monitor.project, monitor.model, since=learned),
            past=past(known),
            expected_cost=costs[0] if costs else self._expected_cost(monitor),
        )
        return self._with_prospects(situation, monitor, begins_after) if trigger is not None else situation

    def _with_prospects(self, situation: Situation, monitor: Monitor, begins_after: int) -> Situation:
        """And with what is known, before it trains, of a retraining on the batches above that number."""
        champion = champion_of(self._store.models(monitor.project, monitor.model))
        if champion is None:
            return situation
        after = max(begins_after, self._before_newest(monitor))
        rows = self._observations.rows(monitor.project, monitor.model, since=after)
        profile = self._profile(monitor.project, monitor.model, champion.version)
        try:
            proof = proof_of(self._base(monitor.project, monitor.model, monitor.run), profile)
        except NotFound:  # its run file: whoever submits it says so
            proof = None
        return replace(situation, rows=rows, proof=proof, of_images=of_images(profile))

    def _expected_cost(self, monitor: Monitor) -> float:
        """Of the first retraining: each of its runs, of which a search has several, costs what one of the model's did."""
        return trials_of(monitor.settings) * self._challengers.cost_of_one(monitor.project, monitor.run)

    def _order(self, monitor: Monitor, trigger: Trigger) -> Order:
        """What the retraining is made of. Where the world has changed it learns from what came since then: the rows of before
        would make a model, and a reference to judge by, of a world that is no more."""
        champion = champion_of(self._store.models(monitor.project, monitor.model))
        return Order(
            base=monitor.run,
            champion=champion.version if champion is not None else 0,
            after=max(self._begins_after(monitor, trigger), self._before_newest(monitor)),
            upto=self._observations.last(monitor.project, monitor.model),
            since=trigger.at if trigger.cause in _SEEN_LIVE else 0.0,
        )

    def _begins_after(self, monitor: Monitor, trigger: Trigger) -> int:
        """The last batch of the world of before; 0 where nothing says that it has changed."""
        if trigger.cause not in _SEEN_LIVE:
            return 0
        return last_before(self._observations, monitor.project, monitor.model, trigger.at)

    def _before_newest(self, monitor: Monitor) -> int:
        """The last batch that is too old to be learned from; 0 where none is."""
        newest = newest_rows_of(monitor.settings)
        return before_newest(self._observations, monitor.project, monitor.model, newest) if newest else 0

    def _seen_at(self, monitor: Monitor, trigger: Trigger) -> float:
        """When it was last seen: what the judging loop tells is `at` its beginning, and seen with the newest judgement."""
        if trigger.cause not in _SEEN_LIVE:
            return trigger.at
        newest = self._store.judgements(monitor.project, monitor.model, limit=1)
        return newest[0].at if newest else trigger.at


def _of(trigger: Trigger, known: list[DecisionRecord]) -> DecisionRecord | None:
    """The retraining that the trigger has started, or asks for."""
    return next((each for each in known if each.trigger.key == trigger.key), None)


def _waiting(records: list[DecisionRecord]) -> list[DecisionRecord]:
    """Each is asked again when its time has come, whoever tells its trigger again meanwhile."""
    return [each for each in records if each.standing is Standing.WAITING]


def _still_waiting(record: DecisionRecord, decision: Decision) -> DecisionRecord | None:
    """None where nothing is new: how many rows are lacking changes by the second, and is told when it is decided again."""
    if decision.again_at == record.decision.again_at:
        return None
    return replace(became(record, Standing.WAITING, decision.words), decision=decision)


def _insist_on(record: DecisionRecord, *standings: Standing) -> None:
    if record.standing not in standings:
        told = f" ({record.told[-1]})" if record.told else ""
        raise Refused(f"decision {record.name} is {record.standing}{told}: only what waits can be approved or rejected")
