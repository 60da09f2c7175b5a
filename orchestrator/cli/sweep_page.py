"""A sweep as one HTML page that needs nothing beside itself: its pictures are inline SVG, and there is no script."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import Any, Literal

from orchestrator.adapters.importance import Importance, importance
from orchestrator.cli.render import duration
from orchestrator.core.sweeps import Mode, Sweep, Trial, better

WORK = "worker-seconds"
"""What trials are drawn against where no second metric is asked for; less is better."""

_WIDE, _HIGH = 1060, 330
_BAD, _GOOD, _BEST, _NONE = (201, 214, 226), (24, 62, 110), "#b2182b", "#bbb"
_LONGEST_NAME = 26

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1 { font-size: 1.5rem; overflow-wrap: anywhere; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; } td, th { padding: .15rem .6rem .15rem 0; text-align: left; vertical-align: top; }
td.number { text-align: right; font-variant-numeric: tabular-nums; } tr.best { color: #b2182b; font-weight: 600; }
.wide { overflow-x: auto; } .note { color: #555; font-size: .85rem; }
svg { display: block; max-width: 100%; height: auto; } svg text { font-size: 12px; fill: #444; }
svg text { paint-order: stroke; stroke: #fff; stroke-width: 3px; }
svg .axis { stroke: #999; } svg polyline, svg path { fill: none; } svg .best { stroke: #b2182b; stroke-width: 2.5; }
"""


@dataclass(frozen=True)
class Against:
    """The second of the two metrics of the Pareto front."""

    name: str = WORK
    mode: Mode = "min"

    def of(self, trial: Trial) -> float | None:
        if self.name == WORK:
            return sum(trial.seconds.values()) or None
        value = trial.metrics.get(self.name)
        return value if value is not None and math.isfinite(value) else None


def page(sweep: Sweep, against: Against | None = None) -> str:
    """The whole page. `against`: what the Pareto front has beside the sweep's metric, by default the work done."""
    shown = _Shown(sweep)
    parts = [
        f"<h1>Sweep {escape(sweep.name)}</h1>",
        _facts(sweep),
        "<h2>Best trial</h2>",
        _best(sweep),
        "<h2>Trials by their parameters</h2>",
        _parallel(shown),
        f"<h2>Importance of each parameter for {escape(sweep.metric)}</h2>",
        _importance(importance(sweep.trials, sweep.space, sweep.mode)),
        "<h2>Learning curves</h2>",
        _curves(shown),
        _pareto(shown, against or Against()),
        f"<h2>{len(sweep.trials)} trials</h2>",
        _table(shown),
    ]
    head = f'<meta charset="utf-8"><title>Sweep {escape(sweep.name)}</title><style>{_STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n' + "\n".join(parts) + "\n</body></html>\n"


class _Shown:
    """The trials of a sweep from worst to best, so that the best is drawn over the others, with their colours.

    Colours go by rank and not by value: one trial that diverged would make all others look alike.
    """

    def __init__(self, sweep: Sweep) -> None:
        self.sweep = sweep
        self.best = sweep.best
        sign = 1 if sweep.mode == "max" else -1
        valued = [(each, value) for each in sweep.trials if (value := _value(each, sweep.mode)) is not None]
        self.valued = sorted(valued, key=lambda each: (sign * each[1], -each[0].number))
        self._rank = {trial.number: place for place, (trial, _) in enumerate(self.valued)}
        self.changed = any(each.generation for each in sweep.trials)  # a population: trials go on from one another
        self.paths = [*sweep.space, *sorted({path for each in sweep.trials for path in each.point} - {*sweep.space})]

    def colour(self, trial: Trial) -> str:
        if trial.number not in self._rank:
            return _NONE
        share = self._rank[trial.number] / max(1, len(self.valued) - 1)
        red, green, blue = (round(low + (high - low) * share) for low, high in zip(_BAD, _GOOD, strict=True))
        return f"rgb({red},{green},{blue})"

    def stroke(self, trial: Trial) -> str:
        return 'class="best"' if self.best == trial else f'stroke="{self.colour(trial)}"'

    def title(self, trial: Trial) -> str:
        value = _value(trial, self.sweep.mode)
        words = ", ".join(f"{path} {_short(each)}" for path, each in trial.point.items())
        said = "no value" if value is None else f"{self.sweep.metric} {_short(value)}"
        return f"<title>{escape(f'trial {trial.number}: {said}; {words}')}</title>"


def _value(trial: Trial, mode: Mode) -> float | None:
    value = trial.best(mode)
    return value if value is not None and math.isfinite(value) else None


