"""The profile of `tests.unit.drift.streams`' reference, as training leaves one with a version."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from orchestrator.drift.reference import CONFIDENCE, PREDICTION
from orchestrator.drift.rows import Layout
from orchestrator.drift.sketches import NumberSummary
from tests.unit.drift.streams import REFERENCE_ROWS, columns, reference

SAMPLED = 1_200


def profile() -> dict[str, Any]:
    known = reference()
    table = known.table.columns
    numbers = {name: _number(each) for name, each in table.items() if isinstance(each, NumberSummary)}
    colour, answers = table["colour"], table[PREDICTION]
    sure = numbers.pop(CONFIDENCE)
    assert known.calibration is not None
    calibration = {"rows": known.calibration.labelled.tolist(), "right": known.calibration.right.tolist()}
    return {
        "format": 2,
        "rows": REFERENCE_ROWS,
        "numbers": numbers,
        "categories": {"colour": _category(colour)},
        "sample": _sample(list(numbers), {"colour": ["red", "green", "blue"]}),
        "predictions": {"label": _category(answers), "confidence": sure, "calibration": calibration},
    }


def _sample(names: list[str], words: dict[str, list[str]]) -> dict[str, Any]:
    made = columns(SAMPLED, seed=97)
    layout = Layout((*names, *words), {name: tuple(each) for name, each in words.items()})
    values = layout.coded(made, np.arange(SAMPLED)).astype("<f4")
    return {"columns": list(layout.columns), "words": words, "values": base64.b64encode(values.tobytes()).decode()}


def _number(column: NumberSummary) -> dict[str, Any]:
    counts = {"count": column.count, "missing": column.missing}
    if not column.count:
        return counts
    sketch = base64.b64encode(bytes(column.sketch.serialize())).decode()
    moments = {"mean": column.mean, "deviation": column.deviation, "min": column.low, "max": column.high}
    return {**counts, **moments, "sketch": sketch}


def _category(column: Any) -> dict[str, Any]:
    return {"count": column.count, "missing": column.missing, "values": column.values}


PROFILE = profile()
