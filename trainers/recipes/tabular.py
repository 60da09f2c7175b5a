"""A multilayer perceptron on the rows of a table: tumours, wines, flights, or a user's own CSV or parquet file."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import Any

from trainers.config import Settings, section
from trainers.data.checks import check_classes, check_parts
from trainers.data.loader import Splits
from trainers.data.sources import split_indices
from trainers.data.tables import Encoding, check_table, read_table
from trainers.models.tabular import TabularMlp
from trainers.tasks.classification import Classification


@dataclass(frozen=True)
class Model:
    """`model:` of the run file."""

    target: str = "target"  # in a file: the column to predict
    layers: int = 2
    width: int = 64
    embedding: int = 8  # numbers in the vector of a category's value
    dropout: float = 0.1


def tabular(settings: Settings) -> Classification:
    """Raises BadConfig when a number is none, or there is nothing to tell apart."""
    model = section(Model, settings.model, "model")
    table = read_table(settings.data.source, model.target)
    parts = split_indices(len(table), settings.data.split)
    check_parts(parts, settings.data)
    check_table(table, settings.data)
    check_classes(table.targets, parts, settings.data)
    encoding = Encoding.fit(table, parts[0])
    network: dict[str, Any] = {
        "numbers": len(encoding.means),
        "sizes": encoding.sizes,
        "classes": len(table.labels),
        "width": model.width,
        "layers": model.layers,
        "embedding": model.embedding,
        "dropout": model.dropout,
    }
    return Classification(
        splits=Splits(*(encoding.encode(table, part) for part in parts)),
        build=partial(TabularMlp, **network),
        inputs=("numbers", "categories"),
        notes={"labels": list(table.labels), "encoding": dataclasses.asdict(encoding), "network": network},
    )
