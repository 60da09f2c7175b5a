"""checkpoint list, checkpoint verify, checkpoint audit."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated

import typer

from orchestrator.cli.by_trainers import by_trainers
from orchestrator.cli.session import ExitCode, Output, connected, leave, project, show
from orchestrator.core.records import Checkpoint
from orchestrator.errors import NotFound, StorageFailed

app = typer.Typer(no_args_is_help=True, help="Sealed checkpoints.")


@app.command("list")
def list_checkpoints(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Id or name.")],
    every: Annotated[bool, typer.Option("--all", help="Also those that retention has removed since.")] = False,
    output: Output = None,
) -> None:
    """The sealed checkpoints of a run, newest first."""
    from orchestrator.cli import render

    with connected() as client:
        sealed = client.checkpoints(run, project=project())
    found = sealed if every else _kept(sealed)
    show(found, lambda: render.checkpoints_table(found, time.time()))


def _kept(sealed: Sequence[Checkpoint]) -> Sequence[Checkpoint]:
    """Those that still lie in the storage; all of them where the storage cannot be read from this machine."""
    from orchestrator.adapters import checkpoints

    roots = {each.url.partition("/attempt-")[0] for each in sealed}
    try:
        there = {listed.checkpoint for root in roots for listed in checkpoints.list_checkpoints(root)}
    except StorageFailed:
        return sealed
    return [each for each in sealed if each.url in there] or sealed


@app.command()
def verify(
    target: Annotated[
        str, typer.Argument(metavar="RUN|URL", help="A run (its newest checkpoint), or where a checkpoint lies.")
    ],
    every: Annotated[bool, typer.Option("--all", help="Every checkpoint of the run that is kept.")] = False,
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


@app.command()
def audit(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Id or name.")],
) -> None:
    """Which samples the weights of each checkpoint of a run saw twice or never, epoch by epoch."""
    with connected() as client:
        sealed = client.checkpoints(run, project=project())
    if not sealed:
        raise NotFound(f"run {run} has no sealed checkpoint yet")
    failed = False
    for root in sorted({each.url.partition("/attempt-")[0] for each in sealed}):
        done = by_trainers("data.audit", root)
        typer.echo((done.stdout + done.stderr).rstrip())
        failed = failed or done.returncode != 0
    if failed:
        leave(ExitCode.ERROR)


def _urls(run: str, every: bool) -> list[str]:
    with connected() as client:
        sealed = client.checkpoints(run, project=project())
    if not sealed:
        raise NotFound(f"run {run} has no sealed checkpoint yet")
    return [each.url for each in (_kept(sealed) if every else sealed[:1])]
