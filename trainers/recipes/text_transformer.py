"""A character-level transformer on a text file."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from trainers.config import Settings, section
from trainers.data.loader import Splits
from trainers.data.sources import read_text, split_points
from trainers.errors import BadConfig
from trainers.models.transformer import Transformer
from trainers.tasks.language_modelling import LanguageModelling, Windows


@dataclass(frozen=True)
class Model:
    """`model:` of the run file."""

    layers: int = 2
    heads: int = 4
    width: int = 128
    context: int = 64  # characters
    dropout: float = 0.1
    experts: int = 0  # in each feed-forward layer, of which two compute a token; 0: none, the layer is dense


def text_transformer(settings: Settings) -> LanguageModelling:
    """The text is cut in three in its own order: validation and test are passages that training never saw."""
    model = section(Model, settings.model, "model")
    if model.width % (2 * model.heads):
        raise BadConfig("model.width", model.width, f"must be a multiple of twice model.heads, {2 * model.heads}")
    codes = np.frombuffer(read_text(settings.data.source).encode("utf-32-le"), dtype=np.uint32)
    vocabulary, ids = np.unique(codes, return_inverse=True)
    tokens = torch.from_numpy(ids.astype(np.int64))
    first, second = split_points(len(tokens), settings.data.split)
    parts = (tokens[:first], tokens[first:second], tokens[second:])
    return LanguageModelling(
        splits=Splits(*(Windows(part, model.context) for part in parts)),
        build=partial(
            Transformer,
            vocabulary=len(vocabulary),
            layers=model.layers,
            heads=model.heads,
            width=model.width,
            dropout=model.dropout,
            experts=model.experts,
        ),
        notes={"vocabulary": "".join(map(chr, vocabulary)), "context": model.context},
    )
