"""The reference of a model version: the profile that its training left with it (`trainers/data/preparing/profile.py`)."""

from __future__ import annotations

import base64
from collections.abc import Container, Mapping
from typing import Any

import datasketches
import numpy as np

from orchestrator.drift.estimation import BINS, Confidences
from orchestrator.drift.rows import Layout, read_cells
from orchestrator.drift.sketches import CategorySummary, NumberSummary, Summary, TableSummary
from orchestrator.drift.together import RowReference

FORMAT = 2
PREDICTION, CONFIDENCE = "(prediction)", "(confidence)"
"""What the model answered and how sure it was: watched as columns beside the features."""


class ProfileError(ValueError):
    """A profile that no drift can be judged against; says which part and why."""


def read_profile(profile: Mapping[str, Any]) -> TableSummary:
    """Features, and the predictions on the test part where the profile has them. Raises ProfileError."""
    if profile.get("format") != FORMAT:
        raise ProfileError(
            f"the profile has format {profile.get('format')}, {FORMAT} is needed: register a version that is trained anew"
        )
    table = TableSummary(rows=int(profile["rows"]))
    parts = [(name, _number, facts) for name, facts in profile.get("numbers", {}).items()]
    parts += [(name, _category, facts) for name, facts in profile.get("categories", {}).items()]
    if predictions := profile.get("predictions"):
        parts += [(PREDICTION, _category, predictions["label"]), (CONFIDENCE, _number, predictions["confidence"])]
    if not parts:
        raise ProfileError("the profile has neither numbers, categories nor predictions: there is nothing to watch")
    for name, read, facts in parts:
        try:
            table.columns[name] = read(facts)
        except (KeyError, TypeError, ValueError, IndexError, RuntimeError) as error:
            raise ProfileError(f"the profile's column {name} cannot be read: {error!r}") from error
    return table


def read_calibration(profile: Mapping[str, Any]) -> Confidences | None:
    """How sure the model was on the test part, and how often rightly; None where the profile does not say. Raises
    ProfileError.
    """
    known = (profile.get("predictions") or {}).get("calibration")
    if known is None:
        return None
    rows, right = (np.asarray(known[name], dtype=np.int64) for name in ("rows", "right"))
    if rows.shape != (BINS,) or right.shape != (BINS,) or (right > rows).any():
        raise ProfileError(f"the profile's calibration has {len(rows)} and {len(right)} bins: {BINS} each are needed")
    return Confidences(rows=rows, labelled=rows, right=right)


def read_looks(profile: Mapping[str, Any]) -> frozenset[str]:
    """Features that tell of images: who serves them may send no images."""
    return frozenset(map(str, profile.get("looks", ())))


def read_rows(profile: Mapping[str, Any], only: Container[str] | None = None) -> RowReference | None:
    """Some of the training rows, of all features or `only` these; None where the profile has none: it may be of an older
    version, or of what has no columns. Raises ProfileError.
    """
    sample = profile.get("sample")
    if sample is None:
        return None
    try:
        names = [str(name) for name in sample["columns"]]
        rows = read_cells(sample["values"], "<f4").reshape(-1, len(names))
        words = {str(name): tuple(map(str, each)) for name, each in sample.get("words", {}).items()}
    except (KeyError, TypeError, ValueError) as error:
        raise ProfileError(f"the profile's sample of rows cannot be read: {error!r}") from error
    kept = [place for place, name in enumerate(names) if only is None or name in only]
    columns = tuple(names[place] for place in kept)
    if not columns:
        return None
    return RowReference(Layout(columns, {name: words[name] for name in columns if name in words}), rows[:, kept])


def _number(facts: Mapping[str, Any]) -> Summary:
    count = int(facts["count"])
    if not count:
        return NumberSummary(missing=int(facts["missing"]))
    sketch = datasketches.kll_doubles_sketch.deserialize(base64.b64decode(facts["sketch"], validate=True))
    if sketch.n != count:
        raise ValueError(f"its sketch holds {sketch.n} values, its count is {count}")
    return NumberSummary(
        k=sketch.k,
        count=count,
        missing=int(facts["missing"]),
        mean=float(facts["mean"]),
        spread=float(facts["deviation"]) ** 2 * count,
        lowest=np.array([float(facts["min"])]),
        highest=np.array([float(facts["max"])]),
        sketch=sketch,
    )


def _category(facts: Mapping[str, Any]) -> Summary:
    values = {str(value): int(count) for value, count in facts["values"].items()}
    return CategorySummary(count=int(facts["count"]), missing=int(facts["missing"]), values=values)
