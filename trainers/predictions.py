"""How often a trained model predicts what, over a set of examples that it was not trained on: the part of a profile that
only the end of a run can add (`trainers.data.preparing.profile`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from trainers.data.loader import Examples, Loader
from trainers.data.preparing.profile import category, number
from trainers.data.preparing.sketch import Floats, Sketch, k_of
from trainers.engine import Engine
from trainers.parallel import Place
from trainers.tasks.task import AnyTask, Predicts

_K = k_of(1)
_BINS = 20


def finished_profile(
    place: Place, engine: Engine, task: AnyTask, loader: Loader, alive: Callable[[], None]
) -> Mapping[str, Any] | None:
    """Collective. The profile of a task's data with its predictions, where it predicts classes and its model is whole on
    every rank; None where it has no profile."""
    profile: Mapping[str, Any] | None = task.notes.get("profile")
    if profile is None or not isinstance(task, Predicts) or place.data_size != place.world_size:
        return profile
    part = "test" if len(task.splits.test) else "validation"
    examples: Examples = getattr(task.splits, part)
    if len(examples) == 0:
        return profile
    return {**profile, "predictions": {"part": part, **predictions(place, engine, task, loader, examples, alive)}}


def predictions(
    place: Place, engine: Engine, task: Predicts, loader: Loader, examples: Examples, alive: Callable[[], None]
) -> dict[str, Any]:
    """Collective. `rows`, `label`, `confidence` and `calibration` as a profile has them, of at least one example."""
    counts, confidence, right = Counter[int](), [np.empty(0)], [np.empty(0, bool)]
    engine.eval()
    with torch.no_grad():
        for batch in loader.evaluation(examples):
            probabilities, classes = task.predict(engine, batch).max(dim=-1)
            real = batch["weight"] > 0  # the rest fills the last batch up
            counts.update(classes[real].tolist())
            confidence.append(probabilities[real].double().cpu().numpy())
            right.append((classes == batch["targets"])[real].cpu().numpy())
            alive()
    engine.train()
    sure = np.concatenate(confidence)
    mine = {
        "counts": list(counts.items()),
        "confidence": number(sure, _K),
        "calibration": _calibration(sure, np.concatenate(right)),
    }
    return {"rows": len(examples), **_joined(place.exchange.all(mine), task.classes)}


def _joined(everywhere: Sequence[dict[str, Any]], classes: Sequence[str]) -> dict[str, Any]:
    """Of all ranks' own."""
    counts = Counter[str]()
    for each in everywhere:
        counts.update({classes[place] if classes else str(place): count for place, count in each["counts"]})
    calibration = {
        name: np.sum([each["calibration"][name] for each in everywhere], axis=0).tolist() for name in ("rows", "right")
    }
    confidence = _merged([each["confidence"] for each in everywhere])
    return {"label": category(counts, 0), "confidence": confidence, "calibration": calibration}


def _calibration(confidence: Floats, right: npt.NDArray[np.bool_]) -> dict[str, list[int]]:
    """By equal bins of confidence in [0, 1]."""
    bins = np.minimum((confidence * _BINS).astype(np.int64), _BINS - 1)
    return {
        "rows": np.bincount(bins, minlength=_BINS).tolist(),
        "right": np.bincount(bins[right], minlength=_BINS).tolist(),
    }


def _merged(numbers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One NUMBER of a profile from those of all ranks, weighted by their counts."""
    sketch = Sketch(_K)
    for each in numbers:
        sketch.merge(Sketch.from_text(each["sketch"]))
    known = [each for each in numbers if each["count"]]
    count = sum(each["count"] for each in known)
    mean = sum(each["mean"] * each["count"] for each in known) / count
    squares = sum((each["deviation"] ** 2 + (each["mean"] - mean) ** 2) * each["count"] for each in known)
    low, high = min(each["min"] for each in known), max(each["max"] for each in known)
    moments = {"count": count, "mean": mean, "deviation": (squares / count) ** 0.5, "min": low, "max": high}
    return {**moments, "missing": sum(each["missing"] for each in numbers), "sketch": sketch.to_text()}
