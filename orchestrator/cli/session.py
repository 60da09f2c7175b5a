"""What every command shares: the global options, the client, and the way an answer is shown."""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import RenderableType

    from orchestrator.api.client import Client


class ExitCode(enum.IntEnum):
    OK = 0
    ERROR = 1
    USAGE = 2
    RUN_FAILED = 100
    NOT_FINISHED = 101
    NOT_FOUND = 102
    CANCELLED = 103


class Format(enum.StrEnum):
    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


@dataclass
class Globals:
    output: Format = Format.TABLE
    project: str = ""


_chosen = Globals()


def _choose(value: Format | None) -> Format | None:
    """The option counts wherever it stands: before the command or after it."""
    if value is not None:
        _chosen.output = value
    return value


Output = Annotated[Format | None, typer.Option("--output", "-o", help="table, json or yaml.", callback=_choose)]


def forget_choices() -> None:
    """At the start of a command line: one process may run several, as tests do."""
    _chosen.output, _chosen.project = Format.TABLE, ""


def choose_project(name: str) -> None:
    _chosen.project = name


def project() -> str:
    return _chosen.project


def output_format() -> Format:
    return _chosen.output


@contextlib.contextmanager
def connected() -> Iterator[Client]:
    """The client of the server in use. Raises Refused where nothing names one."""
    from orchestrator.api.client import Client

    with Client() as client:
        yield client


def show(answer: Any, table: Callable[[], RenderableType]) -> None:
    """`answer` as JSON or YAML where asked, else what `table` makes of it. Both say the same."""
    from orchestrator.cli import render

    match output_format():
        case Format.JSON:
            typer.echo(render.as_json(answer))
        case Format.YAML:
            typer.echo(render.as_yaml(answer), nl=False)
        case Format.TABLE:
            render.console().print(table())


def show_one_of_many(answer: Any) -> None:
    """The next part of an answer that has no end yet: JSON one a line, YAML a document each."""
    from orchestrator.cli import render

    if output_format() is Format.YAML:
        typer.echo(f"---\n{render.as_yaml(answer)}", nl=False)
    else:
        typer.echo(render.as_json(answer, indent=None))


def leave(code: ExitCode) -> None:
    if code is not ExitCode.OK:
        raise typer.Exit(int(code))


def end_code(state: str) -> ExitCode:
    """The exit code that tells how a run stands."""
    ended = {"SUCCEEDED": ExitCode.OK, "FAILED": ExitCode.RUN_FAILED, "CANCELLED": ExitCode.CANCELLED}
    return ended.get(state, ExitCode.NOT_FINISHED)
