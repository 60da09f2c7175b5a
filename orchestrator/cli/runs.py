"""submit, plan, list, describe, logs, watch, cancel, pause, resume."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.session import (
    ExitCode,
    Format,
    Output,
    connected,
    leave,
    output_format,
    project,
    show,
    show_one_of_many,
    standard_input,
)

if TYPE_CHECKING:
    from orchestrator.shipping import Shipment

RunName = Annotated[str, typer.Argument(metavar="RUN", help="Id or name; a name means its newest run.")]
RunFile = Annotated[str, typer.Argument(metavar="FILE", help="The run file; - reads standard input.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Put in over the file, such as train.lr=1e-2.")
]


def submit(
    file: RunFile,
    watch_it: Annotated[bool, typer.Option("--watch", "-w", help="Show its progress until it has ended.")] = False,
    name: Annotated[str | None, typer.Option(help="Put in over the file's name.")] = None,
    changes: Overrides = None,
    idempotency_key: Annotated[str | None, typer.Option(help="The same key is the same run.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be sent, and send nothing.")] = False,
    output: Output = None,
) -> None:
    """Record a run; it survives from then on."""
    shipment = _shipment(file, _overrides(changes, name))
    if dry_run:
        return _print_request(shipment)
    from orchestrator.cli import render, watching

    with connected() as client:
        if shipment.code is not None:
            typer.echo(render.shipped(shipment.code), err=True)
        run = client.submit(shipment, idempotency_key=idempotency_key, project=project())
        if not watch_it:
            return show(run, lambda: render.submitted(run))
        render.console(stderr=True).print(render.submitted(run))
        return leave(watching.watch(client, run))


def _overrides(changes: list[str] | None, name: str | None) -> dict[str, Any]:
    from orchestrator.shipping import parse_override

    with _right_usage():
        overrides = dict(parse_override(each) for each in changes or [])
    return {**overrides, "name": name} if name is not None else overrides


@contextlib.contextmanager
def _right_usage() -> Iterator[None]:
    """A run file that is not there and a change that is none are mistakes of the command line: not a run that is missing."""
    from orchestrator.shipping import Misused

    try:
        yield
    except Misused as error:
        raise typer.BadParameter(str(error)) from error


def _source(file: str) -> Any:
    return standard_input("run file") + "\n" if file == "-" else Path(file)


def _shipment(file: str, overrides: dict[str, Any]) -> Shipment:
    from orchestrator import shipping, spec

    source = _source(file)
    with _right_usage():
        if isinstance(source, Path):
            return shipping.prepare(source, overrides)
        document = spec.read_mapping(source, source="standard input")
        return shipping.prepare_document(document, Path.cwd(), "standard input", overrides)


def _print_request(shipment: Shipment) -> None:
    from orchestrator import spec
    from orchestrator.cli import render

    document = spec.dump(spec.parse(shipment.text))
    typer.echo(render.as_json(document) if output_format() is Format.JSON else render.as_yaml(document).rstrip())


def plan(file: RunFile, changes: Overrides = None, output: Output = None) -> None:
    """Check a run file: whether it can work, where it fits, how much memory, time and money it takes. Records nothing."""
    from orchestrator.cli import render

    with connected() as client, _right_usage():
        planned = client.plan(_source(file), overrides=_overrides(changes, None), project=project())
    show(planned, lambda: render.plan(planned))
    if not planned.works:
        leave(ExitCode.ERROR)


def list_runs(
    state: Annotated[list[str] | None, typer.Option("--state", "-s", help="Only these states.")] = None,
    name: Annotated[str, typer.Option(help="Only names that begin so.")] = "",
    queue: Annotated[str, typer.Option(help="Only this queue.")] = "",
    sweep: Annotated[str, typer.Option(help="Only trials of the sweep with this id.")] = "",
    everything: Annotated[bool, typer.Option("--all", "-a", help="The trials of sweeps, too.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50,
    output: Output = None,
) -> None:
    """Runs, newest first. Of a sweep's trials only the sweep is shown, unless it is asked for."""
    from orchestrator.cli import render

    with connected() as client:
        states = [each.upper() for each in state or []]
        found = client.list(
            states=states,
            name_prefix=name,
            queue=queue,
            sweep=sweep,
            without_trials=not (everything or sweep),
            project=project(),
            page_size=min(limit, 1000),
        )
        runs = list(islice(found, limit))
    show(runs, lambda: render.runs_table(runs, time.time()))


def describe(run: RunName, output: Output = None) -> None:
    """Everything known about a run: state, reasons, attempts, timeline, failure, checkpoints, ledger."""
    from orchestrator.cli import render

    with connected() as client:
        found = client.get(run, project=project())
        told = render.Description(
            found,
            list(client.events(found.id, project=project())),
            client.checkpoints(found.id, project=project()),
            [each for each in client.models(found.name, project=found.project) if each.run_id == found.id],
        )
    show(told.document(), lambda: render.description(told, time.time()))


def logs(
    run: RunName,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run has ended.")] = False,
    rank: Annotated[int | None, typer.Option(help="Only this rank; -1: the gang's coordinator.")] = None,
    attempt: Annotated[int | None, typer.Option(help="Only this attempt.")] = None,
    since: Annotated[str | None, typer.Option(help="Only lines of so long ago at most, such as 10m.")] = None,
    tail: Annotated[int | None, typer.Option(min=0, help="Only the last so many lines.")] = None,
    output: Output = None,
) -> None:
    """The lines of the ranks, in the order of their arrival."""
    from orchestrator.cli import render

    since_at = time.time() - duration(since, "--since") if since is not None else None
    with connected() as client:
        found = client.get(run, project=project())
        lines = client.logs(
            found.id, rank=rank, attempt=attempt, since_at=since_at, tail=tail, follow=follow, project=project()
        )
        for line in lines:
            if output_format() is Format.TABLE:
                typer.echo(render.log_line(line, attempts=attempt is None))
            else:
                show_one_of_many(line)


def duration(text: str, option: str) -> float:
    from orchestrator.spec.quantities import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(f"{error}, got {text!r}", param_hint=option) from error


def watch(run: RunName, output: Output = None) -> None:
    """Live progress until the run has ended. Ctrl-C detaches: the run goes on."""
    from orchestrator.cli import watching

    with connected() as client:
        found = client.get(run, project=project())
        leave(watching.watch(client, found))


def cancel(
    run: RunName,
    reason: Annotated[str, typer.Option(help="Kept with the run.")] = "",
    output: Output = None,
) -> None:
    """End a run in order. One that has ended stays as it is."""
    from orchestrator.cli import render

    with connected() as client:
        cancelled = client.cancel(run, reason=reason, project=project())
    show(cancelled, lambda: render.run_line(cancelled))


def pause(
    run: RunName,
    reason: Annotated[str, typer.Option(help="Kept with the run.")] = "",
    output: Output = None,
) -> None:
    """Let a run seal a checkpoint and give its workers back; it waits until it is resumed."""
    from orchestrator.cli import render

    with connected() as client:
        paused = client.pause(run, reason=reason, project=project())
    show(paused, lambda: render.run_line(paused))


def resume(run: RunName, output: Output = None) -> None:
    """Let a paused run be placed again, from its newest checkpoint."""
    from orchestrator.cli import render

    with connected() as client:
        resumed = client.resume(run, project=project())
    show(resumed, lambda: render.run_line(resumed))
