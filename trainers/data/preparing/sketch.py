"""The distribution of numbers in constant space, mergeable over pieces of a source and over ranks.

KLL: Karnin, Lang and Liberty, "Optimal Quantile Approximation in Streams", FOCS 2016. While there are few values all of
them are held, and every rank is exact; beyond that it flips coins of its own, within the rank error of its `k`.
"""

from __future__ import annotations

import base64
from typing import Any

import datasketches
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_KS = (800, 350, 200, 100, 50, 20)
_TEXT_BYTES_OF_K = 32  # of a full sketch as base64, for each unit of k
_ALL_BYTES = 256 * 1024  # of all sketches of a profile: what is kept with a model version has twice as much room


def k_of(columns: int) -> int:
    """The finest sketch that so many columns have room for. 800: rank error 0.0035, 350: 0.0077, 200: 0.013."""
    return next((k for k in _KS if columns * k * _TEXT_BYTES_OF_K <= _ALL_BYTES), _KS[-1])


class Sketch:
    """Of the finite ones among the values that it was given."""

    def __init__(self, k: int) -> None:
        self._kll: Any = datasketches.kll_doubles_sketch(k)

    @classmethod
    def from_text(cls, text: str) -> Sketch:
        """The reverse of `to_text`. Raises ValueError on anything else."""
        sketch = cls.__new__(cls)
        try:
            sketch._kll = datasketches.kll_doubles_sketch.deserialize(base64.b64decode(text, validate=True))
        except (ValueError, IndexError, RuntimeError) as error:
            raise ValueError(f"not a KLL sketch in base64: {text[:40]!r}: {error}") from error
        return sketch

    def to_text(self) -> str:
        return base64.b64encode(self._kll.serialize()).decode()

    def __getstate__(self) -> str:  # the library's own objects do not travel to other processes
        return self.to_text()

    def __setstate__(self, text: str) -> None:
        self._kll = Sketch.from_text(text)._kll

    @property
    def count(self) -> int:
        return int(self._kll.n)

    def update(self, values: Floats) -> None:
        self._kll.update(np.ascontiguousarray(values[np.isfinite(values)], dtype=np.float64))

    def merge(self, other: Sketch) -> None:
        self._kll.merge(other._kll)

    def quantiles(self, shares: Floats) -> Floats:
        """[shares]: the least value that such a share of all is at most; NaN where there are no values."""
        if not self.count:
            return np.full(len(shares), np.nan)
        return np.asarray(self._kll.get_quantiles(shares, inclusive=True), dtype=np.float64)
