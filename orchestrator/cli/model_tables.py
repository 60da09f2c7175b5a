"""How promotions, comparisons and lineages are drawn. Values in, text out: no calls, no clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from orchestrator.cli.render import date
from orchestrator.core.records import AliasMove, Ancestor, ModelVersion

if TYPE_CHECKING:
    from orchestrator.api.views import Comparison


def moved(move: AliasMove) -> RenderableType:
    was = f"it was version {move.before}" if move.before else "it stood nowhere"
    return Text(f"{move.alias} of {move.name} is version {move.version} ({was}): {move.reason}")


def history(moves: Sequence[AliasMove]) -> RenderableType:
    if not moves:
        return Text("no such alias of this model has ever moved")
    table = _table("WHEN", "ALIAS", "FROM", "TO", "BY", "REASON")
    for each in moves:
        was = str(each.before) if each.before else "-"
        table.add_row(date(each.at), each.alias, was, str(each.version), each.by, Text(each.reason))
    return table


def comparison(found: Comparison) -> RenderableType:
    before, after = found.champion, found.challenger
    metrics = _table("METRIC", f"VERSION {before.version}", f"VERSION {after.version}")
    for name in sorted({*before.metrics, *after.metrics}):
        values = (each.metrics.get(name) for each in (before, after))
        metrics.add_row(name, *("-" if each is None else f"{each:.4g}" for each in values))
    parts: list[RenderableType] = [Text("Each on its own test part", style="bold"), metrics]
    judgement = found.judgement
    if judgement.get("findings"):
        parts += [Text("\nBoth on the same rows", style="bold"), _findings(judgement["findings"])]
    style = "green" if judgement.get("promote") else "yellow"
    return Group(*parts, Text(f"\nversion {after.version} is {judgement.get('words', '')}", style=style))


def _findings(findings: Sequence[Mapping[str, Any]]) -> RenderableType:
    table = _table("", "WHAT", "FOUND")
    for each in findings:
        mark = Text("ok", style="green") if each["holds"] else Text("no", style="red")
        table.add_row(mark, str(each["what"]), Text(str(each["words"])))
    return table


def shadow(version: ModelVersion, counts: Mapping[str, int], to: Path) -> RenderableType:
    lines = [f"{to}: what version {version.version} would have said of {counts['rows']:,} rows"]
    if counts.get("served"):
        lines.append(f"it agrees with what served in {counts['agree'] / counts['served']:.1%} of {counts['served']:,}")
    if counts.get("labelled"):
        served = (
            f", what served in {counts['served_right'] / counts['labelled']:.1%}" if "served_right" in counts else ""
        )
        lines.append(
            f"it is right in {counts['right'] / counts['labelled']:.1%}{served} of {counts['labelled']:,} labelled"
        )
    return Text("\n".join(lines))


def lineage(ancestors: Sequence[Ancestor]) -> RenderableType:
    table = _table("VERSION", "RUN", "SUBMITTED", "BY", "DATA", "BEGAN WITH", "COMPARED WITH")
    for each in ancestors:
        version = each.version
        table.add_row(
            f"{version.name}@{version.version}",
            f"{each.run} ({version.run_id})",
            date(each.submitted_at),
            each.submitted_by,
            each.data or "-",
            each.weights or "random numbers",
            f"version {each.champion}" if each.champion else "-",
        )
    return table


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for each in columns:
        table.add_column(each, overflow="fold")
    return table
