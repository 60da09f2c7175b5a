"""The state of every random generator of a process, as tensors and plain values."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy
import torch


def capture() -> dict[str, Any]:
    """Python's, numpy's and torch's generators, and the current GPU's where one is in use."""
    version, internal, gauss = random.getstate()
    numbers: Any = numpy.random.get_state(legacy=False)
    return {
        "python": {"version": version, "internal": list(internal), "gauss": gauss},
        "numpy": {
            "key": torch.from_numpy(numbers["state"]["key"].astype(numpy.int64)),
            "pos": int(numbers["state"]["pos"]),
            "has_gauss": int(numbers["has_gauss"]),
            "gauss": float(numbers["gauss"]),
        },
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,  # type: ignore[no-untyped-call]
    }


def restore(state: Mapping[str, Any]) -> None:
    """Set every generator to what `capture` returned."""
    python, numbers = state["python"], state["numpy"]
    random.setstate((python["version"], tuple(python["internal"]), python["gauss"]))
    key = numbers["key"].numpy().astype(numpy.uint32)
    numpy.random.set_state(("MT19937", key, numbers["pos"], numbers["has_gauss"], numbers["gauss"]))
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def seed(value: int) -> None:
    """Set every generator by one number."""
    random.seed(value)
    numpy.random.seed(value % 2**32)
    torch.manual_seed(value)
