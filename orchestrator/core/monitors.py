"""What watches a model: the monitor, and the judgements that it has made.

A monitor is one of (project, model). It comes into being with the first version that a run with `monitor:` registers, and
judges live data against the profile of one version, its reference: that of the model's `champion`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator.core.aliases import CHAMPION
from orchestrator.core.records import AliasMove

KEPT_JUDGEMENTS = 10_000
"""The newest of each monitor; older ones go."""


@dataclass(frozen=True)
class Monitor:
    """`state` is the judging loop's own: what it has read, the windows that are open, what it remembers."""

    project: str
    model: str
    settings: Mapping[str, Any]  # the section `monitor:` of its run file
    run: str  # id of the run whose file brought them: a retraining starts from that file
    reference: int  # the version whose profile live data are judged against
    created_at: float
    paused: str = ""  # why it judges nothing; empty: it watches
    state: Mapping[str, Any] = field(default_factory=dict)
    revision: int = 0  # grows by one with every change: compare and set


@dataclass(frozen=True)
class Judgement:
    """What one window was judged to be. `evidence`: the numbers behind it, as JSON holds them."""

    number: int  # 0 in a draft: the store counts, from 1 in each monitor
    at: float
    start: float
    end: float
    rows: int
    status: str
    severity: int  # 0 none, 1 minor, 2 moderate, 3 major
    words: str
    evidence: Mapping[str, Any] = field(default_factory=dict)


def first_champion(draft: Monitor, version: int) -> AliasMove:
    """A watched model always has a champion: the first version becomes it by itself."""
    by, reason = f"run {draft.run}", f"version {version} is the first of a watched model"
    return AliasMove(draft.project, draft.model, 0, CHAMPION, version, 0, draft.created_at, by, reason)


def brought(known: Monitor | None, draft: Monitor, champion: int) -> Monitor | None:
    """The monitor as it shall be now that a run has registered another version: new, or with the settings of a file that
    says something else. None: as it was. A retraining says what the file says that it started from, and changes nothing;
    neither does a key that a newer server knows and the file does not use.
    """
    if known is None:
        return replace(draft, reference=champion)
    if _said(known.settings) == _said(draft.settings):
        return None
    return replace(known, settings=draft.settings, run=draft.run)


def _said(settings: Any) -> Any:
    """Without the keys that are null."""
    if not isinstance(settings, Mapping):
        return settings
    return {key: _said(value) for key, value in settings.items() if value is not None}


@dataclass(frozen=True)
class Figures:
    """What a monitor has counted since it began, and how far behind it is."""

    rows: int = 0
    labels: int = 0  # joined with an answer
    unknown_labels: int = 0  # whose request nobody has told of, among those that are looked at
    late_rows: int = 0  # that came after their window had ended
    other_versions: int = 0  # rows that another version than the reference answered
    wrong_kind: int = 0  # values of another kind than their column
    malformed: int = 0  # batches that could not be read
    judged: int = 0  # windows, against the present reference
    behind_rows: int = 0  # kept, and not yet judged


@dataclass(frozen=True)
class Picture:
    """One feature, of the reference and of the window that was judged last: shares of the rows by bin, which is in words."""

    feature: str
    bins: tuple[str, ...]
    reference: tuple[float, ...]
    current: tuple[float, ...]


@dataclass(frozen=True)
class Watched:
    """A monitor as people see it. `status` is that of the newest judgement; `paused`, or `waiting` before the first."""

    project: str
    model: str
    settings: Mapping[str, Any]
    run: str
    reference: int
    created_at: float
    paused: str
    status: str
    words: str
    figures: Figures = Figures()
    newest: Judgement | None = None
    pictures: tuple[Picture, ...] = ()  # of the features that differ most; not in a listing