# ---- words ----------------------------------------------------------------------------------------------------------


def _facts(sweep: Sweep) -> str:
    counts = ", ".join(f"{count} {state.value}" for state, count in sweep.counts.items() if count)
    facts = {
        "state": f"{sweep.state}: {sweep.reason}" if sweep.reason else sweep.state,
        "metric": f"{sweep.metric}, {'the more' if sweep.mode == 'max' else 'the less'} the better",
        "algorithm": f"{sweep.algorithm}, scheduler {sweep.scheduler}",
        "trials": f"{len(sweep.trials)} of at most {sweep.wanted}" + (f": {counts}" if counts else ""),
    }
    if sweep.started_at is not None and sweep.ended_at is not None:
        facts["duration"] = duration(sweep.ended_at - sweep.started_at)
    if sweep.cost is not None:
        facts["cost"] = f"{sweep.cost:.2f} {sweep.currency or ''}".rstrip()
    return _pairs(facts)


def _best(sweep: Sweep) -> str:
    found = sweep.best
    value = None if found is None else found.best(sweep.mode)
    if found is None or value is None:
        reasons = dict.fromkeys(each.reason for each in sweep.trials if each.reason)
        why = f" What they said: {escape('; '.join(list(reasons)[:3]))}" if reasons else ""
        return f"<p>No trial has a value of {escape(sweep.metric)}.{why}</p>"
    about = {"trial": found.number, sweep.metric: _short(value), "run": found.run_id, **found.point}
    return _pairs({name: _short(each) for name, each in about.items() if each != ""})


def _pairs(facts: Mapping[str, Any]) -> str:
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(str(value))}</td></tr>" for name, value in facts.items())
    return f"<table>{rows}</table>"


def _note(words: str) -> str:
    return f'<p class="note">{escape(words)}</p>'


def _short(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _named(name: str) -> str:
    """For a picture: no longer than there is room, whole when pointed at."""
    cut = name if len(name) <= _LONGEST_NAME else f"…{name[1 - _LONGEST_NAME :]}"
    return f"{escape(cut)}<title>{escape(name)}</title>"


def _svg(height: float, body: Iterable[str], width: float = _WIDE) -> str:
    return f'<svg viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" role="img">{"".join(body)}</svg>'


# ---- axes -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Axis:
    """Where values lie between 0 and 1, and the marks beside it."""

    place: Callable[[Any], float]
    marks: tuple[tuple[float, str], ...]


def _axis(values: Sequence[Any], kind: Literal["log", "numbers", "names"]) -> _Axis:
    """Through the given values; there is at least one."""
    if kind == "names":
        names = list(dict.fromkeys(map(str, values)))
        step = 1 / max(1, len(names) - 1)
        where = {name: 0.5 if len(names) == 1 else place * step for place, name in enumerate(names)}
        return _Axis(lambda value: where[str(value)], tuple((place, name) for name, place in where.items()))
    low, high = min(values), max(values)
    scale: Callable[[float], float] = math.log if kind == "log" else float
    span = scale(high) - scale(low)
    if not span:
        return _Axis(lambda value: 0.5, ((0.5, _short(low)),))
    return _Axis(lambda value: (scale(value) - scale(low)) / span, ((0.0, _short(low)), (1.0, _short(high))))


def _parameter_axis(path: str, trials: Sequence[Trial], space: Mapping[str, Any]) -> _Axis | None:
    """None where no trial has the parameter."""
    tried = [each.point[path] for each in trials if path in each.point]
    if not tried:
        return None
    known = space.get(path) or {}
    listed = [*(known.get("choice") or known.get("grid") or ()), *tried]
    if any(isinstance(each, bool) or not isinstance(each, int | float) for each in listed):
        return _axis(listed, "names")
    if len(listed) > len(tried):
        return _axis(sorted(listed), "names")
    return _axis(tried, "log" if known.get("log") and min(tried) > 0 else "numbers")


# ---- parallel coordinates -------------------------------------------------------------------------------------------

_TOP, _FOOT, _LACKING = 46, 250, 290


def _parallel(shown: _Shown) -> str:
    if not shown.valued:
        return _note("Nothing to draw: no trial has a value.")
    trials = [trial for trial, _ in shown.valued]
    axes = {path: axis for path in shown.paths if (axis := _parameter_axis(path, trials, shown.sweep.space))}
    values = _axis([value for _, value in shown.valued], "numbers")
    step = (_WIDE - 180) / max(1, len(axes))
    across = {path: 70 + place * step for place, path in enumerate((*axes, ""))}
    lines = [
        f'<polyline {shown.stroke(trial)} points="{_through(trial, value, axes, values, across)}">'
        f"{shown.title(trial)}</polyline>"
        for trial, value in shown.valued
    ]
    drawn = [_drawn_axis(across[path], path, axis, place) for place, (path, axis) in enumerate(axes.items())]
    drawn.append(_drawn_axis(across[""], shown.sweep.metric, values, len(axes)))
    lacking = any(path not in each.point for each in trials for path in axes)
    said = "Darker is better, by rank; the best is red."
    if lacking:
        said += " A line goes below an axis where the parameter does not count for that trial."
    return _svg(_LACKING + 16, [*lines, *drawn]) + _note(said)


def _through(trial: Trial, value: float, axes: Mapping[str, _Axis], values: _Axis, across: Mapping[str, float]) -> str:
    points = [
        (across[path], _height(axis.place(trial.point[path])) if path in trial.point else _LACKING)
        for path, axis in axes.items()
    ]
    points.append((across[""], _height(values.place(value))))
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _height(share: float) -> float:
    return _FOOT - share * (_FOOT - _TOP)


def _drawn_axis(x: float, name: str, axis: _Axis, place: int) -> str:
    """Names of neighbours stand at two heights, so that they do not run into one another."""
    marks = "".join(
        f'<text x="{x + 5:.1f}" y="{_height(share) + 4:.1f}">{_named(word)}</text>' for share, word in axis.marks
    )
    return (
        f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_FOOT}"/>'
        f'<text x="{x:.1f}" y="{14 + place % 2 * 16}" text-anchor="middle">{_named(name)}</text>{marks}'
    )


