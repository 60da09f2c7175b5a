"""The command `evertrain`. One file a noun, all drawing in render.py; this one only puts them together.

Starting must be quick: ray and torch are never imported, gRPC and the run file's models only by commands that need them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from orchestrator.cli import checkpoint, cluster, inspecting, model, monitor, runs, secret, sweep, token, up_down
from orchestrator.cli.session import ExitCode, Format, Output, choose_project, forget_choices, output_format
from orchestrator.errors import EvertrainError, InvalidSpec, NotFound, StorageFailed

app = typer.Typer(
    name="evertrain",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Training that does not stop: submit a run file, watch it, lose nothing.",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _global_options(
    project: Annotated[
        str, typer.Option("--project", "-p", envvar="EVERTRAIN_PROJECT", help="By default the token's.")
    ] = "",
    output: Output = None,
) -> None:
    choose_project(project)


def schema(output: Output = None) -> None:
    """The run file's JSON schema, for editors."""
    from orchestrator.cli import render
    from orchestrator.spec import json_schema

    described = json_schema()
    typer.echo(render.as_yaml(described).rstrip() if output_format() is Format.YAML else render.as_json(described))


_VERBS: tuple[tuple[str, Callable[..., None]], ...] = (
    ("up", up_down.up),
    ("down", up_down.down),
    ("submit", runs.submit),
    ("plan", runs.plan),
    ("list", runs.list_runs),
    ("describe", runs.describe),
    ("logs", runs.logs),
    ("watch", runs.watch),
    ("cancel", runs.cancel),
    ("pause", runs.pause),
    ("resume", runs.resume),
    ("stacks", inspecting.stacks),
    ("profile", inspecting.profile),
    ("schema", schema),
)
for verb, function in _VERBS:
    app.command(verb)(function)
for noun, commands in (
    ("checkpoint", checkpoint.app),
    ("sweep", sweep.app),
    ("model", model.app),
    ("monitor", monitor.app),
    ("cluster", cluster.app),
    ("token", token.app),
    ("secret", secret.app),
):
    app.add_typer(commands, name=noun)


def main() -> None:
    """Errors become one message on stderr and an exit code."""
    forget_choices()
    try:
        app()
    except NotFound as error:
        _fail(error, ExitCode.NOT_FOUND)
    except EvertrainError as error:
        _fail(error, ExitCode.ERROR)
    except BrokenPipeError:  # `evertrain logs ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(ExitCode.OK)
    except OSError as error:  # of files that no layer below had words for: a full disk, a file that became unreadable
        where = f"{error.filename}: " if error.filename else ""
        _fail(StorageFailed(f"{where}{error.strerror or error}"), ExitCode.ERROR)


def _fail(error: EvertrainError, code: ExitCode) -> None:
    lines = str(error).splitlines() or [type(error).__name__]
    if isinstance(error, InvalidSpec) and len(lines) > 1:
        lines = [f"{len(lines)} places are wrong:", *(f"  {line}" for line in lines)]
    typer.echo("error: " + "\n".join(lines), err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
