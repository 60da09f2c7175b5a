"""The live view of one run: what happened as lines, where it stands as a bar that stays below them."""

from __future__ import annotations

import shlex
import time
from typing import TYPE_CHECKING, Protocol

import typer
from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from orchestrator.cli import render
from orchestrator.cli.session import ExitCode, Format, end_code, output_format, project, show_one_of_many
from orchestrator.core.observations import Progress
from orchestrator.errors import Unavailable

if TYPE_CHECKING:
    from orchestrator.api.client import Client
    from orchestrator.api.views import RunUpdate, RunView

LINE_EVERY_S = 5.0  # progress without a terminal
_RETRY_FOR_S = 120.0
_RETRY_PAUSE_S = 1.0


def watch(client: Client, run: RunView) -> ExitCode:
    """Until the run has ended, or Ctrl-C. A server that goes away is waited for."""
    view, run_id = _view(client, run), run.id
    try:
        with view:
            ended = _follow(client, run_id, view)
    except KeyboardInterrupt:
        typer.echo(f"\ndetached; the run goes on. Come back with: {_again(run_id)}", err=True)
        return ExitCode.NOT_FINISHED
    except Unavailable as error:
        typer.echo(f"{error}\nthe run goes on as far as it can. Come back with: {_again(run_id)}", err=True)
        return ExitCode.NOT_FINISHED
    view.finish(ended)
    return end_code(ended.state)


def _view(client: Client, run: RunView) -> View:
    if output_format() is not Format.TABLE:
        return Lines()
    if run.kind != "sweep":
        return Screen()
    from orchestrator.cli.sweep_watching import SweepScreen

    return SweepScreen(client, run.id)


def _again(run_id: str) -> str:
    """By id: the name may mean a newer run by then."""
    words = ("evertrain", *(("--project", project()) if project() else ()), "watch", run_id)
    return shlex.join(words)


def _follow(client: Client, run_id: str, view: View) -> RunView:
    after = 0
    lost_since_s: float | None = None
    while True:
        try:
            for update in client.watch(run_id, after_event=after, project=project()):
                lost_since_s = None
                after = max([after, *(each.seq for each in update.events)])
                view.update(update)
                if update.ended and update.run is not None:
                    return update.run
        except Unavailable as error:
            lost_since_s = lost_since_s or time.monotonic()
            if time.monotonic() - lost_since_s > _RETRY_FOR_S:
                raise
            view.note(f"server not reachable, trying again: {error}")
        time.sleep(_RETRY_PAUSE_S)


class View(Protocol):
    """What a watched run's updates are shown on."""

    def __enter__(self) -> View: ...

    def __exit__(self, *_: object) -> None: ...

    def update(self, update: RunUpdate) -> None: ...

    def note(self, words: str) -> None: ...

    def finish(self, run: RunView) -> None: ...


class Screen:
    """For people. On a terminal the last line moves; elsewhere it is repeated now and then."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or render.console()
        self._progress: Progress | None = None
        self._run: RunView | None = None
        self._printed_s = 0.0
        self._noted = ""
        self._live = Live(console=self._console, refresh_per_second=8, transient=True, get_renderable=self._bottom)

    def __enter__(self) -> Screen:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def update(self, update: RunUpdate) -> None:
        self._noted = ""
        self._run = update.run or self._run
        for event in update.events:
            self._console.print(render.event_line(event), soft_wrap=True)
        if update.progress is not None:
            self._progress = update.progress
            self._print_now_and_then(update.progress)

    def note(self, words: str) -> None:
        if not self._noted:
            self._console.print(Text(words, style="yellow"))
        self._noted = words

    def finish(self, run: RunView) -> None:
        self._console.print(render.ending(run))

    def _print_now_and_then(self, progress: Progress) -> None:
        if not self._console.is_terminal and time.monotonic() - self._printed_s >= LINE_EVERY_S:
            self._printed_s = time.monotonic()
            self._console.print(Text(render.progress_line(progress, time.time())), soft_wrap=True)

    def _bottom(self) -> RenderableType:
        if self._run is None:
            return Text("...")
        if self._progress is not None and self._run.state == "RUNNING":
            return render.progress_bar(self._progress, time.time())
        words = f"{self._run.state}: {render.harmless(self._run.reason.message)}"
        return Text(words, style="yellow", no_wrap=True, overflow="ellipsis")


class Lines:
    """For programs: one document an update."""

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, update: RunUpdate) -> None:
        show_one_of_many(update)

    def note(self, words: str) -> None:
        typer.echo(words, err=True)

    def finish(self, run: RunView) -> None:
        """The last update said it all."""