# ---- importance -----------------------------------------------------------------------------------------------------


def _importance(found: Importance) -> str:
    if found.lacking:
        return _note(f"Not known: {found.lacking}.")
    rows = [(path, share, f"{share:.1%}") for path, share in found.shares.items()]
    rows += [
        (path, share, f"{share:.1%} among the {count} trials that have it")
        for path, (share, count) in found.conditional.items()
    ]
    said = (
        f"fANOVA over the best values of {found.trials} trials: the share of their variance that each parameter explains "
        "alone; what is missing of 100 % is their interplay. A trial that was stopped early counts with what it had reached."
    )
    return _bars(sorted(rows, key=lambda row: -row[1])) + _note(said)


def _bars(rows: Sequence[tuple[str, float, str]]) -> str:
    most = max((share for _, share, _ in rows), default=0.0) or 1.0
    lines = [
        f'<text x="200" y="{place * 20 + 14}" text-anchor="end">{_named(name)}</text>'
        f'<rect x="210" y="{place * 20 + 3}" width="{share / most * 300:.1f}" height="14" fill="rgb{_GOOD}"/>'
        f'<text x="{218 + share / most * 300:.0f}" y="{place * 20 + 14}">{escape(words)}</text>'
        for place, (name, share, words) in enumerate(rows)
    ]
    return _svg(len(rows) * 20 + 6, lines, width=800)


# ---- curves and front -----------------------------------------------------------------------------------------------


def _curves(shown: _Shown) -> str:
    curves = [(trial, [each for each in trial.curve if math.isfinite(each[1])]) for trial, _ in shown.valued]
    if not curves:
        return _note("Nothing to draw: no trial has a value.")
    reports = _axis([report for _, curve in curves for report, _ in curve], "numbers")
    values = _axis([value for _, curve in curves for _, value in curve], "numbers")
    lines = []
    for trial, curve in curves:
        points = [(_right(reports.place(report)), _down(values.place(value))) for report, value in curve]
        x, y = points[-1]
        along = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        lines.append(
            f'<polyline {shown.stroke(trial)} points="{along}">{shown.title(trial)}</polyline>'
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{_BEST if trial == shown.best else shown.colour(trial)}"/>'
        )
    return _plot(lines, reports, values, "reports", shown.sweep.metric) + _note("A dot is where a trial ended.")


