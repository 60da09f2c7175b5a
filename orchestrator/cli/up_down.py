"""up, down."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from orchestrator.cli.session import Output, show
from orchestrator.settings import DEFAULT_GRPC_PORT, DEFAULT_HTTP_PORT, home_dir

Port = Annotated[int, typer.Option("--port", min=0, max=65535, help="Of the API; 0 takes any free one.")]
HttpPort = Annotated[int, typer.Option("--http-port", min=0, max=65535, help="Of /metrics and /healthz; 0: any.")]


def up(
    port: Port = DEFAULT_GRPC_PORT,
    http_port: HttpPort = DEFAULT_HTTP_PORT,
    cpus: Annotated[int | None, typer.Option(min=1, help="CPUs that Ray may use; by default all.")] = None,
    output: Output = None,
) -> None:
    """Start server, Ray and agent on this machine, and make them the ones that commands talk to."""
    from orchestrator.cli import stack

    state, started = stack.up(
        home_dir(), grpc_port=port, http_port=http_port, cpus=cpus, tell=lambda words: typer.echo(words, err=True)
    )
    context = stack.connect(state)
    answer = {
        "started": started,
        "server": state.server,
        "http": f"http://127.0.0.1:{state.http_port}",
        "ray": state.ray_address,
        "logs": str(state.log("server").parent),
        "context": str(context),
    }
    words = "up" if started else "already up"
    lines = [words, *(f"  {name:<8} {value}" for name, value in answer.items() if name != "started")]
    show(answer, lambda: Text("\n".join(lines)))


def down(output: Output = None) -> None:
    """End everything that `up` started; runs that have not ended go on after the next `up`."""
    from orchestrator.cli import stack

    ended = stack.down(home_dir())
    words = "nothing was up" if ended is None else f"down: {ended} processes ended, none left"
    show({"was_up": ended is not None, "processes_ended": ended or 0}, lambda: Text(words))
