"""The fact `proof` as ranks write it (`trainers/proof.py`), made of answers that a test chooses."""

from __future__ import annotations

import base64
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

WORDS = ["cat", "dog", "owl"]
Answers = npt.NDArray[Any]


def packed(values: Answers, kind: str = "<f4") -> str:
    return base64.b64encode(zlib.compress(values.astype(kind).tobytes())).decode()


def part(champion: Answers, challenger: Answers, labels: Answers | None = None, sure: Any = None) -> dict[str, Any]:
    """Of right (1) and wrong (0) answers; `sure`: both confidences, by default those of a calibrated model."""
    labels = np.zeros(len(champion)) if labels is None else labels
    confidences = sure or [np.full(len(champion), each.mean()) for each in (champion, challenger)]
    names = ("champion", "challenger")
    return {
        "source": "sklearn://digits, test part",
        "of": len(champion),
        "rows": len(champion),
        "values": {
            "accuracy": dict(zip(names, map(packed, (champion, challenger)), strict=True)),
            "confidence": dict(zip(names, map(packed, confidences), strict=True)),
        },
        "slices": {"label": {"words": WORDS, "codes": packed(labels, "<u2")}},
    }


def fact(recent: dict[str, Any], reference: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    same = right(500, 0.9, 9)
    return {
        "format": 1,
        "champion": 3,
        "modes": {"accuracy": "max"},
        "parts": {"recent": recent, "reference": reference or part(same, same)},
        "latency": {"1": {"champion": 0.001, "challenger": 0.001}},
        "parameters": {"champion": 10, "challenger": 10},
        **changes,
    }


def right(rows: int, rate: float, seed: int) -> Answers:
    return (np.random.default_rng(seed).random(rows) < rate).astype(float)


def better(champion: int = 3) -> dict[str, Any]:
    """Of a challenger that is clearly better than that version."""
    before = right(400, 0.8, 1)
    return fact(part(before, np.maximum(before, right(400, 0.6, 2))), champion=champion)


def equal(champion: int = 3) -> dict[str, Any]:
    """Of one that answers as that version does."""
    same = right(400, 0.9, 1)
    return fact(part(same, same), champion=champion)
