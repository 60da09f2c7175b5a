"""What no classifier can learn from, told before a model is made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from trainers.config import Data
from trainers.data.sampler import Indices
from trainers.errors import BadConfig

_PARTS = ("training", "validation", "test")


def check_finite(values: npt.NDArray[Any], data: Data, name: str = "x") -> None:
    """Raises BadConfig when one of `values` [n, ...] is NaN or infinite."""
    bad = np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))
    if len(bad):
        rows = ", ".join(map(str, bad[:5])) + (", ..." if len(bad) > 5 else "")
        raise BadConfig(
            "data.source",
            data.source,
            f"{name} holds NaN or infinity in {len(bad)} of {len(values)} rows ({rows}, counted from 0): "
            "fill them or leave them out",
        )


def check_parts(parts: Sequence[Indices], data: Data) -> None:
    """Raises BadConfig when a part that the run file gives a share of the examples gets none."""
    for name, share, part in zip(_PARTS, data.split, parts, strict=True):
        if share > 0 and len(part) == 0:
            size = sum(map(len, parts))
            raise BadConfig(
                "data.split", list(data.split), f"leaves the {name} part empty: {data.source} holds {size} examples"
            )


def check_classes(targets: npt.NDArray[np.int64], parts: Sequence[Indices], data: Data) -> None:
    """Raises BadConfig when `targets` [n] are no classes, or training would see one class only."""
    if targets.min() < 0:
        raise BadConfig("data.source", data.source, f"classes must be numbered from 0, not from {targets.min()}")
    seen = np.unique(targets[parts[0]])
    if len(seen) < 2:
        raise BadConfig(
            "data.source",
            data.source,
            f"all {len(parts[0])} training examples are of class {seen[0]}: there is nothing to tell apart",
        )
