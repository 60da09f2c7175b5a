"""What a retraining made: its run is followed to the end, its version judged against the champion, and promoted or not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from orchestrator import spec
from orchestrator.control.commands import Commands, SubmitCommand
from orchestrator.control.live_answers import LiveAnswers
from orchestrator.control.model_versions import champion_of
from orchestrator.control.promotions import Promotions
from orchestrator.core import lifecycle, money, probation
from orchestrator.core.aliases import CHAMPION, stands_on, stood_before
from orchestrator.core.decisions import DecisionRecord, Standing, became
from orchestrator.core.money import Prices
from orchestrator.core.probation import Answers
from orchestrator.core.records import AliasMove, ModelVersion
from orchestrator.core.runs import Run, Succeeded
from orchestrator.errors import Conflict, InvalidSpec, NotFound, Refused
from orchestrator.ports import Clock, ObservationStore, Store
from orchestrator.spec.retraining import measuring_document
from trainers.contract import found

if TYPE_CHECKING:
    from orchestrator.drift.proving import Judgement

FACT = "retraining"
"""Of a version: which decision made it, of what data, and how it was judged."""
BY = "retraining"


class Challengers:
    """Every method blocks, and may be called again for the same record: what was done is done once. Receivers of webhooks
    hear of the decision's steps, and not of the alias's moves beside them.
    """

    def __init__(
        self,
        *,
        store: Store,
        commands: Commands,
        promotions: Promotions,
        observations: ObservationStore,
        clock: Clock,
        prices: Prices,
    ) -> None:
        self._store, self._commands, self._promotions = store, commands, promotions
        self._observations, self._clock, self._prices = observations, clock, prices
        self._live = LiveAnswers(observations)

    def follow(self, record: DecisionRecord) -> DecisionRecord | None:
        """The record once its run is over; None while it is not."""
        run = self._store.run(record.project, record.run)
        if not run.terminal:
            return None
        ended = {"ended_at": self._clock.now(), "cost": record.cost + self._cost_of(run)}
        if not isinstance(run.state, Succeeded):
            words = f"run {run.id} ended {run.state.kind}: {run.state.reason.message}"
            return became(record, Standing.FAILED, words, **ended)
        versions = self._store.models(record.project, record.model)
        version = next((each for each in versions if each.run_id == run.id), None)
        if version is None:
            return became(record, Standing.FAILED, f"run {run.id} registered no version: it sealed nothing", **ended)
        if (trial := self._unmeasured(run, version)) is not None:
            return self._measured(record, version, trial, ended)
        return self._prove(record, version, ended)

    def _unmeasured(self, run: Run, version: ModelVersion) -> Run | None:
        """The best trial of a sweep where it left no comparison, for it was ended early."""
        facts = self._store.facts(version.project, version.name, version.version)
        best = facts.get("sweep") or {}
        if run.kind != "sweep" or spec.PROOF not in run.spec or "proof" in facts or not best.get("run"):
            return None
        return self._store.run(version.project, str(best["run"]))

    def _measured(
        self, record: DecisionRecord, version: ModelVersion, trial: Run, ended: Mapping[str, Any]
    ) -> DecisionRecord:
        """The retraining goes on with one run more, which trains nothing, and whose version is the challenger."""
        seal = found(version.checkpoint, None)
        if seal is None:
            words = f"{version.checkpoint} is no checkpoint, and the best trial of sweep {record.run} was ended early"
            return became(record, Standing.FAILED, words, **ended)
        document = measuring_document(trial.spec, name=record.model, checkpoint=seal.checkpoint, step=seal.step)
        command = SubmitCommand(
            project=record.project,
            spec_text=json.dumps(document, sort_keys=True),
            by=record.by or "monitor",
            idempotency_key=f"retrain/{record.model}/{record.trigger.key}/measured",
        )
        try:
            run = self._commands.submit([command])[0].run
        except (InvalidSpec, Refused, NotFound, Conflict) as error:
            return became(record, Standing.FAILED, f"its best trial cannot be measured: {error}", **ended)
        words = f"sweep {record.run} has ended; its best trial was ended early, and run {run.id} measures it"
        return became(record, Standing.TRAINING, words, run=run.id, cost=ended["cost"])

    def watch(self, record: DecisionRecord) -> DecisionRecord | None:
        """The record once its probation is over; None while it is not."""
        project, model, version = record.project, record.model, record.version
        versions = self._store.models(project, model)
        champion = champion_of(versions)
        if champion is None or champion.version != version:
            return self._superseded(record)
        wanted = self._promotions.wanted(champion).probation
        policy = probation.Policy(wanted.length or 0.0, wanted.drop, wanted.false_alarms)
        since = self._live.of(project, model, version, record.served_from)
        verdict = probation.judge(record.promoted_at or 0.0, self._clock.now(), record.proven, since, policy)
        if verdict.standing is probation.Standing.WATCHING:
            return None
        if verdict.standing is probation.Standing.PASSED:
            self._live.forget(project, model, version)
            return became(record, Standing.PROMOTED, f"version {version} stays champion: {verdict.words}")
        return self._take_back(record, verdict.words)

    def _take_back(self, record: DecisionRecord, words: str) -> DecisionRecord:
        try:
            move = self._promotions.roll_back(
                record.project, record.model, by=BY, reason=words, expected=record.version, tell=False
            )
        except Conflict as error:
            return became(record, Standing.PROMOTED, str(error))
        except (Refused, NotFound) as error:
            return became(record, Standing.PROMOTED, f"version {record.version} {words}, and stays champion: {error}")
        return self._taken_back(record, move)

    def _superseded(self, record: DecisionRecord) -> DecisionRecord:
        """Its version serves no longer: taken back here, before that could be noted, or moved by somebody else."""
        newest, *earlier = self._store.alias_history(record.project, record.model, CHAMPION)
        # Forwards, it is the next retraining that has moved it.
        if newest.by == BY and newest.before == record.version and newest.version == stood_before(earlier):
            return self._taken_back(record, newest)
        self._live.forget(record.project, record.model, record.version)
        words = f"its probation ends: {newest.by} made version {newest.version} champion ({newest.reason})"
        return became(record, Standing.PROMOTED, words)

    def _taken_back(self, record: DecisionRecord, move: AliasMove) -> DecisionRecord:
        self._live.forget(record.project, record.model, record.version)
        return became(record, Standing.ROLLED_BACK, f"version {move.version} is champion again: {move.reason}")

    def cost_of_one(self, project: str, run_id: str) -> float:
        """Of a run, or of one trial of a sweep, in the server's currency; 0 where nothing is known of it, or of prices."""
        try:
            run = self._store.run(project, run_id)
        except NotFound:
            return 0.0
        trials = len(self._store.trials(run.id)) if run.kind == "sweep" else 1
        return self._cost_of(run) / max(1, trials)

    def _cost_of(self, run: Run) -> float:
        """A sweep holds nothing: its trials do."""
        if run.kind == "sweep":
            return sum(self._cost_of(each) for each in self._store.trials(run.id))
        shape = spec.stored_shape(run.spec)
        ledger = lifecycle.ledger(run, workers=shape.workers, now=self._clock.now())
        price = money.cost(shape, self._prices, ledger)
        return price.amount if price is not None else 0.0

    def _prove(self, record: DecisionRecord, version: ModelVersion, ended: Mapping[str, Any]) -> DecisionRecord:
        """Judge the comparison that the run left, and move the alias where it holds."""
        history = self._store.alias_history(record.project, record.model, CHAMPION)
        promoted = stands_on(history) == version.version  # before, by a server that was killed then
        judgement = self._promotions.judged(version, stood_before(history) if promoted else stands_on(history))
        self._note(record, version, judgement)
        ended = {**ended, "version": version.version}
        try:
            move = self._promotions.promote(version, by=BY, reason=f"decision {record.number}", tell=False)
        except (Refused, Conflict) as error:
            return became(record, Standing.KEPT, str(error), **ended)
        proven = _proven(judgement)
        unwatched = "" if proven.rows else f"; {probation.UNWATCHED}"
        return became(
            record,
            Standing.PROBATION,
            f"version {version.version} is champion: {move.reason}{unwatched}",
            promoted_at=move.at,
            proven=proven,
            served_from=self._observations.last(record.project, record.model),
            **ended,
        )

    def _note(self, record: DecisionRecord, version: ModelVersion, judgement: Judgement) -> None:
        value = {
            "decision": record.number,
            "cause": record.trigger.cause,
            "words": record.trigger.words,
            "run": record.run,
            "champion": record.order.champion if record.order is not None else 0,
            "data": dict(record.data),
            "judgement": judgement.report(),
        }
        self._store.put_fact(version.project, version.name, version.version, FACT, value)


def _proven(judgement: Judgement) -> Answers:
    """The challenger's own answers in its proof: what its live ones are held to. None where it was judged by another metric
    than accuracy: labels that come live say only whether it was right.
    """
    gain = next((each for each in judgement.findings if each.what == "gain"), None)
    if judgement.metric != "accuracy" or gain is None or gain.challenger is None:
        return Answers(0, 0)
    return Answers(gain.rows, round(gain.rows * (1.0 - gain.challenger)))
