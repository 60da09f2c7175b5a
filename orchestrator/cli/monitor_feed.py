"""monitor feed parquet, monitor feed sql, monitor feed promql: live traffic that lies somewhere already."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.session import connected, project
from orchestrator.errors import Refused, Unavailable

if TYPE_CHECKING:
    from orchestrator.adapters.feeds import Piece
    from orchestrator.api.client import Client

app = typer.Typer(
    no_args_is_help=True,
    help="Send a monitor what lies somewhere already, and later what is new. A file is sent once, whatever is killed; rows "
    "of a query may come twice where this was killed between sending them and writing down how far it was.",
)

Model = Annotated[str, typer.Argument(metavar="MODEL", help="The name of its runs.")]
Renames = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        metavar="NAME=COLUMN",
        help="Which column is the request, time, prediction, confidence or label. All others are features.",
    ),
]
Every = Annotated[str, typer.Option("--every", metavar="DURATION", help="Look again so often, until Ctrl-C.")]
Version = Annotated[int, typer.Option("--version", min=0, help="Of the model that answered; 0: not known.")]
State = Annotated[
    Path | None,
    typer.Option("--state", help="The file that says how far this feed has come; by default in EVERTRAIN_HOME."),
]

_OURS = ("request", "time", "prediction", "confidence", "label")


@app.command()
def parquet(
    model: Model,
    directory: Annotated[Path, typer.Argument(help="Its *.parquet files are sent in the order of their names.")],
    column: Renames = None,
    every: Every = "",
    version: Version = 0,
    state: State = None,
) -> None:
    """Files of a directory. Write each under a name with a dot in front, then rename it."""
    from orchestrator.adapters.feeds import parquet_pieces

    feed = Feed.open(model, version, ["parquet", str(directory.absolute())], column, state)
    feed.follow(lambda: parquet_pieces(directory, feed.progress.position), every)


@app.command()
def sql(
    model: Model,
    url: Annotated[str, typer.Argument(help="Of the database, as SQLAlchemy takes it.")],
    query: Annotated[str, typer.Argument(help="With :after for what is new: ... where at > :after order by at")],
    cursor: Annotated[str, typer.Option("--cursor", help="The column that :after is compared with.")] = "at",
    after: Annotated[str, typer.Option("--after", help="Where the first reading begins: a number or a time.")] = "",
    column: Renames = None,
    every: Every = "",
    version: Version = 0,
    state: State = None,
) -> None:
    """Rows of a query."""
    from orchestrator.adapters.feeds import beginning, sql_pieces

    feed = Feed.open(model, version, ["sql", url, query], column, state)
    if feed.progress.position is None and after:
        feed.progress.position = beginning(after)
    feed.follow(lambda: sql_pieces(url, query, cursor, feed.progress.position), every)


@app.command()
def promql(
    model: Model,
    url: Annotated[str, typer.Argument(help="Of a Prometheus: http://host:9090")],
    query: Annotated[list[str], typer.Argument(metavar="NAME=QUERY...", help="One column each, of one series.")],
    step: Annotated[str, typer.Option("--step", metavar="DURATION", help="A row so often.")] = "60s",
    back: Annotated[str, typer.Option("--back", metavar="DURATION", help="How far the first reading goes.")] = "1h",
    column: Renames = None,
    every: Every = "",
    version: Version = 0,
    state: State = None,
) -> None:
    """Rows of what Prometheus measured of a model."""
    from orchestrator.adapters.feeds import promql_pieces

    queries, step_s = dict(_pair(each, "NAME=QUERY") for each in query), _seconds("--step", step)
    feed = Feed.open(model, version, ["promql", url, queries, step_s], column, state)
    if feed.progress.position is None:
        feed.progress.position = time.time() - _seconds("--back", back)
    feed.follow(lambda: promql_pieces(url, queries, step_s, feed.progress.position, time.time()), every)


# ---- all of them ----------------------------------------------------------------------------------------------------


@dataclass
class Progress:
    """How far a feed has come: kept in a file, for the next time."""

    source: str
    seq: int = 1
    position: Any = None


@dataclass
class Feed:
    model: str
    version: int
    renames: Mapping[str, str]
    path: Path
    progress: Progress

    @classmethod
    def open(cls, model: str, version: int, asked: Sequence[Any], column: list[str] | None, state: Path | None) -> Feed:
        """Where it was left. Raises Refused for a file that is none of this."""
        from orchestrator.settings import home_dir

        renames = {wanted: f"({ours})" for ours, wanted in (_pair(each, "NAME=COLUMN") for each in column or ())}
        if strange := set(renames.values()) - {f"({each})" for each in _OURS}:
            raise Refused(f"--column {min(strange)[1:-1]}=...: must be one of {', '.join(_OURS)}")
        digest = hashlib.sha256(json.dumps([project(), model, asked]).encode()).hexdigest()[:16]
        path = state or home_dir() / "feeds" / f"{model}-{digest}.json"
        try:
            progress = Progress(**json.loads(path.read_text()))
        except FileNotFoundError:
            progress = Progress(f"feed-{digest}-{uuid.uuid4().hex[:8]}")
        except (ValueError, TypeError) as error:
            raise Refused(f"{path} does not say how far a feed has come ({error}): remove it to begin anew") from error
        return cls(model, version, renames, path, progress)

    def follow(self, pieces: Callable[[], Iterator[Piece]], every: str) -> None:
        """Once, or again and again until Ctrl-C."""
        every_s = _seconds("--every", every) if every else 0.0
        with connected() as client, contextlib.suppress(KeyboardInterrupt):
            while True:
                try:
                    typer.echo(f"{sum(self._send(client, each) for each in pieces()):,} rows sent to {self.model}")
                except Unavailable as error:
                    if not every_s:
                        raise
                    typer.echo(f"{error}; trying again in {every}", err=True)
                if not every_s:
                    return
                time.sleep(every_s)

    def _send(self, client: Client, piece: Piece) -> int:
        columns = {self.renames.get(name, name): values for name, values in piece.columns.items()}
        rows = max(map(len, columns.values()), default=0)
        if rows:
            source, seq = (piece.source, piece.seq) if piece.source else (self.progress.source, self.progress.seq)
            following = client.observe(
                self.model, columns, source=source, seq=seq, version=self.version, project=project()
            )
            if not piece.source:
                self.progress.seq = following
        self.progress.position = piece.position
        self._save()
        return rows

    def _save(self) -> None:
        from orchestrator.settings import write_private

        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_private(self.path, json.dumps(asdict(self.progress)) + "\n")


def _pair(text: str, form: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise Refused(f"{text!r}: must be {form}")
    return name, value


def _seconds(option: str, text: str) -> float:
    from orchestrator.spec.quantities import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise Refused(f"{option} {text}: {error}") from error
