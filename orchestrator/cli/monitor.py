"""monitor list, describe, judgements, pause, resume, feed, and what `monitor_decisions` adds."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli import monitor_decisions, monitor_feed
from orchestrator.cli.session import Output, connected, project, show

app = typer.Typer(no_args_is_help=True, help="What watches models on live data, and what it has judged.")
app.add_typer(monitor_feed.app, name="feed")

Model = Annotated[str, typer.Argument(metavar="MODEL", help="A model that is watched: see `evertrain monitor list`.")]
_JUDGEMENTS_OF_A_PAGE = 500


@app.command("list")
def list_monitors(output: Output = None) -> None:
    """By model, with the newest judgement of each."""
    from orchestrator.cli import monitor_tables

    with connected() as client:
        found = client.monitors(project=project())
    show(found, lambda: monitor_tables.monitors_table(found, time.time()))


@app.command()
def describe(
    model: Model,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write a page with pictures to this file instead.")
    ] = None,
    output: Output = None,
) -> None:
    """What moved, by how much, since when, and how sure that is."""
    from itertools import islice

    from orchestrator.cli import monitor_tables

    with connected() as client:
        found = client.monitor(model, project=project())
        wanted = _JUDGEMENTS_OF_A_PAGE if html is not None else monitor_tables.SHOWN
        judged = list(islice(client.judgements(model, project=project()), wanted))
    if html is not None:
        from orchestrator.cli.monitor_page import page

        html.write_text(page(found, judged))
        typer.echo(str(html))
        return
    show(found, lambda: monitor_tables.description(found, judged, time.time()))


@app.command()
def judgements(
    model: Model,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50,
    output: Output = None,
) -> None:
    """What each window was judged to be, newest first."""
    from itertools import islice

    from orchestrator.cli import monitor_tables

    with connected() as client:
        found = list(islice(client.judgements(model, project=project()), limit))
    show(found, lambda: monitor_tables.judgements_table(found))


@app.command()
def pause(
    model: Model,
    reason: Annotated[str, typer.Option(help="Kept with the monitor.")] = "",
    output: Output = None,
) -> None:
    """Judge nothing until it is resumed; what comes is kept."""
    from orchestrator.cli import monitor_tables

    with connected() as client:
        found = client.pause_monitor(model, reason=reason, project=project())
    show(found, lambda: monitor_tables.line(found))


@app.command()
def resume(model: Model, output: Output = None) -> None:
    """Go on where it stopped."""
    from orchestrator.cli import monitor_tables

    with connected() as client:
        found = client.resume_monitor(model, project=project())
    show(found, lambda: monitor_tables.line(found))


for _function in (
    monitor_decisions.decisions,
    monitor_decisions.retrain,
    monitor_decisions.approve,
    monitor_decisions.reject,
):
    app.command()(_function)
