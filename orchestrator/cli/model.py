"""model list, model describe, model facts, model alias."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from orchestrator.cli.session import Output, connected, project, show

app = typer.Typer(no_args_is_help=True, help="Registered model versions.")

Name = Annotated[str, typer.Argument(metavar="MODEL", help="The name of its runs.")]


@app.command("list")
def list_models(
    name: Annotated[str, typer.Argument(metavar="MODEL", help="Only versions of this one.")] = "", output: Output = None
) -> None:
    """By name, then newest version first."""
    from orchestrator.cli import render

    with connected() as client:
        found = client.models(name, project=project())
    show(found, lambda: render.models_table(found, time.time()))


@app.command()
def describe(
    name: Name,
    version: Annotated[str, typer.Argument(help="A number or an alias; by default the newest.")] = "",
    output: Output = None,
) -> None:
    """One version: its run, its checkpoint, its metrics."""
    from orchestrator.cli import render

    with connected() as client:
        found = client.model(name, version, project=project())
    show(found, lambda: render.model(found))


@app.command()
def facts(
    name: Name,
    version: Annotated[str, typer.Argument(help="A number or an alias; by default the newest.")] = "",
    output: Output = None,
) -> None:
    """What is kept with a version beside its metrics, such as the profile of its training data."""
    from orchestrator.cli import render

    with connected() as client:
        found = client.facts(name, version, project=project())
    show(found, lambda: render.facts(found))


@app.command()
def alias(
    name: Name,
    version: Annotated[int, typer.Argument(min=1)],
    alias: Annotated[str, typer.Argument(help="Such as champion.")],
    output: Output = None,
) -> None:
    """Move an alias to a version."""
    from orchestrator.cli import render

    with connected() as client:
        found = client.set_alias(name, version, alias, project=project())
    show(found, lambda: render.model(found))
