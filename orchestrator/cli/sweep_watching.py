"""The live view of a sweep: how far it is, and its best trials, below what has happened."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.text import Text

from orchestrator.cli import sweep_tables
from orchestrator.cli.session import project
from orchestrator.cli.watching import LINE_EVERY_S, Screen
from orchestrator.errors import Unavailable

if TYPE_CHECKING:
    from orchestrator.api.client import Client
    from orchestrator.api.views import RunUpdate
    from orchestrator.core.sweeps import Sweep

_LOOK_EVERY_S = 1.0
_ROWS = 12  # trials that stay in sight


class SweepScreen(Screen):
    """As of one run; in place of its step stand its trials, the best first."""

    def __init__(self, client: Client, sweep_id: str, console: Console | None = None) -> None:
        self._client, self._sweep_id = client, sweep_id
        self._sweep: Sweep | None = None
        self._looked_s = 0.0
        super().__init__(console)  # last: it draws at once

    def update(self, update: RunUpdate) -> None:
        super().update(replace(update, progress=None))
        now_s = time.monotonic()
        if now_s - self._looked_s < _LOOK_EVERY_S and not update.ended:
            return
        self._looked_s = now_s
        try:
            self._sweep = self._client.sweep(self._sweep_id, project=project())
        except Unavailable as error:
            self.note(f"server not reachable, trying again: {error}")
            return
        self._print_line()

    def _print_line(self) -> None:
        if self._sweep is None or self._console.is_terminal or time.monotonic() - self._printed_s < LINE_EVERY_S:
            return
        self._printed_s = time.monotonic()
        self._console.print(Text(sweep_tables.progress_line(self._sweep, time.time())), soft_wrap=True)

    def _bottom(self) -> RenderableType:
        sweep = self._sweep
        if sweep is None or not sweep.trials:
            return super()._bottom()
        now = time.time()
        rows = sweep_tables.ranked(sweep)[:_ROWS]
        line = Text(sweep_tables.progress_line(sweep, now), style="bold")
        return Group(sweep_tables.trials_table(sweep, rows, now), line)
