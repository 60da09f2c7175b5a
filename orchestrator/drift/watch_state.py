"""What a watch remembers, as JSON holds it, and a watch that goes on from there."""

from __future__ import annotations

import base64
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from orchestrator.drift.detectors import PageHinkley
from orchestrator.drift.estimation import Confidences
from orchestrator.drift.joining import Joining
from orchestrator.drift.sketches import TableSummary
from orchestrator.drift.verdicts import History, Streak
from orchestrator.drift.watch import Counts, Reference, Rules, Watch
from orchestrator.drift.windows import ADAPTIVE_SPANS, Window, Windows


def saved(watch: Watch) -> dict[str, Any]:
    return {
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
    }


def restored(state: Mapping[str, Any], reference: Reference, rules: Rules) -> Watch:
    """Raises SketchError for a window that cannot be read."""
    known = state["history"]
    labelled, right = (np.array(each, dtype=np.int64) for each in state["learned"])
    errors, rows = state["outcomes"]
    return Watch(
        reference,
        rules,
        _read_windows(state["windows"], rules),
        History(known["judged"], {key: Streak(*each) for key, each in known["streaks"].items()}),
        Joining.from_state(state["joining"]),
        PageHinkley.from_state(state["detector"], rules.alarms, rules.error_shift),
        Confidences(labelled, labelled, right),
        (errors, rows),
        dict(state["episodes"]),
        state["blind"],
        state["heard_at"],
        Counts(**state["counts"]),
    )


def newest_window(state: Mapping[str, Any]) -> TableSummary | None:
    """The rows that were judged last."""
    recent = state["windows"]["recent"]
    return _read_window(recent[-1]).table if recent else None


def _windows(windows: Windows) -> dict[str, Any]:
    return {
        "open": [[number, _window(each)] for number, each in windows.open.items() if each.rows],
        "recent": [_window(each) for each in list(windows.recent)[-max(windows.cut.spans) :]],
        "closed_before": windows.closed_before,
        "late": windows.late,
    }


def _read_windows(state: Mapping[str, Any], rules: Rules) -> Windows:
    recent = deque((_read_window(each) for each in state["recent"]), maxlen=ADAPTIVE_SPANS[-1])
    begun = {number: _read_window(each) for number, each in state["open"]}
    return Windows(rules.cut, begun, recent, closed_before=state["closed_before"], late=state["late"])


def _window(window: Window) -> list[Any]:
    return [window.start, window.end, base64.b64encode(window.table.to_bytes()).decode()]


def _read_window(state: list[Any]) -> Window:
    start, end, table = state
    return Window(start, end, TableSummary.from_bytes(base64.b64decode(table)))
