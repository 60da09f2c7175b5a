"""A multilayer perceptron on the rows of a table: tumours, wines, flights, or a user's own files of any kind."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from trainers.config import Settings, section
from trainers.data.loader import Splits
from trainers.data.prepare import prepare
from trainers.data.prepared import Columns, Prepared
from trainers.data.preparing.splitting import PARTS
from trainers.errors import BadConfig
from trainers.models.tabular import TabularMlp
from trainers.tasks.classification import Classification


@dataclass(frozen=True)
class Model:
    """`model:` of the run file."""

    layers: int = 2
    width: int = 64
    embedding: int = 8  # numbers in the vector of a category's value
    dropout: float = 0.1


def tabular(settings: Settings) -> Classification:
    """Raises BadData with the rows that cannot be learned from, and BadConfig where no table of classes is meant."""
    model = section(Model, settings.model, "model")
    prepared = prepare(settings.data)
    classes = _classes(prepared, settings.data.source)
    fitted = prepared.fitted
    network: dict[str, Any] = {
        "numbers": len(fitted.roles.numbers),
        "sizes": [1 + len(fitted.categories[name]) for name in fitted.roles.categories],
        "classes": len(classes),
        "width": model.width,
        "layers": model.layers,
        "embedding": model.embedding,
        "dropout": model.dropout,
    }
    return Classification(
        splits=Splits(*(_columns(prepared.part(name)) for name in PARTS)),
        build=partial(TabularMlp, **network),
        inputs=("numbers", "categories"),
        notes={"labels": list(classes), "network": network, **prepared.notes},
        classes=classes,
        arranged=_columns,
    )


def _classes(prepared: Prepared, source: str) -> tuple[str, ...]:
    """What a row may be, as text. Raises BadConfig when the data are no rows of numbers and categories, each of a class."""
    fitted = prepared.fitted
    label = fitted.roles.label
    if label is None:
        raise BadConfig("data.label", None, f"must name the column of {source} to predict")
    if fitted.classes is None:
        raise BadConfig(
            "data.label",
            label,
            f"holds numbers of floating point, and this recipe tells classes apart: where they are its classes, say so "
            f"by data.columns: {{{label}: {{type: integer}}}}",
        )
    if not fitted.roles.numbers and not fitted.roles.categories:
        raise BadConfig("data.source", source, f"must hold numbers or categories, not {fitted.roles.features[0]}")
    return tuple(map(str, fitted.classes))


def _columns(part: Columns) -> Columns:
    """With both kinds of inputs, of which there may be no column: `numbers` [n, numbers], `categories` [n, categories]."""
    none = torch.empty(part.rows, 0)
    found = part.columns
    inputs = {"numbers": found.get("inputs", none), "categories": found.get("categories", none.int())}
    targets = {"targets": found["targets"]} if "targets" in found else {}  # rows in another model's terms have none
    return Columns({**inputs, **targets}, part.rows)
