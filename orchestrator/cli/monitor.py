"""monitor feed."""

from __future__ import annotations

import typer

from orchestrator.cli import monitor_feed

app = typer.Typer(no_args_is_help=True, help="What watches the models that runs have registered.")

app.add_typer(monitor_feed.app, name="feed")
