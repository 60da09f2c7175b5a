"""secret put, secret list, secret delete."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.text import Text

from orchestrator.cli.session import Output, connected, project, show, standard_input
from orchestrator.errors import Refused

app = typer.Typer(no_args_is_help=True, help="Secrets that runs name and only ranks see.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="The environment variable that the ranks will have.")]


@app.command()
def put(name: Name, output: Output = None) -> None:
    """Keep a value, typed unseen or read from standard input: never from the command line, where others could read it."""
    if sys.stdin.isatty():
        value = str(typer.prompt(f"value of {name}", hide_input=True))
    else:
        value = standard_input(f"secret {name}").removesuffix("\n")
    if not value:
        raise Refused(f"secret {name}: the value is empty")
    with connected() as client:
        client.put_secret(name, value, project=project())
    show({"put": name}, lambda: Text(f"secret {name} kept"))


@app.command("list")
def list_secrets(output: Output = None) -> None:
    """Names only: values never come back."""
    with connected() as client:
        names = client.secrets(project=project())
    show(names, lambda: Text("\n".join(names) or "no secrets"))


@app.command()
def delete(name: Name, output: Output = None) -> None:
    """Forget a secret."""
    with connected() as client:
        client.delete_secret(name, project=project())
    show({"deleted": name}, lambda: Text(f"secret {name} deleted"))
