"""All features at once: what no single feature shows, such as a correlation that is gone.

Both tests work on rows of numbers, scaled by the reference. Seeds are arguments: the same rows and seed give the same answer.

    mmd    maximum mean discrepancy (Gretton et al. 2012) on random Fourier features of a Gaussian kernel (Rahimi and Recht
           2007). A mean embedding is a sum: it merges over replicas and windows, and costs no row.
    c2st   classifier two-sample test (Lopez-Paz and Oquab 2017): can a discriminant that was fitted on one half tell, on the
           other half, live rows from the reference's?
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from orchestrator.drift.distributions import normal_tail
from orchestrator.drift.sketches import Floats
from orchestrator.drift.tests import Evidence

FEATURES = 256
"""Random features: the discrepancy's own error falls with their root."""
_RIDGE = 1e-2


@dataclass(frozen=True)
class Embedding:
    """What the reference's rows taught: scale, kernel, and how embeddings vary. `mean` is the reference's own."""

    centre: Floats
    scale: Floats
    frequencies: Floats  # (columns, FEATURES / 2)
    mean: Floats
    spread: float  # trace of the embeddings' covariance
    spread_squared: float  # trace of its square
    largest: float  # its largest eigenvalue
    rows: int

    def embed(self, rows: npt.NDArray[Any]) -> Floats:
        """(rows, FEATURES) in [-1, 1] / sqrt(FEATURES / 2). Missing values take the reference's middle."""
        scaled = np.clip(np.nan_to_num((rows - self.centre) / self.scale, nan=0.0), -10.0, 10.0)
        angles = scaled @ self.frequencies
        return np.concatenate([np.cos(angles), np.sin(angles)], axis=1) / math.sqrt(self.frequencies.shape[1])


@dataclass
class MeanEmbedding:
    """Of a window: constant in size, and mergeable."""

    total: Floats
    rows: int = 0

    def update(self, embedding: Embedding, rows: npt.NDArray[Any]) -> None:
        self.total = self.total + embedding.embed(rows).sum(axis=0)
        self.rows += len(rows)

    def merge(self, other: MeanEmbedding) -> None:
        self.total = self.total + other.total
        self.rows += other.rows


