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
_CLASSIFIED_BY, _PAIRS = 32, 48
"""Random features, and products of two columns, that a discriminant sees beside the columns: it is fitted on some hundred
rows."""
_RIDGE = 0.1
_FARTHEST = 10.0
"""Deviations from the middle at which a value stands, however absurd it is: a poisoned row is one row."""
_LEAST_CLASSIFIED = 20


@dataclass(frozen=True)
class Kernel:
    """What the reference's rows taught: scales of the columns, and how wide the kernel is."""

    centre: Floats
    scale: Floats
    frequencies: Floats  # (columns, half as many as random features)

    def scaled(self, rows: npt.NDArray[Any]) -> Floats:
        """In the reference's deviations. Missing values take the reference's middle."""
        each = (rows - self.centre) / self.scale
        return np.clip(np.nan_to_num(each, nan=0.0, posinf=_FARTHEST, neginf=-_FARTHEST), -_FARTHEST, _FARTHEST)

    def embed(self, scaled: Floats) -> Floats:
        """(rows, random features), each row of length 1."""
        angles = scaled @ self.frequencies
        return np.concatenate([np.cos(angles), np.sin(angles)], axis=1) / math.sqrt(self.frequencies.shape[1])


@dataclass(frozen=True)
class Embedding:
    """Of the reference: its mean, and how embeddings vary."""

    kernel: Kernel
    mean: Floats
    spread: float  # trace of the embeddings' covariance
    spread_squared: float  # trace of its square
    largest: float  # its largest eigenvalue
    rows: int


@dataclass
class MeanEmbedding:
    """Of a window: constant in size, and mergeable."""

    total: Floats
    rows: int = 0

    def update(self, embedding: Embedding, rows: npt.NDArray[Any]) -> None:
        kernel = embedding.kernel
        self.total = self.total + kernel.embed(kernel.scaled(rows)).sum(axis=0)
        self.rows += len(rows)

    def merge(self, other: MeanEmbedding) -> None:
        self.total = self.total + other.total
        self.rows += other.rows


