"""A trial, from the runs that tried it and what they reported."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.core.ledger import Ledger, add
from orchestrator.core.runs import Event, Run
from orchestrator.core.sweeps import Mode, Trial, TrialState, better

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
    checkpoint: str | None = None


def trial_of(stretches: Sequence[Stretch], metric: str, mode: Mode) -> Trial:
    """All runs of one trial together, by generation. Each counts from where the one before it was left."""
    ordered = sorted(stretches, key=lambda each: each.run.lineage.generation if each.run.lineage else 0)
    first, newest = ordered[0], ordered[-1]
    lineage = newest.run.lineage
    assert lineage is not None, "a trial's runs name their sweep"
    reports: dict[int, Mapping[str, float]] = {}
    for each in ordered:
        if each.story.reports:
            since = min(each.story.reports)
            reports = {report: value for report, value in reports.items() if report < since}
        reports |= each.story.reports
    curve = tuple(
        (report, float(metrics[metric]))
        for report, metrics in sorted(reports.items())
        if metric in metrics and math.isfinite(metrics[metric])
    )
    state = _STATES[newest.run.state.kind]
    if state is TrialState.STOPPED and reports and not math.isfinite(reports[max(reports)].get(metric, 0.0)):
        state = TrialState.INFEASIBLE  # it was ended for that
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
        metrics=_at_best(reports, curve, mode),
        checkpoint=next((each.checkpoint for each in reversed(ordered) if each.checkpoint is not None), None),
        reason=newest.run.state.reason.message,
        seconds={each.value: ns / 1e9 for each, ns in ledger.ns.items()},
        cost=sum(costs) if costs else None,
        submitted_at=first.run.submitted_at,
        started_at=min(started) if started else None,
        ended_at=newest.run.ended_at,
    )


def _at_best(
    reports: Mapping[int, Mapping[str, float]], curve: Sequence[tuple[int, float]], mode: Mode
) -> Mapping[str, float]:
    if not curve:
        return reports[max(reports)] if reports else {}
    at, held = curve[0]
    for report, value in curve[1:]:
        if better(value, held, mode):
            at, held = report, value
    return reports[at]
