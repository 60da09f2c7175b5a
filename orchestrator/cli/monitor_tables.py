"""How monitors and judgements are drawn. Values in, text out: no calls, no clock (`now` is an argument)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from orchestrator.cli.render import date, duration, harmless
from orchestrator.core.monitors import Figures, Judgement, Watched

SHOWN = 10  # judgements in a description; `monitor judgements` has all
_STYLE = {
    "stable": "green",
    "suspected": "yellow",
    "drift": "bold red",
    "data_fault": "bold magenta",
    "blind": "bold yellow",
    "paused": "cyan",
}
SEVERITIES = ("none", "minor", "moderate", "major")
_DETECTORS = {"page_hinkley": "Page-Hinkley", "adwin": "ADWIN", "hddm_a": "HDDM-A"}
_MEASURES = ("ks", "psi", "jensen_shannon", "wasserstein", "chi_squared", "missing", "range", "new_categories")


def line(watched: Watched) -> Text:
    return Text.assemble(f"{watched.model}: ", Text(harmless(watched.words), style=_STYLE.get(watched.status, "")))


def status(name: str) -> Text:
    return Text(name, style=_STYLE.get(name, ""))


def monitors_table(monitors: Sequence[Watched], now: float) -> RenderableType:
    if not monitors:
        return Text("no monitors: a run file with a section `monitor` brings one with the model that it registers")
    table = _table("MODEL", "VERSION", "STATUS", "SINCE", "ROWS", "LABELS", "BEHIND", "WORDS")
    for each in monitors:
        table.add_row(
            each.model,
            str(each.reference),
            status(each.status),
            duration(now - each.newest.at) if each.newest is not None else "-",
            f"{each.figures.rows:,}",
            f"{each.figures.labels:,}",
            f"{each.figures.behind_rows:,}",
            Text(harmless(each.words), overflow="ellipsis", no_wrap=True),
        )
    return table


def description(watched: Watched, judged: Sequence[Judgement], now: float) -> RenderableType:
    """The newest judgement in words, the numbers behind it, and what went before."""
    rows: list[tuple[str, str | Text]] = [
        ("monitor", f"{watched.model}, judged against version {watched.reference}"),
        ("status", Text(harmless(watched.words), style=_STYLE.get(watched.status, ""))),
        ("window", _window(watched.settings.get("window") or {})),
        ("looked at", looked_at(watched.settings)),
        ("seen", seen(watched.figures)),
        ("performance", performance(watched.newest)),
        ("together", together(watched.newest)),
        ("run file of", watched.run),
        ("since", f"{date(watched.created_at)} ({duration(now - watched.created_at)})"),
    ]
    parts: list[RenderableType] = [_facts(rows)]
    if watched.newest is not None and watched.newest.evidence:
        parts += _evidence(watched.newest.evidence)
    if judged:
        parts += [Text(f"\nNewest judgements ({len(judged)})", style="bold"), judgements_table(judged)]
    return Group(*parts)


def performance(newest: Judgement | None) -> str:
    told = newest.evidence.get("performance") or {} if newest is not None else {}
    parts = []
    if "error_rate" in told:
        parts.append(f"{told['error_rate']:.1%} of {told['labels']:,.0f} labelled answers are wrong")
    if "estimated_accuracy" in told:
        parts.append(f"{told['estimated_accuracy']:.1%} are right by the model's own confidence")
    return "; ".join(parts) or "not known: neither labels nor a calibrated confidence"


def looked_at(settings: Mapping[str, Any]) -> str:
    """What a monitor's run file asks for beside each feature by itself."""
    detect = settings.get("detect") or {}
    concept, multivariate = detect.get("concept", "page_hinkley"), detect.get("multivariate", "classifier")
    jointly = {"classifier": "all together by a classifier", "mmd": "all together by their mean discrepancy"}
    features = ["each feature", *([jointly[multivariate]] if multivariate in jointly else [])]
    features += [f"embedding {each}" for each in detect.get("embeddings") or ()]
    return f"{', '.join(features)}; errors by {_DETECTORS.get(concept, concept)}"


def together(newest: Judgement | None) -> str:
    """What all features show at once, and each embedding."""
    told = newest.evidence.get("together") if newest is not None else None
    return harmless("; ".join(map(_jointly, told))) if told else "not looked at in the newest window"


def _jointly(told: Mapping[str, Any]) -> str:
    sure = f"; p {told['p']:.1g}, {told['n']:,.0f} rows against {told['m']:,.0f}" if "p" in told else ""
    return f"{told['of']}: {told['words']}{sure}"


def seen(figures: Figures) -> str:
    """Counts, those that are nothing left out beyond the first two."""
    more = {
        "labels for unknown requests": figures.unknown_labels,
        "rows too late for their window": figures.late_rows,
        "rows of other versions": figures.other_versions,
        "values of the wrong kind": figures.wrong_kind,
        "unreadable batches": figures.malformed,
        "rows not judged yet": figures.behind_rows,
    }
    known = [f"{figures.rows:,} rows", f"{figures.labels:,} labels", f"{figures.judged:,} windows judged"]
    return ", ".join([*known, *(f"{number:,} {what}" for what, number in more.items() if number)])


def judgements_table(judgements: Sequence[Judgement]) -> RenderableType:
    if not judgements:
        return Text("nothing was judged yet")
    table = _table("NUMBER", "WINDOW", "ROWS", "STATUS", "SEVERITY", "WORDS")
    for each in judgements:
        table.add_row(
            str(each.number),
            date(each.end),
            f"{each.rows:,}",
            status(each.status),
            SEVERITIES[each.severity],
            Text(harmless(each.words)),
        )
    return table


def _evidence(evidence: Mapping[str, Any]) -> list[RenderableType]:
    parts: list[RenderableType] = []
    if findings := evidence.get("findings"):
        table = _table("WHAT MOVED", "BY", "P", "WINDOWS", "SINCE")
        for each in findings:
            table.add_row(
                Text(harmless(each["words"])),
                f"{each['effect']:+.3f}",
                f"{each['p']:.1g}",
                f"{each['windows']:g}",
                date(each["since"]),
            )
        parts += [Text(f"\nFindings ({len(findings)})", style="bold"), table]
    if features := evidence.get("features"):
        table = _table("FEATURE", *(name.replace("_", " ") for name in _MEASURES))
        for each in features:
            tests = each["tests"]
            effects = [f"{tests[name][0]:.3f}" if name in tests else "" for name in _MEASURES]
            table.add_row(Text(harmless(each["feature"])), *effects)
        parts += [Text("\nFeatures that differ most", style="bold"), table]
    return parts


def _window(window: Mapping[str, Any]) -> str:
    if window.get("by") == "time":
        season = window.get("season", "none")
        against = f", by {season.replace('_', ' ')}" if season != "none" else ""
        return f"every {duration(float(window['length']))}, of at least {window['minimum']:g} rows{against}"
    return f"{window.get('by', 'adaptive')}, {window.get('rows', 500):g} rows"


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for each in columns:
        table.add_column(each, overflow="fold")
    return table


def _facts(rows: Sequence[tuple[str, str | Text]]) -> Table:
    table = Table.grid(padding=(0, 2))
    for name, value in rows:
        table.add_row(Text(name, style="dim"), value)
    return table
