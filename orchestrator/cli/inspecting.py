"""stacks, profile: look at the ranks of a run that lives."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.runs import RunName, duration
from orchestrator.cli.session import (
    ExitCode,
    Format,
    Output,
    connected,
    leave,
    output_format,
    project,
    show_one_of_many,
)

if TYPE_CHECKING:
    from orchestrator.api.views import Seen

Ranks = Annotated[list[int] | None, typer.Option("--rank", min=0, help="Only this rank; may be said several times.")]


def stacks(run: RunName, rank: Ranks = None, output: Output = None) -> None:
    """What each rank does at this moment: Python's stacks and, where they can be read, native ones. Nothing is ended."""
    with connected() as client:
        answers = [_show(each) for each in client.stacks(run, ranks=rank or [], project=project())]
    _leave(answers)


def profile(
    run: RunName,
    rank: Ranks = None,
    steps: Annotated[int, typer.Option(min=1, max=100, help="Optimizer steps to trace.")] = 5,
    within: Annotated[str, typer.Option(help="How long they may take; what is done by then is kept.")] = "5m",
    out: Annotated[Path | None, typer.Option("--out", help="Also copy the trace to this file.")] = None,
    output: Output = None,
) -> None:
    """Trace the next optimizer steps of a run that goes on: for chrome://tracing or https://ui.perfetto.dev.

    Of rank 0, unless --rank names others. The trace is kept beside the run's checkpoints.
    """
    if out is not None and not out.parent.is_dir():
        raise typer.BadParameter(f"there is no directory {out.parent}", param_hint="--out")
    ranks = rank or [0]
    within_s = duration(within, "--within")
    with connected() as client:
        answers = [
            _show(each, _file_of(out, each, ranks))
            for each in client.profile(run, ranks=ranks, steps=steps, within_s=within_s, project=project())
        ]
    _leave(answers)


def _show(seen: Seen, out: Path | None = None) -> bool:
    """Print one answer, and fetch its trace; whether there was anything to see."""
    if output_format() is Format.TABLE:
        typer.echo(seen.message, err=not seen.ok)
        if seen.text:
            typer.echo(seen.text + "\n")
    else:
        show_one_of_many(seen)
    if out is not None and seen.trace is not None:
        from orchestrator.adapters.traces import fetch

        fetch(seen.trace, out)
        typer.echo(f"copied to {out}", err=True)
    return seen.ok


def _file_of(out: Path | None, seen: Seen, ranks: list[int]) -> Path | None:
    """Of several ranks each gets a file of its own."""
    if out is None or len(ranks) == 1:
        return out
    return out.with_name(f"{out.stem}-rank-{seen.ranks[0]}{out.suffix}")


def _leave(answers: Iterable[bool]) -> None:
    leave(ExitCode.OK if all(answers) else ExitCode.ERROR)
