"""A character-level recurrent network on a text file: what `text_transformer` is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from trainers.config import Settings, section
from trainers.models.rnn import Cell, Rnn
from trainers.recipes.characters import read_passages
from trainers.tasks.language_modelling import LanguageModelling


@dataclass(frozen=True)
class Model:
    """`model:` of the run file."""

    cell: Cell = "lstm"
    layers: int = 1
    width: int = 256
    context: int = 64  # characters; nothing is remembered from one window to the next
    dropout: float = 0.1


def text_rnn(settings: Settings) -> LanguageModelling:
    """Raises BadConfig when the text is shorter than the context."""
    model = section(Model, settings.model, "model")
    passages = read_passages(settings.data, model.context)
    return LanguageModelling(
        splits=passages.splits,
        build=partial(
            Rnn,
            vocabulary=len(passages.vocabulary),
            cell=model.cell,
            layers=model.layers,
            width=model.width,
            dropout=model.dropout,
        ),
        notes={"vocabulary": passages.vocabulary, "context": model.context},
    )
