"""cluster list, cluster drain."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from orchestrator.cli.session import Output, connected, project, show

app = typer.Typer(no_args_is_help=True, help="Ray clusters that runs are placed on.")


@app.command("list")
def list_clusters(output: Output = None) -> None:
    """Clusters, whether their agent is connected, and what is free."""
    from orchestrator.cli import render

    with connected() as client:
        found = client.clusters(project=project())
    show(found, lambda: render.clusters_table(found, time.time()))


@app.command()
def drain(
    name: Annotated[str, typer.Argument(metavar="CLUSTER")],
    evict: Annotated[bool, typer.Option("--evict", help="Also preempt what runs there.")] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Place runs there again.")] = False,
    output: Output = None,
) -> None:
    """Place nothing more on a cluster."""
    from orchestrator.cli import render

    if evict and undo:
        raise typer.BadParameter("--evict and --undo say opposite things: give one")
    with connected() as client:
        found = client.drain(name, evict=evict, undo=undo)
    show(found, lambda: render.clusters_table([found], time.time()))
