"""Performance: measured where labels have come, estimated from the model's confidence where they have not.

A classifier's confidence in its answer is cut into bins; of each bin the reference tells how often the answer was right. A
window's estimated accuracy is then the mean of these over its own confidences: calibrated confidence-based estimation
(Guo et al. 2017 for the calibration by bins; Garg et al. 2022 for estimating under shift). It sees inputs that the model
finds harder, not a changed relation of inputs and labels: that shows only when labels come.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from orchestrator.drift.distributions import more_often, normal_tail
from orchestrator.drift.sketches import Floats, NumberSummary
from orchestrator.drift.tests import Evidence

BINS = 20


@dataclass
class Confidences:
    """Counts by bin of confidence in [0, 1]; `right` only of rows whose label is known. Constant in size, mergeable."""

    rows: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    labelled: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    right: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))

    def update(self, confidence: npt.NDArray[Any], right: npt.NDArray[Any] | None = None) -> None:
        """Take in confidences and, where labels are known, whether each answer was right. Raises ValueError for a
        confidence that is no probability."""
        values = np.asarray(confidence, dtype=np.float64)
        if len(values) and not (values.min() >= 0 and values.max() <= 1):
            raise ValueError("a confidence lies between 0 and 1")
        bins = np.minimum((values * BINS).astype(np.int64), BINS - 1)
        times = np.bincount(bins, minlength=BINS)
        self.rows = self.rows + times
        if right is not None:
            self.labelled = self.labelled + times
            self.right = self.right + np.bincount(bins[np.asarray(right, dtype=bool)], minlength=BINS)

    @classmethod
    def of(cls, column: NumberSummary) -> Confidences:
        """Of a column of confidences that is known by its summary only."""
        edges = np.nextafter(np.arange(1, BINS) / BINS, 0.0)  # a confidence on an edge belongs to the bin above it
        below = np.concatenate([[0.0], column.ranks(edges), [1.0]]) if column.count else np.zeros(BINS + 1)
        return cls(rows=np.diff(np.rint(below * column.count)).astype(np.int64))

    def merge(self, other: Confidences) -> None:
        self.rows = self.rows + other.rows
        self.labelled = self.labelled + other.labelled
        self.right = self.right + other.right


@dataclass(frozen=True)
class Estimate:
    """Accuracy with its standard error, which counts the window's rows and the reference's rows of each bin."""

    accuracy: float
    error: float


def estimated_accuracy(reference: Confidences, window: Confidences) -> Estimate:
    """Raises ValueError where the reference has no labels or the window no rows."""
    if not reference.labelled.sum() or not window.rows.sum():
        raise ValueError("an estimate needs a reference with labels, and at least one row")
    rates = _rates(reference)
    shares = window.rows / window.rows.sum()
    accuracy = float((shares * rates).sum())
    of_rates = shares**2 * rates * (1 - rates) / np.maximum(reference.labelled, 1)
    of_window = float((shares * rates**2).sum() - accuracy**2) / float(window.rows.sum())
    return Estimate(accuracy, math.sqrt(float(of_rates.sum()) + max(of_window, 0.0)))


def estimated_drop(reference: Confidences, window: Confidences) -> Evidence:
    """How much worse the model is estimated to be than on the reference; one-sided. A rate that the reference holds wrong is
    wrong on both sides, so only the difference of both mixes of confidences counts.
    """
    n, m = int(window.rows.sum()), int(reference.labelled.sum())
    if not n or not m:
        return Evidence("estimated_performance", 0.0, 1.0, n, m)
    rates, share, known = _rates(reference), window.rows / n, reference.labelled / m
    drop = float(((known - share) * rates).sum())
    pooled = (window.rows + reference.labelled) / (n + m)
    variance = float((pooled * rates**2).sum() - (pooled * rates).sum() ** 2) * (1 / n + 1 / m)
    variance += float(((known - share) ** 2 * rates * (1 - rates) / np.maximum(reference.labelled, 1)).sum())
    p = normal_tail(drop / math.sqrt(variance)) / 2 if drop > 0 and variance > 0 else 1.0
    accuracy = float((known * rates).sum())
    return Evidence("estimated_performance", drop, p, n, m, detail=f"accuracy {accuracy:.3f} -> {accuracy - drop:.3f}")


def measured_drop(errors: int, rows: int, reference_errors: int, reference_rows: int) -> Evidence:
    """By labels: Fisher's exact test of a higher error rate."""
    rate, before = errors / max(rows, 1), reference_errors / max(reference_rows, 1)
    p = more_often(errors, rows, reference_errors, reference_rows)
    detail = f"error rate {before:.3f} -> {rate:.3f}"
    return Evidence("performance", rate - before, p, rows, reference_rows, detail=detail)


def _rates(reference: Confidences) -> Floats:
    """How often answers of each bin are right; a bin without labels takes the middle of its confidences."""
    middles = (np.arange(BINS) + 0.5) / BINS
    rates: Floats = np.where(reference.labelled > 0, reference.right / np.maximum(reference.labelled, 1), middles)
    return rates
