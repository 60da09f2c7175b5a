"""A classifier's reference and its live traffic, with what a test wants moved."""

from __future__ import annotations

from typing import Any

import numpy as np

from orchestrator.drift.batches import Batch
from orchestrator.drift.estimation import Confidences
from orchestrator.drift.reference import CONFIDENCE, PREDICTION
from orchestrator.drift.sketches import REFERENCE_K, TableSummary
from orchestrator.drift.watch import Reference

REFERENCE_ROWS = 5_000
START = 1_000_000.0


def columns(rows: int, seed: int, *, shift: float = 0.0, doubt: float = 0.0, wrong: float = 0.0) -> dict[str, Any]:
    """Features, answers and labels. `shift` moves one feature, in deviations; `doubt` lowers the confidence; `wrong` is the
    probability, beyond that of the confidence, that an answer is wrong.
    """
    generator = np.random.default_rng(seed)
    confidence = np.clip(generator.beta(18, 2, rows) - doubt, 0.5, 1.0)
    answers = generator.choice(["cat", "dog"], rows, p=[0.6, 0.4])
    errs = generator.random(rows) > confidence - wrong
    return {
        "height": generator.normal(170.0, 10.0, rows) + 10.0 * shift,
        "weight": generator.lognormal(4.0, 0.3, rows),
        "colour": generator.choice(["red", "green", "blue"], rows, p=[0.6, 0.3, 0.1]).tolist(),
        "constant": np.full(rows, 7.0),
        "nothing": np.full(rows, np.nan),
        PREDICTION: answers.tolist(),
        CONFIDENCE: confidence,
        "(label)": np.where(errs, np.where(answers == "cat", "dog", "cat"), answers).tolist(),
    }


def reference(*, calibrated: bool = True, version: int = 1) -> Reference:
    made = columns(REFERENCE_ROWS, seed=99)
    labels = made.pop("(label)")
    table, calibration = TableSummary(k=REFERENCE_K), Confidences()
    table.update(made)
    calibration.update(made[CONFIDENCE], np.array(made[PREDICTION]) == np.array(labels))
    return Reference(version, table, calibration if calibrated else None)


def batch(rows: int, seed: int, *, labelled: bool = False, at: float = START, **moved: float) -> Batch:
    """`rows` a second apart from `at` on; requests are named by seed and place."""
    made = columns(rows, seed, **moved)
    labels = made.pop("(label)")
    requests: list[str | None] = [f"{seed}-{place}" for place in range(rows)]
    return Batch(rows, made, at + np.arange(rows), requests, labels if labelled else None)


def labels_of(rows: int, seed: int, **moved: float) -> Batch:
    """The labels of `batch` with the same arguments, as they come later."""
    made = columns(rows, seed, **moved)
    requests: list[str | None] = [f"{seed}-{place}" for place in range(rows)]
    return Batch(rows, {}, np.full(rows, START), requests, made["(label)"])
