"""Which detector looks at a model's errors: one that begins, and one that goes on from what it remembered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from orchestrator.drift.bounds import Adwin, HddmA
from orchestrator.drift.detectors import Detector, FalseAlarms, PageHinkley
from orchestrator.drift.estimation import Confidences

Concept = Literal["page_hinkley", "adwin", "hddm_a"]
NAMES: Mapping[Concept, str] = {"page_hinkley": "Page-Hinkley", "adwin": "ADWIN", "hddm_a": "HDDM-A"}


def begun(concept: Concept, alarms: FalseAlarms, shift: float | None, known: Confidences | None = None) -> Detector:
    """`known`: how often the model was right on its reference; the error rate to begin with, for a detector that takes one.
    `shift`: the smallest rise that matters, likewise.
    """
    match concept:
        case "adwin":
            return Adwin(alarms)
        case "hddm_a":
            return HddmA(alarms)
        case "page_hinkley":
            rows = int(known.labelled.sum()) if known is not None else 0
            errors = float(rows - known.right.sum()) if known is not None else 0.0
            return PageHinkley(alarms, rows, errors, shift)


def resumed(concept: Concept, state: Mapping[str, Any], alarms: FalseAlarms, shift: float | None) -> Detector:
    """From what `Detector.state` gave."""
    match concept:
        case "adwin":
            return Adwin.from_state(state, alarms)
        case "hddm_a":
            return HddmA.from_state(state, alarms)
        case "page_hinkley":
            return PageHinkley.from_state(state, alarms, shift)
