"""Which version of a model serves: promoted by its proof, taken back by its history. Every method blocks.

An alias moves only from where its mover saw it stand: of a promotion and a rollback at once, one is told that it came too
late.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from orchestrator import spec
from orchestrator.control.model_versions import find_version
from orchestrator.core.aliases import CHAMPION, stands_on, stood_before
from orchestrator.core.records import AliasMove, ModelVersion
from orchestrator.errors import Conflict, InvalidSpec, NotFound, Refused
from orchestrator.ports import Clock, Store
from orchestrator.spec.monitor import Promote

if TYPE_CHECKING:  # numpy costs the server half a second at its start, and is needed for a judgement only
    from orchestrator.drift.proving import Judgement, Policy

log = logging.getLogger(__name__)


class Promotions:
    def __init__(self, store: Store, clock: Clock) -> None:
        self._store, self._clock = store, clock

    def promote(
        self,
        version: ModelVersion,
        *,
        alias: str = CHAMPION,
        by: str,
        reason: str = "",
        anyway: bool = False,
        tell: bool = True,
    ) -> AliasMove:
        """Move the alias to the version, if its proof holds against the one where it stands and it was not taken back before.
        `anyway`: also where it does not; the reason says why then. `tell`: receivers of webhooks hear of it.

        Raises Refused with the judgement's words; Conflict where the alias moved meanwhile.
        """
        name = version.name
        history = self._store.alias_history(version.project, name, alias)
        stands = stands_on(history)
        judgement = self.judged(version, stands) if stands and stands != version.version else None
        if judgement is not None and not judgement.promote and not anyway:
            raise Refused(f"{name}@{version.version} is {judgement.words}")
        if stands != version.version and not anyway and any(each.version == version.version for each in history):
            raise Refused(
                f"{name}@{version.version} was {alias} before and was taken back: `evertrain model history {name}`"
            )
        if anyway and not reason:
            raise Refused("a promotion without a proof needs a reason, which the history keeps: give one")
        return self._moved(version, alias, stands, by, _words(reason, judgement), judgement, tell)

    def recall(self, version: ModelVersion, *, by: str, reason: str, expected: int) -> AliasMove:
        """Let a version that stands by serve in place of version `expected`, for the reason alone: both were compared live,
        and a proof of earlier says nothing of the rows of now. Raises Conflict where another version serves by now.
        """
        stands = stands_on(self._store.alias_history(version.project, version.name, CHAMPION))
        if stands != expected:
            raise Conflict(
                f"{CHAMPION} of {version.name} is version {stands} by now, not {expected}: nothing was recalled"
            )
        return self._moved(version, CHAMPION, stands, by, reason, None, True)

    def roll_back(
        self,
        project: str,
        name: str,
        *,
        alias: str = CHAMPION,
        by: str,
        reason: str,
        expected: int | None = None,
        tell: bool = True,
    ) -> AliasMove:
        """Move the alias to where it stood before. `expected`: the version to take back; None: whichever it is. `tell`:
        receivers of webhooks hear of it.

        Raises NotFound for an alias that never stood; Refused where nothing stood before; Conflict where it moved meanwhile.
        """
        history = self._store.alias_history(project, name, alias)
        if not history:
            raise NotFound(f"no version of model {name!r} is {alias}: `evertrain model history {name}` shows what was")
        before, stands = stood_before(history), stands_on(history)
        if expected not in (None, stands):
            raise Conflict(f"{alias} of {name} is version {stands} by now, not {expected}: nothing was rolled back")
        if not before:
            raise Refused(
                f"{alias} of {name} stands on version {stands}, and stood on none before: promote another one"
            )
        version = find_version(self._store.models(project, name), project, name, str(before))
        return self._moved(version, alias, stands, by, f"version {stands} taken back: {reason}", None, tell)

    def compare(self, challenger: ModelVersion, champion: ModelVersion) -> Judgement:
        """Raises Refused for a version beside itself."""
        if champion.version == challenger.version:
            raise Refused(
                f"version {champion.version} of {champion.name} would be compared with itself: name another one"
            )
        return self.judged(challenger, champion.version)

    def judged(self, challenger: ModelVersion, champion: int) -> Judgement:
        """The challenger's proof against that version, by what its run file asks of it."""
        from orchestrator.drift.proving import Judgement, ProofError, judge

        fact = self._store.facts(challenger.project, challenger.name, challenger.version).get("proof")
        if fact is None:
            words = f"not promoted: {self._why_unproven(challenger)}, so nothing is proven against version {champion}"
            return Judgement(False, words, champion)
        try:
            judgement = judge(fact, policy_of(self.wanted(challenger)))
        except ProofError as error:
            return Judgement(False, f"not promoted: {error}", champion)
        if judgement.champion != champion:
            words = f"not promoted: proven against version {judgement.champion}, and {champion} stands there by now"
            return Judgement(False, words, judgement.champion, judgement.metric, judgement.findings)
        return judgement

    def _why_unproven(self, version: ModelVersion) -> str:
        """Of a version without a comparison."""
        try:
            run = self._store.run(version.project, version.run_id)
        except NotFound:
            return "its run is not known any more"
        if run.spec.get("script"):
            return "it is of a script, whose model nobody else can ask about the same rows"
        if run.kind == "sweep" and spec.PROOF in run.spec:
            return "the best trial of its sweep was ended early, before it was compared with anything"
        return "its run compared it with nothing"

    def wanted(self, version: ModelVersion) -> Promote:
        """What the version's run file asks of a promotion; the defaults where it has no monitor, or cannot be read now."""
        try:
            monitor = spec.load(self._store.run(version.project, version.run_id).spec).monitor
        except (InvalidSpec, NotFound):
            monitor = None
        return monitor.promote if monitor is not None else Promote()

    def _moved(
        self,
        version: ModelVersion,
        alias: str,
        stands: int,
        by: str,
        reason: str,
        judgement: Judgement | None,
        tell: bool,
    ) -> AliasMove:
        report: Mapping[str, Any] = judgement.report() if judgement is not None else {}
        move = self._store.move_alias(
            version.project,
            version.name,
            alias,
            version.version,
            expected=stands,
            at=self._clock.now(),
            by=by,
            reason=reason,
            report=report,
            tell=tell,
        )
        if move is None:
            raise Conflict(
                f"{alias} of {version.name} has moved from version {stands} meanwhile: see `evertrain model history "
                f"{version.name}`, and decide again"
            )
        log.info(
            "model %s: %s moved from %d to %d by %s: %s", version.name, alias, move.before, move.version, by, reason
        )
        return move


def _words(reason: str, judgement: Judgement | None) -> str:
    """Why a version was promoted, for the history."""
    if judgement is None:
        return reason or "nothing stood there before"
    if not judgement.promote:
        return f"{reason}, in spite of its proof: {judgement.words}"
    return "; ".join(each for each in (reason, judgement.words) if each)


def policy_of(wanted: Promote) -> Policy:
    """The judge's policy, of a run file's `monitor.promote`."""
    from orchestrator.drift.proving import Policy

    return Policy(
        metric=wanted.metric or "",
        margin=wanted.margin,
        confidence=wanted.confidence,
        slice_loss=wanted.slice_loss,
        reference_loss=wanted.reference_loss,
        calibration_loss=wanted.calibration_loss,
        slower=wanted.slower,
        least_rows=wanted.minimum,
    )
