"""What a watch remembers, as JSON holds it, and a watch that goes on from there."""

from __future__ import annotations

import base64
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from orchestrator.drift.concept import resumed
from orchestrator.drift.estimation import Confidences
from orchestrator.drift.joining import Joining
from orchestrator.drift.rows import Layout, RowSample
from orchestrator.drift.seasons import Part, Seasons
from orchestrator.drift.sketches import SketchError, TableSummary
from orchestrator.drift.together import Together
from orchestrator.drift.verdicts import History, Streak
from orchestrator.drift.watch import Counts, Reference, Rules, Watch
from orchestrator.drift.windows import ADAPTIVE_SPANS, Window, Windows

FORMAT = 2
"""1, which said no number, knew one detector and kept no rows: it is read as what it was."""


def saved(watch: Watch) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "version": watch.reference.version,
        "windows": _windows(watch.windows),
        "history": {
            "judged": watch.history.judged,
            "streaks": {key: [each.windows, each.since] for key, each in watch.history.streaks.items()},
        },
        "joining": watch.joining.state(),
        "detector": watch.detector.state(),
        "learned": [watch.learned.labelled.tolist(), watch.learned.right.tolist()],
        "outcomes": list(watch.outcomes),
        "episodes": dict(watch.episodes),
        "blind": watch.blind,
        "heard_at": watch.heard_at,
        "counts": asdict(watch.counts),
        "embedded": embedded.state() if (embedded := watch.together.embedded) is not None else None,
        "seasons": [[number, part.state()] for number, part in watch.seasons.parts.items()],
    }


def restored(state: Mapping[str, Any], reference: Reference, rules: Rules) -> Watch:
    """Raises SketchError for a window that cannot be read, and for a state that a later version has written."""
    if state.get("format", 1) > FORMAT:
        raise SketchError(f"the watch's state has format {state['format']}, this version reads up to {FORMAT}")
    embedded = RowSample.from_state(state["embedded"]) if state.get("embedded") else None
    together = Together(reference.rows, rules.multivariate, rules.embeddings, embedded)
    known = state["history"]
    labelled, right = (np.array(each, dtype=np.int64) for each in state["learned"])
    errors, rows = state["outcomes"]
    return Watch(
        reference,
        rules,
        _read_windows(state["windows"], rules, together.layout),
        History(known["judged"], {key: Streak(*each) for key, each in known["streaks"].items()}),
        Joining.from_state(state["joining"]),
        resumed(rules.concept, state["detector"], rules.alarms, rules.error_shift),
        Confidences(labelled, labelled, right),
        (errors, rows),
        dict(state["episodes"]),
        state["blind"],
        state["heard_at"],
        Counts(**state["counts"]),
        _read_seasons(state, rules),
        together,
    )


def _read_seasons(state: Mapping[str, Any], rules: Rules) -> Seasons:
    parts = {number: Part.from_state(each) for number, each in state.get("seasons", ())}
    return Seasons(rules.season, rules.utc_offset_s, parts)


def newest_window(state: Mapping[str, Any]) -> Window | None:
    """The rows that were judged last."""
    recent = state["windows"]["recent"]
    return _read_window(recent[-1]) if recent else None


def seasonal(state: Mapping[str, Any], rules: Rules, time: float) -> TableSummary | None:
    """What rows of that time are judged against; None: the training profile."""
    part, _ = _read_seasons(state, rules).at(time)
    return part.table if part is not None else None


def _windows(windows: Windows) -> dict[str, Any]:
    return {
        "open": [[number, [*_window(each), _sample(each)]] for number, each in windows.open.items() if each.rows],
        "recent": [_window(each) for each in list(windows.recent)[-max(windows.cut.spans) :]],
        "closed_before": windows.closed_before,
        "late": windows.late,
        "offered": windows.offered,
    }


def _read_windows(state: Mapping[str, Any], rules: Rules, layout: Layout | None) -> Windows:
    return Windows(
        rules.cut,
        {number: _read_window(each) for number, each in state["open"]},
        deque((_read_window(each) for each in state["recent"]), maxlen=ADAPTIVE_SPANS[-1]),
        closed_before=state["closed_before"],
        late=state["late"],
        layout=layout,
        offered=state.get("offered", 0),
    )


def _window(window: Window) -> list[Any]:
    return [window.start, window.end, base64.b64encode(window.table.to_bytes()).decode()]


def _sample(window: Window) -> dict[str, Any] | None:
    """Only windows that are open need their rows: those that were judged are looked at as summaries."""
    return window.sample.state() if window.sample is not None else None


def _read_window(state: list[Any]) -> Window:
    start, end, table, *sample = state
    rows = RowSample.from_state(sample[0]) if sample and sample[0] else None
    return Window(start, end, TableSummary.from_bytes(base64.b64decode(table)), rows)