def learn(reference: npt.NDArray[Any], seed: int) -> Embedding:
    """From rows of the reference, (rows, columns). The kernel is as wide as the median distance of two of them."""
    rows = np.asarray(reference, dtype=np.float64)
    if rows.ndim != 2 or len(rows) < 4:
        raise ValueError(f"a reference of at least 4 rows in two dimensions is needed, not of the shape {rows.shape}")
    centre, scale = _scale(rows)
    scaled = np.clip(np.nan_to_num((rows - centre) / scale, nan=0.0), -10.0, 10.0)
    generator = np.random.default_rng(seed)
    first, second = generator.integers(0, len(rows), (2, 1_000))
    distances = np.sqrt(((scaled[first] - scaled[second]) ** 2).sum(axis=1))
    width = float(np.median(distances[first != second])) or 1.0
    frequencies = generator.normal(size=(rows.shape[1], FEATURES // 2)) / width
    blank = Embedding(centre, scale, frequencies, np.zeros(FEATURES), 0.0, 0.0, 0.0, len(rows))
    embedded = blank.embed(rows)
    covariance = np.cov(embedded, rowvar=False)
    values = np.linalg.eigvalsh(covariance)
    spread, squared, largest = float(values.sum()), float((values**2).sum()), float(values[-1])
    return Embedding(centre, scale, frequencies, embedded.mean(axis=0), spread, squared, largest, len(rows))


def empty(embedding: Embedding) -> MeanEmbedding:
    return MeanEmbedding(np.zeros(len(embedding.mean)))


def mmd(reference: Embedding, current: MeanEmbedding) -> Evidence:
    """The squared discrepancy, n MMD^2 being a sum of weighted chi-squared variables where nothing has moved; its tail by the
    bound of Laurent and Massart (2000, lemma 1), which holds however small the probability.
    """
    n, m = current.rows, reference.rows
    if not n:
        return Evidence("mmd", 0.0, 1.0, 0, m)
    discrepancy = float(((current.total / n - reference.mean) ** 2).sum())
    excess = n * m / (n + m) * discrepancy - reference.spread
    if excess <= 0 or reference.largest <= 0:
        return Evidence("mmd", discrepancy, 1.0, n, m)
    # excess = 2 sqrt(spread_squared x) + 2 largest x, solved for sqrt(x); the probability is exp(-x)
    a, b = 2 * reference.largest, 2 * math.sqrt(reference.spread_squared)
    root = (math.sqrt(b * b + 4 * a * excess) - b) / (2 * a)
    return Evidence("mmd", discrepancy, math.exp(-root * root), n, m)


def classifier_test(reference: npt.NDArray[Any], current: npt.NDArray[Any], seed: int) -> Evidence:
    """Effect: the area under the curve, less a half, of a discriminant on rows that it was not fitted on. It sees each
    feature, its square, and random features of all of them, so that moved levels, widths and dependencies can be told.
    """
    ours, theirs = np.asarray(current, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    if min(len(ours), len(theirs)) < 20:
        return Evidence("c2st", 0.0, 1.0, len(ours), len(theirs))
    generator = np.random.default_rng(seed)
    embedding = learn(theirs, seed)
    shuffled = [rows[generator.permutation(len(rows))] for rows in (ours, theirs)]
    halves = [[rows[part::2] for rows in shuffled] for part in (0, 1)]
    (fit_ours, fit_theirs), (test_ours, test_theirs) = (
        [_described(embedding, each) for each in half] for half in halves
    )
    direction = _discriminant(fit_theirs, fit_ours)
    area, deviation = _area(test_ours @ direction, test_theirs @ direction)
    p = normal_tail((area - 0.5) / deviation) / 2 if area > 0.5 else 1.0
    return Evidence("c2st", area - 0.5, p, len(test_ours), len(test_theirs))


def _described(embedding: Embedding, rows: Floats) -> Floats:
    scaled = np.clip(np.nan_to_num((rows - embedding.centre) / embedding.scale, nan=0.0), -10.0, 10.0)
    return np.concatenate([scaled, scaled**2, embedding.embed(rows)], axis=1)


def _discriminant(one: Floats, other: Floats) -> Floats:
    """Fisher's, with a ridge: rows may be fewer than columns."""
    within = (np.cov(one, rowvar=False) * len(one) + np.cov(other, rowvar=False) * len(other)) / (len(one) + len(other))
    ridge = _RIDGE * float(np.trace(within)) / len(within) + 1e-12
    return np.asarray(np.linalg.solve(within + ridge * np.eye(len(within)), other.mean(axis=0) - one.mean(axis=0)))


def _area(positive: Floats, negative: Floats) -> tuple[float, float]:
    """Area under the curve, and its deviation where both are of one distribution (Mann and Whitney)."""
    n, m = len(positive), len(negative)
    ordered = np.sort(negative)
    below, upto = np.searchsorted(ordered, positive, "left"), np.searchsorted(ordered, positive, "right")
    return float((below + upto).mean()) / 2 / m, math.sqrt((n + m + 1) / (12.0 * n * m))


def _scale(rows: Floats) -> tuple[Floats, Floats]:
    """Medians and robust deviations of columns; a constant column counts in units of itself, an empty one not at all."""
    known = np.where(np.isfinite(rows).any(axis=0), rows, 0.0)
    low, centre, high = np.nanpercentile(np.where(np.isfinite(known), known, np.nan), [25, 50, 75], axis=0)
    scale = (high - low) / 1.349
    return centre, np.where(scale > 0, scale, np.maximum(np.abs(centre), 1.0))
