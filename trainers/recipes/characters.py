"""Text as one token a character."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from trainers.config import Data
from trainers.data.loader import Splits
from trainers.data.sources import read_text, split_points
from trainers.errors import BadConfig
from trainers.tasks.language_modelling import Windows


@dataclass(frozen=True)
class Passages:
    """A text cut in three in its own order: validation and test are passages that training never saw."""

    splits: Splits
    vocabulary: str  # every character of the text, by code point; a token is a place in it


def read_passages(data: Data, context: int) -> Passages:
    """Windows of `context` characters and the one after them. Raises BadConfig when a part does not hold one."""
    codes = code_points(read_text(data.source))
    vocabulary, ids = np.unique(codes, return_inverse=True)
    tokens = torch.from_numpy(ids.astype(np.int64))
    first, second = split_points(len(tokens), data.split)
    parts = {"training": tokens[:first], "validation": tokens[first:second], "test": tokens[second:]}
    windows = {name: Windows(part, context) for name, part in parts.items()}
    for (name, part), share in zip(parts.items(), data.split, strict=True):
        if share > 0 and len(windows[name]) == 0:
            held = f"its {name} part holds {len(part)} characters"
            raise BadConfig("model.context", context, f"must be shorter than {data.source}: {held}")
    return Passages(Splits(*windows.values()), "".join(map(chr, vocabulary)))


def code_points(text: str) -> npt.NDArray[np.uint32]:
    """The code point of each character."""
    return np.frombuffer(text.encode("utf-32-le", errors="surrogatepass"), dtype=np.uint32)