def kernel_of(reference: npt.NDArray[Any], seed: int, features: int = FEATURES) -> Kernel:
    """From rows of the reference, (rows, columns). The kernel is as wide as the median distance of two of them. Raises
    ValueError for fewer than 4.
    """
    rows = np.asarray(reference, dtype=np.float64)
    if rows.ndim != 2 or len(rows) < 4:
        raise ValueError(f"a reference of at least 4 rows in two dimensions is needed, not of the shape {rows.shape}")
    centre, scale = _scale(rows)
    blank = Kernel(centre, scale, np.zeros((rows.shape[1], features // 2)))
    scaled = blank.scaled(rows)
    generator = np.random.default_rng(seed)
    first, second = generator.integers(0, len(rows), (2, 1_000))
    distances = np.sqrt(((scaled[first] - scaled[second]) ** 2).sum(axis=1))
    width = float(np.median(distances[first != second])) or 1.0
    return Kernel(centre, scale, generator.normal(size=(rows.shape[1], features // 2)) / width)


def learn(reference: npt.NDArray[Any], seed: int) -> Embedding:
    """From rows of the reference, (rows, columns). Raises ValueError for fewer than 4."""
    kernel = kernel_of(reference, seed)
    embedded = kernel.embed(kernel.scaled(np.asarray(reference, dtype=np.float64)))
    values = np.linalg.eigvalsh(np.cov(embedded, rowvar=False))
    spread, squared, largest = float(values.sum()), float((values**2).sum()), float(values[-1])
    return Embedding(kernel, embedded.mean(axis=0), spread, squared, largest, len(embedded))


def empty(embedding: Embedding) -> MeanEmbedding:
    return MeanEmbedding(np.zeros(len(embedding.mean)))


def mmd(reference: Embedding, current: MeanEmbedding) -> Evidence:
    """n MMD^2 is a sum of weighted chi-squared variables where nothing has moved; its tail by the bound of Laurent and
    Massart (2000, lemma 1), which holds however small the probability. Effect: the discrepancy, not squared, beyond what
    chance alone makes of it; 0.1 is a level moved by one deviation in one of 20 features.
    """
    n, m = current.rows, reference.rows
    if not n:
        return Evidence("mmd", 0.0, 1.0, 0, m)
    discrepancy = float(((current.total / n - reference.mean) ** 2).sum())
    effect = math.sqrt(max(0.0, discrepancy - reference.spread * (1 / n + 1 / m)))
    excess = n * m / (n + m) * discrepancy - reference.spread
    if excess <= 0 or reference.largest <= 0:
        return Evidence("mmd", effect, 1.0, n, m)
    # excess = 2 sqrt(spread_squared x) + 2 largest x, solved for sqrt(x); the probability is exp(-x)
    a, b = 2 * reference.largest, 2 * math.sqrt(reference.spread_squared)
    root = (math.sqrt(b * b + 4 * a * excess) - b) / (2 * a)
    return Evidence("mmd", effect, math.exp(-root * root), n, m)


@dataclass(frozen=True)
class Classifier:
    """What a discriminant needs of the reference, the same for every window: one half to fit on, one to be tested on."""

    kernel: Kernel
    pairs: npt.NDArray[np.intp]  # (2, products of two columns)
    mean: Floats
    scatter: Floats  # squared deviations from the mean, of the half that is fitted on
    fitted: int
    tested: Floats  # (rows, what a row is described by)

    @classmethod
    def learned(cls, reference: npt.NDArray[Any], seed: int) -> Classifier:
        """Raises ValueError for fewer than 4 rows."""
        rows = np.asarray(reference, dtype=np.float64)
        kernel = kernel_of(rows, seed, _CLASSIFIED_BY)
        fit, test = _halves(kernel.scaled(rows), seed)
        pairs = _pairs(fit)  # of this half alone: what is chosen by chance there is none in the other
        fit, test = _described(kernel, pairs, fit), _described(kernel, pairs, test)
        return cls(kernel, pairs, fit.mean(axis=0), np.cov(fit, rowvar=False) * len(fit), len(fit), test)

    def against(self, current: npt.NDArray[Any], seed: int) -> Evidence:
        """Effect: the area under the curve, less a half, of the discriminant on rows that it was not fitted on. It sees each
        feature, squares, products and random features, so that moved levels, widths and dependencies can be told.
        """
        n, m = len(current), self.fitted + len(self.tested)
        if min(n, m) < _LEAST_CLASSIFIED:
            return Evidence("c2st", 0.0, 1.0, n, m)
        scaled = self.kernel.scaled(np.asarray(current, dtype=np.float64))
        fit, test = _halves(_described(self.kernel, self.pairs, scaled), seed)
        within = (np.cov(fit, rowvar=False) * len(fit) + self.scatter) / (len(fit) + self.fitted)
        direction = _discriminant(within, fit.mean(axis=0) - self.mean)
        area, deviation = _area(test @ direction, self.tested @ direction)
        p = normal_tail((area - 0.5) / deviation) / 2 if area > 0.5 else 1.0
        return Evidence("c2st", area - 0.5, p, len(test), len(self.tested))


def classifier_test(reference: npt.NDArray[Any], current: npt.NDArray[Any], seed: int) -> Evidence:
    """One reference against one window: see `Classifier.against`."""
    return Classifier.learned(reference, seed).against(current, seed)


def _halves(rows: Floats, seed: int) -> tuple[Floats, Floats]:
    shuffled = rows[np.random.default_rng(seed).permutation(len(rows))]
    return shuffled[::2], shuffled[1::2]


def _pairs(scaled: Floats) -> npt.NDArray[np.intp]:
    """(2, pairs): each column that has more than two values with itself, then those of two that are most correlated."""
    several = np.flatnonzero([len(np.unique(column)) > 2 for column in scaled.T])
    with np.errstate(invalid="ignore", divide="ignore"):
        correlations = np.abs(np.nan_to_num(np.atleast_2d(np.corrcoef(scaled, rowvar=False))))
    one, other = np.triu_indices(len(correlations), 1)
    strongest = np.argsort(-correlations[one, other], kind="stable")[:_PAIRS]
    return np.stack([np.append(several, one[strongest]), np.append(several, other[strongest])])


def _described(kernel: Kernel, pairs: npt.NDArray[np.intp], scaled: Floats) -> Floats:
    products = scaled[:, pairs[0]] * scaled[:, pairs[1]]
    return np.concatenate([scaled, products, kernel.embed(scaled)], axis=1)


def _discriminant(within: Floats, apart: Floats) -> Floats:
    """Fisher's, with a ridge: rows may be fewer than columns."""
    ridge = _RIDGE * float(np.trace(within)) / len(within) + 1e-12
    return np.asarray(np.linalg.solve(within + ridge * np.eye(len(within)), apart))


def _area(positive: Floats, negative: Floats) -> tuple[float, float]:
    """Area under the curve, and its deviation where both are of one distribution (Mann and Whitney)."""
    n, m = len(positive), len(negative)
    ordered = np.sort(negative)
    below, upto = np.searchsorted(ordered, positive, "left"), np.searchsorted(ordered, positive, "right")
    return float((below + upto).mean()) / 2 / m, math.sqrt((n + m + 1) / (12.0 * n * m))


def _scale(rows: Floats) -> tuple[Floats, Floats]:
    """Medians and robust deviations of columns; a constant column counts in units of itself, an empty one not at all."""
    finite = np.isfinite(rows)
    known = np.where(finite, rows, np.nan)
    known[:, ~finite.any(axis=0)] = 0.0
    low, centre, high = np.nanpercentile(known, [25, 50, 75], axis=0)
    scale = (high - low) / 1.349
    scale = np.where(scale > 0, scale, np.nanstd(known, axis=0))  # of a lump the deviation itself
    return centre, np.where(scale > 0, scale, np.maximum(np.abs(centre), 1.0))
