"""sweep list, describe, best, trials, stop, export."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.session import Format as Shown
from orchestrator.cli.session import Output, connected, output_format, project, show
from orchestrator.errors import Refused

if TYPE_CHECKING:
    from orchestrator.api.client import Client
    from orchestrator.core.sweeps import Sweep, Trial

app = typer.Typer(no_args_is_help=True, help="Searches for hyperparameters, and their trials.")

SweepName = Annotated[str, typer.Argument(metavar="SWEEP", help="Id or name; a name means its newest sweep.")]


@app.command("list")
def list_sweeps(
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50,
    output: Output = None,
) -> None:
    """Sweeps, newest first."""
    from itertools import islice

    from orchestrator.cli import render

    with connected() as client:
        found = list(islice(client.sweeps(project=project()), limit))
    show(found, lambda: render.runs_table(found, time.time(), "no sweeps"))


@app.command()
def describe(
    sweep: SweepName,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write a page with pictures to this file instead.")
    ] = None,
    against: Annotated[
        str, typer.Option(metavar="METRIC[:min|max]", help="Of the page: the Pareto front's second metric.")
    ] = "",
    output: Output = None,
) -> None:
    """What is searched, how far it is, what was best, and what became of each trial."""
    from orchestrator.cli import sweep_tables

    found = _sweep(sweep)
    if html is not None:
        return _write_page(found, html, against)
    return show(found, lambda: sweep_tables.description(found, time.time()))


@app.command()
def trials(sweep: SweepName, output: Output = None) -> None:
    """Every trial, the best first."""
    from orchestrator.cli import sweep_tables

    found = _sweep(sweep)
    ranked = sweep_tables.ranked(found)
    show(ranked, lambda: sweep_tables.trials_table(found, ranked, time.time()))


@app.command()
def best(
    sweep: SweepName,
    as_run: Annotated[bool, typer.Option("--as-run", help="Print the run file of the best trial.")] = False,
    output: Output = None,
) -> None:
    """The best trial."""
    from orchestrator.cli import render, sweep_tables

    with connected() as client:
        found = client.sweep(sweep, project=project())
        trial = found.best
        if trial is None:
            raise Refused(f"no trial of {found.name} has reported {found.metric} yet")
        document = _run_file(client, found, trial) if as_run else None
    if document is not None:
        text = render.as_json(document) if output_format() is Shown.JSON else render.as_yaml(document).rstrip()
        return typer.echo(text)
    return show(trial, lambda: sweep_tables.trials_table(found, [trial], time.time()))


@app.command()
def stop(
    sweep: SweepName,
    reason: Annotated[str, typer.Option(help="Kept with the sweep.")] = "",
    output: Output = None,
) -> None:
    """End a sweep with the best that it has found so far. `evertrain cancel` keeps nothing."""
    from orchestrator.cli import render

    with connected() as client:
        stopped = client.stop_sweep(sweep, reason=reason, project=project())
    show(stopped, lambda: render.run_line(stopped))


@app.command()
def export(
    sweep: SweepName,
    to: Annotated[Path, typer.Option("--to", help="A file that ends in .csv or .parquet.")],
) -> None:
    """Write one row a trial: its point, its state, its best value, what it took."""
    if to.suffix not in (".csv", ".parquet"):
        raise typer.BadParameter(f"must end in .csv or .parquet, got {to}", param_hint="--to")
    from orchestrator.cli.sweep_tables import rows

    _write(to, rows(_sweep(sweep)))
    typer.echo(str(to))


def _write_page(sweep: Sweep, to: Path, against: str) -> None:
    from orchestrator.cli.sweep_page import Against, page

    name, _, mode = against.partition(":")
    if mode not in ("", "min", "max"):
        raise typer.BadParameter(f"must be METRIC, METRIC:min or METRIC:max, got {against}", param_hint="--against")
    second = Against(name, "max" if mode == "max" else "min") if name else None
    to.write_text(page(sweep, second))
    typer.echo(str(to))


def _sweep(name: str) -> Sweep:
    with connected() as client:
        return client.sweep(name, project=project())


def _run_file(client: Client, sweep: Sweep, trial: Trial) -> dict[str, Any]:
    """The trial's run file under the sweep's name: what a run of the best point alone would be submitted with."""
    from orchestrator.spec.search import PROOF

    document = {
        **client.get(trial.run_id, project=project()).spec,
        "name": sweep.name,
        "monitor": client.get(sweep.id, project=project()).spec.get("monitor"),  # with its search, which no trial has
    }
    return {key: value for key, value in document.items() if value not in (None, {}, [], ()) and key != PROOF}


def _write(to: Path, table: Sequence[dict[str, Any]]) -> None:
    """Raises OSError."""
    columns = list(dict.fromkeys(name for row in table for name in row))
    if to.suffix == ".csv":
        with to.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(table)
        return
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({name: _column(table, name) for name in columns}), to)


def _column(table: Sequence[dict[str, Any]], name: str) -> list[Any]:
    """One type a column: values of several kinds (a choice of numbers and words) become their JSON text."""
    values = [row.get(name) for row in table]
    kinds = {float if isinstance(each, int | float) and not isinstance(each, bool) else type(each) for each in values}
    if len(kinds - {type(None)}) <= 1:
        return [float(each) if float in kinds and each is not None else each for each in values]
    return [None if each is None else json.dumps(each) for each in values]
