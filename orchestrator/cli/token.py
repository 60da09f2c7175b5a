"""token create, token list, token revoke."""

from __future__ import annotations

import time
from typing import Annotated

import typer
from rich.text import Text

from orchestrator.cli.session import Output, connected, project, show
from orchestrator.core.records import Role

app = typer.Typer(no_args_is_help=True, help="Tokens: who may do what, in which project.")


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Whom or what it is for.")],
    role: Annotated[Role, typer.Option(help="viewer < user < admin; agent attaches a cluster.")] = Role.USER,
    expires: Annotated[str | None, typer.Option(help="Good for so long, such as 30d.")] = None,
    output: Output = None,
) -> None:
    """Make a token; its secret is shown this once."""
    from orchestrator.spec.quantities import parse_duration

    try:
        expires_s = parse_duration(expires) if expires is not None else None
    except ValueError as error:
        raise typer.BadParameter(f"{error}, got {expires!r}", param_hint="--expires") from error
    with connected() as client:
        made = client.create_token(name, role, project=project(), expires_s=expires_s)
    show(made, lambda: Text(made.secret))


@app.command("list")
def list_tokens(output: Output = None) -> None:
    """Tokens of the project, without their secrets."""
    from orchestrator.cli import render

    with connected() as client:
        found = client.tokens(project=project())
    show(found, lambda: render.tokens_table(found, time.time()))


@app.command()
def revoke(token_id: Annotated[str, typer.Argument(metavar="ID")], output: Output = None) -> None:
    """From now on nobody gets in with it."""
    with connected() as client:
        client.revoke_token(token_id, project=project())
    show({"revoked": token_id}, lambda: Text(f"token {token_id} revoked"))
