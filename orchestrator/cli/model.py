"""model list, model describe, model alias, model export."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.session import Output, connected, project, show
from orchestrator.errors import Refused, StorageFailed

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


@app.command()
def export(
    model: Annotated[
        str, typer.Argument(metavar="MODEL[@VERSION]", help="A version by number or alias; by default the newest.")
    ],
    to: Annotated[Path, typer.Option("--to", help="Directory for model.safetensors and config.json.")],
) -> None:
    """Write the weights of one version as one safetensors file, whatever layout it was trained in."""
    name, _, version = model.partition("@")
    with connected() as client:
        found = client.model(name, version, project=project())
    # Weights need torch, which this process never imports: a Python beside it does the work.
    if importlib.util.find_spec("torch") is None:
        raise Refused("an export needs torch, which is not installed here: pip install 'evertrain[cluster]'")
    command = [sys.executable, "-m", "trainers.export", found.checkpoint, "--to", str(to)]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"trainers.export ended with {done.returncode}"]
        raise StorageFailed(f"cannot export {found.name}@{found.version}: {lines[-1]}")
    typer.echo(str(to))
