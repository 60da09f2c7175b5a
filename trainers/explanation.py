"""What an explanation holds: some samples of the test part, what each input counted for, and what counted over all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Kind = Literal["image", "table", "text"]

FEATURES_KEPT = 100  # of the importance that is stored: the highest


@dataclass(frozen=True)
class Sample:
    """One example and what each of its inputs counted for. An attribution above 0 spoke for the predicted class."""

    index: int  # in the test part
    predicted: str
    predicted_probability: float
    true: str
    true_probability: float
    attributions: Array  # image [height, width], summed over channels; table [columns]; text [positions]
    image: Array | None = None  # [channels, height, width]
    words: tuple[str, ...] = ()  # a table's values or a text's tokens, as they are shown
    change: float | None = None  # output of the sample less output of the baseline, where the method divides that up
    gap: float | None = None  # sum of the attributions less `change`: 0 when they are complete
    attention: Array | None = None  # [positions], adding up to 1

    @property
    def right(self) -> bool:
        return self.predicted == self.true


@dataclass(frozen=True)
class Explanation:
    """All samples, explained by one method."""

    kind: Kind
    method: str  # in a sentence: what was computed, and whose method it is
    output: str  # what the attributions are shares of
    baseline: str  # what stands for an input that says nothing
    samples: tuple[Sample, ...]
    importance: Mapping[str, float]  # mean absolute attribution, by feature
    importance_of: str  # what a feature is: a pixel, a column, a position, a word


def mean_by_place(samples: Sequence[Sample]) -> Array:
    """The mean absolute attribution at each place; all samples have the same shape."""
    mean: Array = np.mean([np.abs(each.attributions) for each in samples], axis=0)
    return mean


def mean_by_word(samples: Sequence[Sample]) -> dict[str, float]:
    """The mean absolute attribution of each word, over all its places in all samples."""
    found: dict[str, list[float]] = {}
    for sample in samples:
        for word, attribution in zip(sample.words, sample.attributions, strict=True):
            found.setdefault(word, []).append(abs(float(attribution)))
    return {word: float(np.mean(each)) for word, each in found.items()}


def ranked(importance: Mapping[str, float]) -> list[tuple[str, float]]:
    """The highest first; of equals the one that came first."""
    return sorted(importance.items(), key=lambda each: -each[1])


def gaps(samples: Sequence[Sample]) -> tuple[float, float] | None:
    """The largest gap, and all gaps together as a share of all changes; None where the method promises neither. No share
    of a single sample's change: that may be next to nothing."""
    both = [(abs(each.gap), abs(each.change)) for each in samples if each.gap is not None and each.change is not None]
    if not both:
        return None
    return max(gap for gap, _ in both), sum(gap for gap, _ in both) / (sum(change for _, change in both) or 1.0)


def as_fact(explanation: Explanation, about: Mapping[str, Any]) -> dict[str, Any]:
    """Plain values, small enough to be kept with a model version. `about`: what was explained, and on what."""
    found = gaps(explanation.samples)
    kept = ranked(explanation.importance)[:FEATURES_KEPT]
    return {
        **about,
        "kind": explanation.kind,
        "method": explanation.method,
        "output": explanation.output,
        "baseline": explanation.baseline,
        "samples": len(explanation.samples),
        "right": sum(each.right for each in explanation.samples),
        "completeness": None if found is None else {"largest_gap": found[0], "gap_ratio": found[1]},
        "importance_of": explanation.importance_of,
        "features_total": len(explanation.importance),
        "features": [{"name": name, "importance": value} for name, value in kept],
    }