def _pareto(shown: _Shown, against: Against) -> str:
    heading = f"<h2>Pareto front: {escape(shown.sweep.metric)} and {escape(against.name)}</h2>"
    both = [(trial, value, other) for trial, value in shown.valued if (other := against.of(trial)) is not None]
    if not both:
        names = sorted({name for trial, _ in shown.valued for name in trial.metrics})
        known = f" They report {', '.join(names)}." if names else ""
        return heading + _note(f"Nothing to draw: no trial has both.{known}")
    front = front_of(both, shown.sweep.mode, against.mode)
    others, values = _axis([other for *_, other in both], "numbers"), _axis([value for _, value, _ in both], "numbers")
    placed = {trial.number: (_right(others.place(other)), _down(values.place(value))) for trial, value, other in both}
    drawn = [
        f'<path stroke="{_BEST}" d="M{placed[a.number][0]:.1f},{placed[a.number][1]:.1f} '
        f'L{placed[b.number][0]:.1f},{placed[b.number][1]:.1f}"/>'
        for a, b in pairwise(front)
    ]
    drawn += [
        f'<circle cx="{placed[trial.number][0]:.1f}" cy="{placed[trial.number][1]:.1f}" r="4" '
        f'fill="{_BEST if trial in front else shown.colour(trial)}">{shown.title(trial)}</circle>'
        for trial, _, _ in both
    ]
    numbers = ", ".join(str(each.number) for each in front)
    said = f"On the front, where neither gets better without the other's getting worse: trials {numbers}."
    return heading + _plot(drawn, others, values, against.name, shown.sweep.metric) + _note(said)


def front_of(both: Sequence[tuple[Trial, float, float]], mode: Mode, other_mode: Mode) -> list[Trial]:
    """The trials that no other one beats in one value without being worse in the other, by the second value."""
    sign = 1 if other_mode == "min" else -1
    best_first = -1 if mode == "max" else 1
    front: list[Trial] = []
    held: float | None = None
    for trial, value, _ in sorted(both, key=lambda each: (sign * each[2], best_first * each[1], each[0].number)):
        if held is None or better(value, held, mode):
            front.append(trial)
            held = value
    return front


_LEFT, _BOTTOM = 80, _HIGH - 40


def _right(share: float) -> float:
    return _LEFT + share * (_WIDE - _LEFT - 40)


def _down(share: float) -> float:
    return _BOTTOM - share * (_BOTTOM - 14)


def _plot(drawn: Sequence[str], across: _Axis, up: _Axis, across_name: str, up_name: str) -> str:
    words = [
        f'<path class="axis" d="M{_LEFT},14 V{_BOTTOM} H{_WIDE - 40}"/>',
        f'<text x="{(_LEFT + _WIDE) / 2:.0f}" y="{_HIGH - 8}" text-anchor="middle">{_named(across_name)}</text>',
        f'<text transform="translate(14,{_HIGH / 2:.0f}) rotate(-90)" text-anchor="middle">{_named(up_name)}</text>',
    ]
    words += [
        f'<text x="{_right(share):.0f}" y="{_BOTTOM + 16}" text-anchor="middle">{escape(word)}</text>'
        for share, word in across.marks
    ]
    words += [
        f'<text x="{_LEFT - 6}" y="{_down(share) + 4:.0f}" text-anchor="end">{escape(word)}</text>'
        for share, word in up.marks
    ]
    return _svg(_HIGH, [*words, *drawn])


# ---- table ----------------------------------------------------------------------------------------------------------


def _table(shown: _Shown) -> str:
    if not shown.sweep.trials:
        return _note("None yet.")
    descent = ["generations"] if shown.changed else []
    columns = ["trial", "state", shown.sweep.metric, "reports", *descent, *shown.paths, "start", "cost", "why"]
    ranked = [trial for trial, _ in reversed(shown.valued)]
    ranked += [each for each in shown.sweep.trials if each not in ranked]
    heads = "".join(f"<th>{escape(each)}</th>" for each in columns)
    rows = "".join(_row(shown, each) for each in ranked)
    return f'<div class="wide"><table><tr>{heads}</tr>\n{rows}</table></div>'


def _row(shown: _Shown, trial: Trial) -> str:
    value = _value(trial, shown.sweep.mode)
    cells = [
        str(trial.number),
        trial.state.value,
        "" if value is None else _short(value),
        str(trial.reports or ""),
        *([trial.descent] if shown.changed else []),
        *(_short(trial.point[path]) if path in trial.point else "-" for path in shown.paths),
        "" if trial.start_s is None else f"{trial.start_s:.1f} s",
        "" if trial.cost is None else f"{trial.cost:.2f}",
        trial.reason,
    ]
    numbers = {0, 2, 3}
    filled = "".join(
        f"<td{' class=number' if place in numbers else ''}>{escape(cell)}</td>" for place, cell in enumerate(cells)
    )
    return f"<tr{' class=best' if trial == shown.best else ''}>{filled}</tr>\n"
