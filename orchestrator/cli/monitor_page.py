"""A monitor as one HTML page that needs nothing beside itself: its pictures are inline SVG, and there is no script."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from orchestrator.cli.monitor_tables import SEVERITIES, looked_at, performance, seen, together
from orchestrator.cli.render import date
from orchestrator.core.monitors import Judgement, Picture, Watched

_COLOURS = {
    "stable": "#4a9a5f",
    "suspected": "#e0a800",
    "drift": "#b2182b",
    "data_fault": "#8e44ad",
    "blind": "#555555",
    "too_few": "#cccccc",
}
_REFERENCE, _CURRENT = "#9bb3c9", "#b2182b"
_WIDE, _HIGH = 460, 170
_LONGEST_NAME = 40

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1 { font-size: 1.5rem; overflow-wrap: anywhere; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; } td, th { padding: .15rem .6rem .15rem 0; text-align: left; vertical-align: top; }
td.number { text-align: right; font-variant-numeric: tabular-nums; } .note { color: #555; font-size: .85rem; }
.pictures { display: flex; flex-wrap: wrap; gap: 1rem; } figure { margin: 0; } figcaption { font-weight: 600; }
svg { display: block; max-width: 100%; height: auto; } svg text { font-size: 11px; fill: #444; }
"""


def page(watched: Watched, judged: Sequence[Judgement]) -> str:
    """The whole page. `judged`: newest first."""
    parts = [
        f"<h1>Monitor of {escape(watched.model)}</h1>",
        f'<p style="color:{_COLOURS.get(watched.status, "#222")}">{escape(watched.words)}</p>',
        f'<p class="note">Judged against version {watched.reference}; {escape(seen(watched.figures))}.</p>',
        f'<p class="note">Performance in the newest window: {escape(performance(watched.newest))}.</p>',
        f'<p class="note">Looked at: {escape(looked_at(watched.settings))}.</p>',
        f'<p class="note">All features together, in the newest window: {escape(together(watched.newest))}.</p>',
        "<h2>Judgements over time</h2>",
        _timeline(judged),
        "<h2>What moved</h2>",
        _findings(watched.newest),
        "<h2>Reference and the newest window</h2>",
        _pictures(watched.pictures),
        f"<h2>{len(judged)} newest judgements</h2>",
        _table(judged),
    ]
    head = f'<meta charset="utf-8"><title>Monitor of {escape(watched.model)}</title><style>{_STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n' + "\n".join(parts) + "\n</body></html>\n"


def _timeline(judged: Sequence[Judgement]) -> str:
    """One bar a judgement, oldest first: as high as it is severe."""
    if not judged:
        return _note("Nothing was judged yet.")
    width = 2 * _WIDE / max(len(judged), 40)
    bars = []
    for place, each in enumerate(reversed(judged)):
        high = 14 + 22 * each.severity
        told = escape(f"{date(each.end)}: {each.words}")
        bars.append(
            f'<rect x="{place * width:.2f}" y="{90 - high}" width="{max(width - 1, 0.5):.2f}" height="{high}" '
            f'fill="{_COLOURS.get(each.status, "#999")}"><title>{told}</title></rect>'
        )
    ends = (
        f'<text x="0" y="106">{date(judged[-1].end)}</text>'
        f'<text x="{2 * _WIDE}" y="106" text-anchor="end">{date(judged[0].end)}</text>'
    )
    legend = " ".join(f'<span style="color:{colour}">&#9632;</span> {name}' for name, colour in _COLOURS.items())
    return _svg(2 * _WIDE, 110, [*bars, ends]) + f'<p class="note">{legend}; a higher bar is more severe.</p>'


def _findings(newest: Judgement | None) -> str:
    findings = newest.evidence.get("findings", ()) if newest is not None else ()
    if not findings:
        return _note("Nothing in the newest window.")
    rows = "".join(
        f"<tr><td>{escape(each['words'])}</td><td>{SEVERITIES[int(each['severity'])]}</td>"
        f'<td class="number">{each["effect"]:+.3f}</td><td class="number">{each["p"]:.1g}</td>'
        f'<td class="number">{each["windows"]:g}</td><td>{date(each["since"])}</td></tr>\n'
        for each in findings
    )
    heads = "".join(f"<th>{name}</th>" for name in ("", "severity", "effect", "p", "windows", "since"))
    return f"<table><tr>{heads}</tr>\n{rows}</table>"


def _pictures(pictures: Sequence[Picture]) -> str:
    if not pictures:
        return _note("Nothing to draw: no window was judged yet.")
    legend = (
        f'<p class="note"><span style="color:{_REFERENCE}">&#9632;</span> reference '
        f'<span style="color:{_CURRENT}">&#9632;</span> newest window; shares of the rows.</p>'
    )
    return legend + '<div class="pictures">' + "".join(_picture(each) for each in pictures) + "</div>"


def _picture(picture: Picture) -> str:
    most = max([*picture.reference, *picture.current, 1e-9])
    step = (_WIDE - 20) / len(picture.bins)
    bars = []
    for place, (name, before, now) in enumerate(zip(picture.bins, picture.reference, picture.current, strict=True)):
        told = escape(f"{name}: {before:.1%} in the reference, {now:.1%} now")
        left, floor = 10 + place * step, _HIGH - 24
        high, higher = (share / most * (floor - 8) for share in (before, now))
        bars.append(
            f'<rect x="{left:.1f}" y="{floor - high:.1f}" width="{step * 0.9:.1f}" height="{high:.1f}" '
            f'fill="{_REFERENCE}"><title>{told}</title></rect>'
            f'<rect x="{left + step * 0.25:.1f}" y="{floor - higher:.1f}" width="{step * 0.4:.1f}" '
            f'height="{higher:.1f}" fill="{_CURRENT}"><title>{told}</title></rect>'
        )
    first, last = escape(_short(picture.bins[0])), escape(_short(picture.bins[-1]))
    ends = (
        f'<text x="10" y="{_HIGH - 8}">{first}</text>'
        f'<text x="{_WIDE - 10}" y="{_HIGH - 8}" text-anchor="end">{last}</text>'
    )
    caption = f"<figcaption>{escape(_short(picture.feature))}</figcaption>"
    return f"<figure>{caption}{_svg(_WIDE, _HIGH, [*bars, ends])}</figure>\n"


def _table(judged: Sequence[Judgement]) -> str:
    rows = "".join(
        f'<tr><td class="number">{each.number}</td><td>{date(each.end)}</td><td class="number">{each.rows:,}</td>'
        f'<td style="color:{_COLOURS.get(each.status, "#999")}">{escape(each.status)}</td>'
        f"<td>{escape(each.words)}</td></tr>\n"
        for each in judged
    )
    heads = "".join(f"<th>{name}</th>" for name in ("", "window's end", "rows", "status", "words"))
    return f"<table><tr>{heads}</tr>\n{rows}</table>"


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_NAME else text[: _LONGEST_NAME - 1] + "…"


def _svg(width: float, height: float, parts: Sequence[str]) -> str:
    return f'<svg viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" role="img">' + "".join(parts) + "</svg>"


def _note(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>'
