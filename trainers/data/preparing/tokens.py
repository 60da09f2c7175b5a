"""Text as numbers: characters, words or bytes by the vocabulary of the training part."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

PADDING, UNKNOWN = 0, 1
_WORD = re.compile(r"\w+|[^\w\s]")


def units_of(text: str, unit: str) -> Sequence[str]:
    """What gets a number each."""
    if unit == "character":
        return text
    if unit == "byte":
        return [chr(each) for each in text.encode()]
    return _WORD.findall(text.lower())


def vocabulary_of(counts: Counter[str], size: int) -> tuple[str, ...]:
    """The most frequent units, of equally frequent ones the first by spelling; the numbers of the first two are taken."""
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return tuple(unit for unit, _ in ordered[: size - 2])


def encode(texts: Sequence[str], unit: str, places: Mapping[str, int], length: int) -> npt.NDArray[np.int32]:
    """Numbers [texts, length]. `places` numbers the vocabulary; what is shorter is filled up with `PADDING`."""
    result = np.full((len(texts), length), PADDING, dtype=np.int32)
    for row, text in enumerate(texts):
        units = units_of(text[: length if unit == "character" else None], unit)[:length]
        result[row, : len(units)] = [places.get(each, UNKNOWN) for each in units]
    return result


def numbered(vocabulary: Sequence[str]) -> dict[str, int]:
    return {unit: place for place, unit in enumerate(vocabulary, UNKNOWN + 1)}
