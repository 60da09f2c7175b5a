"""model list, describe, facts, alias, promote, rollback, history, compare, lineage, shadow, export, explain."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.by_trainers import by_trainers
from orchestrator.cli.session import Output, connected, project, show
from orchestrator.core.aliases import CHAMPION, stands_on
from orchestrator.errors import Refused, StorageFailed
from trainers.contract import ExitCode

if TYPE_CHECKING:
    from orchestrator.api.client import Client
    from orchestrator.core.records import ModelVersion

app = typer.Typer(no_args_is_help=True, help="Registered model versions.")

Versioned = Annotated[
    str, typer.Argument(metavar="MODEL[@VERSION]", help="A version by number or alias; by default the newest.")
]
Name = Annotated[str, typer.Argument(metavar="MODEL", help="The name of its runs.")]
Alias = Annotated[str, typer.Option("--alias", help="The alias that moves.")]


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
    model: Versioned,
    alias: Annotated[str, typer.Argument(help="Such as champion.")],
    output: Output = None,
) -> None:
    """Move an alias to a version; champion only where no version is, for `model promote` moves it."""
    from orchestrator.cli import render

    with connected() as client:
        found = _named(client, model)
        found = client.set_alias(found.name, found.version, alias, project=project())
    show(found, lambda: render.model(found))


@app.command()
def promote(
    model: Versioned,
    alias: Alias = CHAMPION,
    reason: Annotated[str, typer.Option("--reason", help="Kept in the history.")] = "",
    anyway: Annotated[bool, typer.Option("--anyway", help="Whatever its proof says; needs a reason.")] = False,
    output: Output = None,
) -> None:
    """Let a version serve whose proof holds against the one that serves now."""
    from orchestrator.cli import model_tables

    name, _, version = model.partition("@")
    with connected() as client:
        move = client.promote(name, version, alias=alias, reason=reason, anyway=anyway, project=project())
    show(move, lambda: model_tables.moved(move))


@app.command()
def rollback(
    name: Name,
    reason: Annotated[str, typer.Option("--reason", help="Kept in the history.")],
    alias: Alias = CHAMPION,
    output: Output = None,
) -> None:
    """Let the version serve again that served before."""
    from orchestrator.cli import model_tables

    with connected() as client:
        seen = stands_on(client.alias_history(name, alias=alias, project=project()))
        move = client.roll_back(name, reason, alias=alias, expected=seen or None, project=project())
    show(move, lambda: model_tables.moved(move))


@app.command()
def history(
    name: Name,
    alias: Annotated[str, typer.Option("--alias", help="Only of this one.")] = "",
    output: Output = None,
) -> None:
    """Which version stood where, since when, by whom and why, newest first."""
    from orchestrator.cli import model_tables

    with connected() as client:
        moves = client.alias_history(name, alias=alias, project=project())
    show(moves, lambda: model_tables.history(moves))


@app.command()
def compare(
    model: Versioned,
    champion: Annotated[str, typer.Argument(help="A number or an alias.")] = CHAMPION,
    output: Output = None,
) -> None:
    """What a version's proof says against another one."""
    from orchestrator.cli import model_tables

    name, _, challenger = model.partition("@")
    with connected() as client:
        found = client.compare(name, challenger, champion, project=project())
    show(found, lambda: model_tables.comparison(found))


@app.command()
def lineage(model: Versioned, output: Output = None) -> None:
    """What a version came from, and that from what."""
    from orchestrator.cli import model_tables

    name, _, version = model.partition("@")
    with connected() as client:
        ancestors = client.lineage(name, version, project=project())
    show(ancestors, lambda: model_tables.lineage(ancestors))


@app.command()
def export(
    model: Versioned,
    to: Annotated[Path, typer.Option("--to", help="Directory for model.safetensors and config.json.")],
) -> None:
    """Write the weights of one version as one safetensors file, whatever layout it was trained in."""
    with connected() as client:
        found = _named(client, model)
    _by_trainers("export", found, "--to", str(to))
    typer.echo(str(to))


@app.command()
def explain(
    model: Versioned,
    html: Annotated[Path, typer.Option("--html", help="The page to write.")],
    data: Annotated[str, typer.Option("--data", help="Source of samples; by default what it was trained on.")] = "",
    samples: Annotated[int, typer.Option(min=1, help="How many of the test part.")] = 32,
    seed: Annotated[int, typer.Option(help="Draws the samples.")] = 0,
    code: Annotated[str, typer.Option("--code", help="Directory of an entrypoint's code.")] = "",
) -> None:
    """Write a page on what one version looks at, and keep its features' importance with it."""
    options = ["--html", str(html), "--samples", str(samples), "--seed", str(seed)]
    options += [word for option, value in (("--data", data), ("--code", code)) if value for word in (option, value)]
    with connected() as client, tempfile.TemporaryDirectory(prefix="evertrain-explain-") as scratch:
        found = _named(client, model)
        importance = Path(scratch, "importance.json")
        _by_trainers("explain", found, *options, "--json", str(importance))
        value = json.loads(importance.read_text())
        client.put_fact(found.name, str(found.version), "importance", value, project=found.project)
    typer.echo(str(html))


@app.command()
def shadow(
    model: Versioned,
    rows: Annotated[str, typer.Option("--rows", help="What live traffic left: files, as in data.source.")],
    to: Annotated[Path, typer.Option("--to", help="The parquet file to write.")],
    code: Annotated[str, typer.Option("--code", help="Directory of an entrypoint's code.")] = "",
    output: Output = None,
) -> None:
    """Record what a version would have said of rows that another one answered."""
    from orchestrator.cli import model_tables

    with connected() as client:
        found = _named(client, model)
    options = ["--rows", rows, "--to", str(to), *(["--code", code] if code else [])]
    counts = json.loads(_by_trainers("shadow", found, *options))
    show(counts, lambda: model_tables.shadow(found, counts, to))


def _named(client: Client, model: str) -> ModelVersion:
    name, _, version = model.partition("@")
    return client.model(name, version, project=project())


def _by_trainers(verb: str, found: ModelVersion, *options: str) -> str:
    """What `python -m trainers.VERB` prints last of a version's checkpoint. Raises Refused and StorageFailed with its last
    words."""
    done = by_trainers(verb, found.checkpoint, *options)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"trainers.{verb} ended with {done.returncode}"]
        error = StorageFailed if done.returncode == ExitCode.STORAGE else Refused
        raise error(f"cannot {verb} {found.name}@{found.version}: {lines[-1]}")
    return done.stdout.strip().rpartition("\n")[2]
