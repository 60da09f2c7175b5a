"""checkpoint list, checkpoint verify."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from orchestrator.cli.session import ExitCode, Output, connected, leave, project, show
from orchestrator.errors import NotFound

app = typer.Typer(no_args_is_help=True, help="Sealed checkpoints.")


@app.command("list")
def list_checkpoints(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Id or name.")], output: Output = None
) -> None:
    """The sealed checkpoints of a run, newest first."""
    from orchestrator.cli import render

    with connected() as client:
        found = client.checkpoints(run, project=project())
    show(found, lambda: render.checkpoints_table(found, time.time()))


@app.command()
def verify(
    target: Annotated[
        str, typer.Argument(metavar="RUN|URL", help="A run (its newest checkpoint), or where a checkpoint lies.")
    ],
    every: Annotated[bool, typer.Option("--all", help="Every checkpoint of the run.")] = False,
    output: Output = None,
) -> None:
    """Read every file of a checkpoint and compare it with its manifest."""
    from orchestrator.adapters import checkpoints
    from orchestrator.cli import render

    urls = [target] if "/" in target else _urls(target, every)
    reports = [checkpoints.verify(url) for url in urls]
    show(reports, lambda: render.verified(reports))
    if not all(report.ok for report in reports):
        leave(ExitCode.ERROR)


def _urls(run: str, every: bool) -> list[str]:
    with connected() as client:
        urls = [each.url for each in client.checkpoints(run, project=project())]
    if not urls:
        raise NotFound(f"run {run} has no sealed checkpoint yet")
    return urls if every else urls[:1]
