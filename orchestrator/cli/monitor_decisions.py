"""monitor decisions, retrain, approve, reject."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from orchestrator.cli.session import Output, connected, project, show

Model = Annotated[str, typer.Argument(metavar="MODEL", help="A watched model, by the name of its runs.")]
Number = Annotated[int, typer.Argument(metavar="NUMBER", help="Of the decision, as `monitor decisions` shows it.")]
Why = Annotated[str, typer.Option("--reason", help="Kept with the decision.")]


def decisions(
    model: Model, limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20, output: Output = None
) -> None:
    """What was decided on retraining, also what was not done, and what became of it; newest first."""
    from itertools import islice

    from orchestrator.cli import decision_tables

    with connected() as client:
        found = list(islice(client.decisions(model, project=project()), limit))
    show(found, lambda: decision_tables.table(found, time.time()))


def retrain(model: Model, reason: Why = "", output: Output = None) -> None:
    """Ask for a retraining. Only one that is under way, the month's budget and a dry run are in its way."""
    from orchestrator.cli import decision_tables

    with connected() as client:
        found = client.retrain(model, reason=reason, project=project())
    show(found, lambda: decision_tables.line(found))


def approve(model: Model, number: Number, output: Output = None) -> None:
    """Let a retraining begin that waits for approval."""
    from orchestrator.cli import decision_tables

    with connected() as client:
        found = client.approve(model, number, project=project())
    show(found, lambda: decision_tables.line(found))


def reject(model: Model, number: Number, reason: Why = "", output: Output = None) -> None:
    """End a retraining that waits, for approval or for its time."""
    from orchestrator.cli import decision_tables

    with connected() as client:
        found = client.reject(model, number, reason=reason, project=project())
    show(found, lambda: decision_tables.line(found))
