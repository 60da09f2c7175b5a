"""What a retraining made: its run is followed to the end, its version judged against the champion, and promoted or not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator import spec
from orchestrator.core import lifecycle, money
from orchestrator.core.aliases import CHAMPION
from orchestrator.core.decisions import DecisionRecord, Standing, became
from orchestrator.core.money import Prices
from orchestrator.core.records import ModelVersion
from orchestrator.core.runs import Run, Succeeded
from orchestrator.errors import NotFound
from orchestrator.ports import Clock, Store

FACT = "retraining"
"""Of a version: which decision made it, of what data, and how it was judged."""
BY = "retraining"


class Challengers:
    """Every method blocks, and may be called again for the same record: what was done is done once."""

    def __init__(self, store: Store, clock: Clock, prices: Prices) -> None:
        self._store, self._clock, self._prices = store, clock, prices

    def follow(self, record: DecisionRecord) -> DecisionRecord | None:
        """The record once its run is over; None while it is not."""
        run = self._store.run(record.project, record.run)
        if not run.terminal:
            return None
        ended = {"ended_at": self._clock.now(), "cost": self._cost_of(run)}
        if not isinstance(run.state, Succeeded):
            words = f"run {run.id} ended {run.state.kind}: {run.state.reason.message}"
            return became(record, Standing.FAILED, words, **ended)
        versions = self._store.models(record.project, record.model)
        version = next((each for each in versions if each.run_id == run.id), None)
        if version is None:
            return became(record, Standing.FAILED, f"run {run.id} registered no version: it sealed nothing", **ended)
        return self._prove(record, version, ended)

    def watch(self, record: DecisionRecord) -> DecisionRecord | None:
        """The record once its probation is over."""
        return None

    def cost(self, project: str, run_id: str) -> float:
        """Of a run, in the server's currency; 0 where nothing is known of it, or of prices."""
        try:
            return self._cost_of(self._store.run(project, run_id))
        except NotFound:
            return 0.0

    def _cost_of(self, run: Run) -> float:
        shape = spec.stored_shape(run.spec)
        ledger = lifecycle.ledger(run, workers=shape.workers, now=self._clock.now())
        found = money.cost(shape, self._prices, ledger)
        return found.amount if found is not None else 0.0

    def _prove(self, record: DecisionRecord, version: ModelVersion, ended: Mapping[str, Any]) -> DecisionRecord:
        """Judge the comparison that the run left, and move the alias where it holds."""
        from orchestrator.drift import proving

        facts = self._store.facts(version.project, version.name, version.version)
        proof = facts.get("proof")
        if proof is None:
            words = f"version {version.version} left no comparison with the champion: it stays a challenger"
            self._note(record, version, {"words": words})
            return became(record, Standing.KEPT, words, version=version.version, **ended)
        try:
            judged = proving.judge(proof, proving.Policy())
        except proving.ProofError as error:
            return became(record, Standing.KEPT, str(error), version=version.version, **ended)
        report = judged.report()
        self._note(record, version, report)
        if not judged.promote:
            return became(record, Standing.KEPT, judged.words, version=version.version, **ended)
        moved = self._store.move_alias(
            version.project,
            version.name,
            CHAMPION,
            version.version,
            expected=judged.champion,
            at=self._clock.now(),
            by=BY,
            reason=judged.words,
            report=report,
        )
        if moved is None:
            words = f"version {judged.champion}, which it was compared with, is champion no longer: it stays a challenger"
            return became(record, Standing.KEPT, words, version=version.version, **ended)
        words = f"version {version.version} is champion: {judged.words}"
        return became(
            record, Standing.PROBATION, words, version=version.version, promoted_at=moved.at, **ended
        )

    def _note(self, record: DecisionRecord, version: ModelVersion, judgement: Mapping[str, Any]) -> None:
        value = {
            "decision": record.number,
            "cause": record.trigger.cause,
            "words": record.trigger.words,
            "run": record.run,
            "champion": record.order.champion if record.order is not None else 0,
            "data": dict(record.data),
            "judgement": dict(judgement),
        }
        self._store.put_fact(version.project, version.name, version.version, FACT, value)
