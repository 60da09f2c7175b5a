"""How sweeps and trials are drawn. Values in, text out: no calls, no clock (`now` is an argument)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from orchestrator.cli.render import date, duration, sentence
from orchestrator.core.sweeps import Sweep, Trial, TrialState, better

_STYLE = {
    TrialState.RUNNING: "green",
    TrialState.COMPLETED: "bold green",
    TrialState.WAITING: "cyan",
    TrialState.STOPPED: "dim",
    TrialState.INFEASIBLE: "red",
}
_SHOWN = 20  # trials in a description; `sweep trials` has all


def ranked(sweep: Sweep) -> list[Trial]:
    """The best first; those that have reported nothing last, by number."""
    worst = -math.inf if sweep.mode == "max" else math.inf

    def key(trial: Trial) -> tuple[float, int]:
        value = trial.best(sweep.mode)
        found = worst if value is None else value
        return (-found if sweep.mode == "max" else found), trial.number

    return sorted(sweep.trials, key=key)


def description(sweep: Sweep, now: float) -> RenderableType:
    order = ranked(sweep)
    parts: list[RenderableType] = [head(sweep, now)]
    if order:
        parts += [Text(f"\nTrials, the best first ({len(order)})", style="bold")]
        parts += [trials_table(sweep, order[:_SHOWN], now)]
    if len(order) > _SHOWN:
        parts += [Text(f"… {len(order) - _SHOWN} more: `evertrain sweep trials {sweep.name}`", style="dim")]
    return Group(*parts)


def head(sweep: Sweep, now: float) -> RenderableType:
    counts = ", ".join(f"{number} {state.value}" for state, number in sweep.counts.items() if number)
    best = sweep.best
    rows = [
        ("sweep", f"{sweep.name} ({sweep.id})"),
        ("state", f"{sweep.state}: {sentence(sweep.reason)}"),
        ("searches", f"{sweep.metric} ({sweep.mode}) by {sweep.algorithm}, scheduler {sweep.scheduler}"),
        ("space", "; ".join(f"{path} {_range(kind)}" for path, kind in sweep.space.items())),
        ("trials", f"{len(sweep.trials)} of {sweep.wanted}: {counts or 'none yet'}"),
        ("room", f"{sweep.room} at a time"),
        ("submitted", date(sweep.submitted_at)),
        ("took", duration((sweep.ended_at or now) - sweep.submitted_at)),
    ]
    if best is not None:
        rows.append(("best", f"trial {best.number}: {sweep.metric} {best.best(sweep.mode):.6g} with {_point(best)}"))
    if sweep.cost is not None:
        rows.append(("cost", f"{sweep.cost:.4g} {sweep.currency or ''}"))
    table = Table.grid(padding=(0, 2))
    for name, value in rows:
        table.add_row(Text(name, style="dim"), Text(value))
    return table


def trials_table(sweep: Sweep, trials: Sequence[Trial], now: float) -> RenderableType:
    if not trials:
        return Text("no trials")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    changed = any(each.generation for each in sweep.trials)
    descent = ["GENERATION"] if changed else []
    for column in ("TRIAL", "STATE", sweep.metric.upper(), "REPORTS", *descent, "TOOK", "POINT", "RUN", "REASON"):
        right = column in ("TRIAL", "REPORTS", "TOOK", sweep.metric.upper())
        table.add_column(column, justify="right" if right else "left", overflow="fold")
    for each in trials:
        value = each.best(sweep.mode)
        table.add_row(
            str(each.number),
            Text(each.state.value, style=_STYLE[each.state]),
            "" if value is None else f"{value:.6g}",
            str(each.reports),
            *([_generation(each)] if changed else []),
            duration((each.ended_at or now) - each.submitted_at),
            Text(_point(each)),
            each.run_id,
            Text(sentence(each.reason)),
        )
    return table


def progress_line(sweep: Sweep, now: float) -> str:
    """How far it is, on one line."""
    counts, best = sweep.counts, sweep.best
    live = counts[TrialState.RUNNING] + counts[TrialState.WAITING]
    parts = [f"trials {len(sweep.trials) - live}/{sweep.wanted}", f"{counts[TrialState.RUNNING]} running"]
    if counts[TrialState.INFEASIBLE]:
        parts.append(f"{counts[TrialState.INFEASIBLE]} infeasible")
    if best is not None:
        parts.append(f"best {sweep.metric} {best.best(sweep.mode):.4g} (trial {best.number})")
    parts.append(duration((sweep.ended_at or now) - sweep.submitted_at))
    return "  ".join(parts)


def rows(sweep: Sweep) -> list[dict[str, Any]]:
    """One flat row a trial, in order of their numbers."""
    classes = sorted({each for trial in sweep.trials for each in trial.seconds})
    best_so_far: float | None = None
    found = []
    for trial in sweep.trials:
        value = trial.best(sweep.mode)
        if value is not None and (best_so_far is None or better(value, best_so_far, sweep.mode)):
            best_so_far = value
        found.append(
            {
                "trial": trial.number,
                "run": trial.run_id,
                "state": trial.state.value,
                **{path: trial.point.get(path) for path in sweep.space},
                sweep.metric: value,
                "reports": trial.reports,
                "generation": trial.generation,
                "parent": trial.parent,
                "start_s": trial.start_s,
                "took_s": None if trial.ended_at is None else trial.ended_at - trial.submitted_at,
                "cost": trial.cost,
                **{f"{each}_s": trial.seconds.get(each, 0.0) for each in classes},
                "reason": trial.reason,
            }
        )
    return found


def _generation(trial: Trial) -> str:
    return f"{trial.generation}: {trial.descent}" if trial.generation else "0"


def _point(trial: Trial) -> str:
    return ", ".join(
        f"{path}={value:.4g}" if isinstance(value, float) else f"{path}={value}" for path, value in trial.point.items()
    )


def _range(kind: Any) -> str:
    name = next((each for each in ("log", "uniform", "int", "choice", "grid") if kind.get(each)), "")
    when = f" when {kind['when']}" if kind.get("when") else ""
    return f"{name} {kind.get(name)}{when}"
