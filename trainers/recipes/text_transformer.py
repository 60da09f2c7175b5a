"""A character-level transformer on a text file."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from trainers.config import Settings, section
from trainers.errors import BadConfig
from trainers.models.transformer import Transformer
from trainers.recipes.characters import read_passages
from trainers.tasks.language_modelling import LanguageModelling


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
    """Raises BadConfig when the text is shorter than the context, or the heads do not divide the width."""
    model = section(Model, settings.model, "model")
    if model.width % (2 * model.heads):
        raise BadConfig("model.width", model.width, f"must be a multiple of twice model.heads, {2 * model.heads}")
    passages = read_passages(settings.data, model.context)
    return LanguageModelling(
        splits=passages.splits,
        build=partial(
            Transformer,
            vocabulary=len(passages.vocabulary),
            layers=model.layers,
            heads=model.heads,
            width=model.width,
            dropout=model.dropout,
            experts=model.experts,
        ),
        notes={"vocabulary": passages.vocabulary, "context": model.context},
    )
