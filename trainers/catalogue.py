"""The recipes that are known by name, with all that may be said about them without importing torch.

The server checks run files by it and plans by it, so it holds nothing but the standard library. What a card says is held
to the recipe's code by `tests/unit/trainers/test_models.py`.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeGuard

Value = int | float | str | bool


@dataclass(frozen=True)
class Key:
    """One key under `model:`. Its kind is its default's: a flag, a name, a number, or a count."""

    default: Value
    low: float = 1  # least and most of a number or a count
    high: float = 2**20
    below: float | None = None  # in place of `high`: a number must stay under it
    choices: tuple[str, ...] = ()  # of a name

    def problem(self, value: object) -> str | None:
        """What would be right, when `value` is not."""
        if isinstance(self.default, bool):
            return None if isinstance(value, bool) else "must be true or false"
        if isinstance(self.default, str):
            return self._name_problem(value)
        if isinstance(self.default, float):
            return self._number_problem(value)
        if _is_number(value) and value == int(value) and self.low <= value <= self.high:
            return None
        limit = "" if self.high == 2**20 else f" and at most {self.high:g}"
        return f"must be a whole number of at least {self.low:g}{limit}"

    def _name_problem(self, value: object) -> str | None:
        if isinstance(value, str) and (not self.choices or value in self.choices):
            return None
        near = difflib.get_close_matches(value, self.choices, n=1) if isinstance(value, str) else []
        return f"must be one of {', '.join(self.choices)}" + (f": did you mean {near[0]}?" if near else "")

    def _number_problem(self, value: object) -> str | None:
        if not _is_number(value):
            fits = False
        elif self.below is not None:
            fits = self.low <= value < self.below
        else:
            fits = self.low <= value <= self.high
        if fits:
            return None
        most = f"less than {self.below:g}" if self.below is not None else f"at most {self.high:g}"
        return f"must be a number of at least {self.low:g} and {most}"


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


DROPOUT = Key(0.1, low=0, below=1)
CELL = Key("lstm", choices=("lstm", "gru"))

Degree = Literal["tensor", "pipeline", "sequence", "expert"]


@dataclass(frozen=True)
class RecipeCard:
    """What the run file may say about a recipe."""

    name: str
    summary: str
    source: str  # the data that it learns on when the run file names none
    metrics: tuple[str, ...]  # what it reports at the end of an epoch
    default_metric: str  # the one by which the best checkpoint is chosen
    model: Mapping[str, Key]  # keys allowed under `model:`
    degrees: frozenset[Degree] = frozenset()  # of parallelism that its model can be divided by, beside data and ZeRO


RECIPES: Mapping[str, RecipeCard] = {
    card.name: card
    for card in (
        RecipeCard(
            name="digits_cnn",
            summary="a small residual network on scikit-learn's handwritten digits",
            source="sklearn://digits",
            metrics=("train_loss", "val_loss", "val_accuracy"),
            default_metric="val_loss",
            model={
                "width": Key(16),
                "blocks": Key(1),
                "norm": Key("layer", choices=("layer", "batch", "none")),
                "dropout": DROPOUT,
            },
        ),
        RecipeCard(
            name="text_transformer",
            summary="a character-level transformer on a text file (default: the standard library's pydoc topics)",
            source="text://pydoc_topics",
            metrics=("train_loss", "val_loss"),
            default_metric="val_loss",
            model={
                "layers": Key(2),
                "heads": Key(4),
                "width": Key(128),
                "context": Key(64),
                "dropout": DROPOUT,
            },
        ),
        RecipeCard(
            name="text_rnn",
            summary="a character-level LSTM or GRU on a text file (default: the standard library's pydoc topics)",
            source="text://pydoc_topics",
            metrics=("train_loss", "val_loss"),
            default_metric="val_loss",
            model={
                "cell": CELL,
                "layers": Key(1),
                "width": Key(256),
                "context": Key(64),
                "dropout": DROPOUT,
            },
        ),
        RecipeCard(
            name="text_classification",
            summary="a transformer or a recurrent network that labels texts, from JSONL or CSV (default: pydoc topics)",
            source="text://pydoc_topics",
            metrics=("train_loss", "val_loss", "val_accuracy"),
            default_metric="val_loss",
            model={
                "family": Key("transformer", choices=("transformer", "rnn")),
                "layers": Key(1),
                "heads": Key(4),
                "cell": CELL,
                "width": Key(64),
                "context": Key(128),
                "truncate": Key(False),
                "dropout": Key(0.2, low=0, below=1),
            },
        ),
        RecipeCard(
            name="tabular",
            summary="a multilayer perceptron on the rows of a table, from CSV or parquet (default: breast cancer)",
            source="sklearn://breast_cancer",
            metrics=("train_loss", "val_loss", "val_accuracy"),
            default_metric="val_loss",
            model={
                "target": Key("target"),
                "layers": Key(2),
                "width": Key(64),
                "embedding": Key(8),
                "dropout": DROPOUT,
            },
        ),
    )
}
