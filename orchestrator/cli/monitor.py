"""monitor decisions, retrain, approve, reject."""

from __future__ import annotations

import typer

from orchestrator.cli import monitor_decisions

app = typer.Typer(no_args_is_help=True, help="Watched models, and their retraining.")

for function in (
    monitor_decisions.decisions,
    monitor_decisions.retrain,
    monitor_decisions.approve,
    monitor_decisions.reject,
):
    app.command()(function)
