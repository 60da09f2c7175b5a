"""A model in service, as a team would write it: the sealed weights, and what their training fitted to the columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from trainers.data.preparing.transform import Fitted, apply
from trainers.export import sealed_notes, sealed_weights
from trainers.models.tabular import TabularMlp


class Served:
    """A version of a recipe `tabular`, by its checkpoint."""

    def __init__(self, checkpoint: str) -> None:
        notes = sealed_notes(checkpoint)
        self._fitted = Fitted.from_json(notes["preparation"])
        self._model = TabularMlp(**notes["network"]).eval()
        self._model.load_state_dict(sealed_weights(checkpoint))
        self._words: Sequence[str] = notes["labels"]

    def answers(self, columns: Mapping[str, Any]) -> tuple[list[str], list[float]]:
        """The classes of rows, in words, and how sure it is of each."""
        inputs = torch.from_numpy(apply(pa.table(dict(columns)), self._fitted)["inputs"])
        none = torch.zeros(len(inputs), 0, dtype=torch.int64)
        with torch.no_grad():
            shares = self._model(inputs, none, torch.zeros(len(inputs), dtype=torch.int64)).softmax(dim=1)
        sure, places = shares.max(dim=1)
        return [self._words[place] for place in places.tolist()], np.round(sure.numpy().astype(float), 6).tolist()
