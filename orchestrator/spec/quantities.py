"""Durations (`60s`, `1h30m`), sizes (`2GiB`, `500MB`), GPUs (`H100:8`) and amounts of money (`20 USD`).

A bare number is taken in the base unit, seconds or bytes, so that a dumped run file is a run file again.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

from orchestrator.spec.section import Number, Section

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {
    "B": 1,
    **{f"{prefix}B": 1000**power for power, prefix in enumerate("kMGT", start=1)},
    "KB": 1000,
    **{f"{prefix}iB": 1024**power for power, prefix in enumerate("KMGT", start=1)},
}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d)\s*)+")
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kKMGT]?i?B)")
_GPU = re.compile(r"([A-Za-z][\w.-]*?)(?::(\d+))?")
_COST = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Z]{3})")
_LONGEST_S = 10 * 365 * 86400.0


def parse_duration(value: Any) -> float:
    """Seconds. Raises ValueError that says how a duration is written."""
    if isinstance(value, str) and _DURATION.fullmatch(value.strip()):
        value = sum(float(number) * _SECONDS[unit] for number, unit in _DURATION_PART.findall(value))
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("must be a duration such as 60s, 2h or 1h30m")
    if not 0 < value <= _LONGEST_S:
        raise ValueError("must be a duration above zero and at most ten years, such as 60s, 2h or 1h30m")
    return float(value)


def parse_size(value: Any) -> int:
    """Bytes. Raises ValueError that says how a size is written."""
    if isinstance(value, str) and (match := _SIZE.fullmatch(value.strip())) and match[2] in _BYTES:
        value = float(match[1]) * _BYTES[match[2]]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**60:
        raise ValueError("must be a size such as 500MB or 2GiB")
    return int(value)


def parse_gpu(value: str) -> tuple[int, str]:
    """Number and accelerator of `H100:8` or `H100`. Raises ValueError."""
    match = _GPU.fullmatch(value)
    if match is None:
        raise ValueError("must be a whole number, or an accelerator and a number such as H100:8")
    return int(match[2] or 1), match[1]


class Cost(Section):
    """An amount of money."""

    amount: Annotated[Number, Field(gt=0)]
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")]


def _parse_cost(value: Any) -> Any:
    if isinstance(value, Cost | dict):
        return value
    if isinstance(value, str) and (match := _COST.fullmatch(value.strip())):
        return {"amount": float(match[1]), "currency": match[2]}
    raise ValueError("must be an amount and a currency such as 20 USD")


Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    WithJsonSchema(
        {"anyOf": [{"type": "string", "pattern": r"^(\d+(\.\d+)?(ms|s|m|h|d)\s*)+$"}, {"type": "number"}]},
        mode="validation",
    ),
]
Size = Annotated[
    int,
    BeforeValidator(parse_size),
    WithJsonSchema(
        {"anyOf": [{"type": "string", "pattern": r"^\d+(\.\d+)?\s*[kKMGT]?i?B$"}, {"type": "integer"}]},
        mode="validation",
    ),
]
Money = Annotated[
    Cost,
    BeforeValidator(_parse_cost),
    WithJsonSchema({"type": "string", "pattern": r"^\d+(\.\d+)?\s*[A-Z]{3}$"}, mode="validation"),
]
