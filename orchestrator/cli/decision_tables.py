"""How decisions on retraining are drawn. Values in, text out."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from orchestrator.cli.render import duration, sentence
from orchestrator.protocol.decisions import DecisionView

_STYLE = {
    "promoted": "bold green",
    "probation": "green",
    "training": "cyan",
    "accepted": "cyan",
    "asked": "yellow",
    "waiting": "yellow",
    "failed": "bold red",
    "rolled_back": "red",
}


def table(decisions: Sequence[DecisionView], now: float) -> RenderableType:
    if not decisions:
        return Text("nothing was decided yet")
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in ("#", "AGE", "CAUSE", "STANDING", "RUN", "VERSION", "WHY"):
        drawn.add_column(name, overflow="fold", justify="right" if name in ("#", "AGE", "VERSION") else "left")
    for each in decisions:
        drawn.add_row(
            str(each.number),
            duration(now - each.at),
            each.cause,
            Text(each.standing, _STYLE.get(each.standing, "")),
            each.run,
            str(each.version or ""),
            sentence(each.told[-1] if each.told else each.words),  # `-o json` has all of it
        )
    return drawn


def line(decision: DecisionView) -> RenderableType:
    """What a command answers."""
    newest = decision.told[-1] if decision.told else decision.words
    return Text.assemble(
        f"{decision.model} #{decision.number} is ",
        (decision.standing, _STYLE.get(decision.standing, "")),
        f": {newest}",
    )
