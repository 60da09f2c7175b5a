"""A trial, from the runs that tried it and what they reported."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.core.ledger import Ledger, add
from orchestrator.core.runs import Event, Run
from orchestrator.core.sweeps import Mode, Stage, Trial, TrialState, better, driver_of

_STATES = {
    "QUEUED": TrialState.WAITING,
    "STARTING": TrialState.WAITING,
    "RUNNING": TrialState.RUNNING,
    "RECOVERING": TrialState.RUNNING,
    "SUCCEEDED": TrialState.COMPLETED,
    "FAILED": TrialState.INFEASIBLE,
    "CANCELLED": TrialState.STOPPED,
}


@dataclass(frozen=True)
class Story:
    """What a run's events tell of it as a trial."""

    after: int = 0  # the last event that is in it
    started_at: float | None = None  # the first optimizer step
    reports: Mapping[int, Mapping[str, float]] = field(
        default_factory=dict
    )  # by number, from 1; of one told twice the last

    def read(self, events: Sequence[Event]) -> Story:
        """With these events, too, which follow."""
        after, started_at, reports = self.after, self.started_at, dict(self.reports)
        for event in events:
            after = event.seq
            if event.kind == "training" and started_at is None:
                started_at = event.at
            elif event.kind == "epoch" and "metrics" in event.data:
                reports[int(event.data["epoch"]) + 1] = event.data["metrics"]
        return Story(after, started_at, reports)


@dataclass(frozen=True)
class Stretch:
    """One run of a trial."""

    run: Run
    story: Story
    ledger: Ledger
    cost: float | None = None
    checkpoint: str | None = None  # the best sealed one
    seal: str | None = None  # the newest sealed one


def trial_of(stretches: Sequence[Stretch], metric: str, mode: Mode, trials: Mapping[str, int] | None = None) -> Trial:
    """All runs of one trial together, by generation. Each counts from where the checkpoint was that it went on from.

    `trials`: numbers of the sweep's trials, by the ids of their runs.
    """
    ordered = sorted(stretches, key=lambda each: each.run.lineage.generation if each.run.lineage else 0)
    first, newest = ordered[0], ordered[-1]
    lineage = newest.run.lineage
    assert lineage is not None, "a trial's runs name their sweep"
    reports, told_by = _together(ordered)
    curve = tuple(
        (report, float(metrics[metric]))
        for report, metrics in sorted(reports.items())
        if metric in metrics and math.isfinite(metrics[metric])
    )
    state = _STATES[newest.run.state.kind]
    if state is TrialState.STOPPED and reports and not math.isfinite(reports[max(reports)].get(metric, 0.0)):
        state = TrialState.INFEASIBLE  # it was ended for that
    at = _best_report(curve, mode) or max(reports, default=0)
    costs = [each.cost for each in ordered if each.cost is not None]
    ledger = add(each.ledger for each in ordered)
    started = [each.story.started_at for each in ordered if each.story.started_at is not None]
    return Trial(
        number=lineage.trial,
        point=lineage.point,
        state=state,
        run_id=newest.run.id,
        generation=lineage.generation,
        curve=curve,
        metrics=reports.get(at, {}),
        checkpoint=_checkpoint(ordered, told_by.get(at)),
        seal=newest.seal,
        stages=tuple(_stages(ordered, trials or {})),
        # Who ends the trials of a sweep need not be said in each of its lines.
        reason=newest.run.state.reason.message.replace(f"cancelled by {driver_of(lineage.sweep)}: ", ""),
        seconds={each.value: ns / 1e9 for each, ns in ledger.ns.items()},
        cost=sum(costs) if costs else None,
        submitted_at=first.run.submitted_at,
        started_at=min(started) if started else None,
        ended_at=newest.run.ended_at,
    )


def _together(ordered: Sequence[Stretch]) -> tuple[dict[int, Mapping[str, float]], dict[int, Stretch]]:
    """All reports by number, and who told each: what a generation tells replaces what was told behind its beginning."""
    reports: dict[int, Mapping[str, float]] = {}
    told_by: dict[int, Stretch] = {}
    for each in ordered:
        since = min(each.story.reports, default=math.inf)
        reports = {report: told for report, told in reports.items() if report < since} | dict(each.story.reports)
        told_by |= dict.fromkeys(each.story.reports, each)
    return reports, told_by


def _stages(ordered: Sequence[Stretch], trials: Mapping[str, int]) -> Iterator[Stage]:
    since = 1
    for each in ordered:
        assert each.run.lineage is not None, "a trial's runs name their sweep"
        since = min(each.story.reports, default=since)
        start = each.run.lineage.start
        parent = next(
            (trials[part] for part in start.split("/") if part in trials), None
        )  # it lies in its run's directory
        yield Stage(each.run.lineage.point, start, since, parent)


def _checkpoint(ordered: Sequence[Stretch], best: Stretch | None) -> str | None:
    """That of the run which was best; where it has none, the newest."""
    asked = [*([best] if best is not None else []), *reversed(ordered)]
    return next((each.checkpoint for each in asked if each.checkpoint is not None), None)


def _best_report(curve: Sequence[tuple[int, float]], mode: Mode) -> int | None:
    """The earliest with the best value."""
    if not curve:
        return None
    at, held = curve[0]
    for report, value in curve[1:]:
        if better(value, held, mode):
            at, held = report, value
    return at
