"""The shapes by which the server plans, held to the models that ranks build."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from trainers.catalogue import RECIPES
from trainers.config import Data, Settings, Train
from trainers.recipes import MAKERS
from trainers.shapes import ModelShape

KNOWN = [name for name, card in RECIPES.items() if card.shape is not None]
CHANGED: dict[str, list[dict[str, Any]]] = {
    "digits_cnn": [
        {"width": 8},
        {"blocks": 3, "norm": "none", "width": 12},
        {"norm": "batch", "dropout": 0.0},
    ],
    "text_transformer": [
        {"layers": 3, "width": 96, "heads": 2, "context": 16},
        {"width": 200, "heads": 4},
        {"experts": 4},
    ],
}
CASES = [(name, keys) for name in KNOWN for keys in [{}, *CHANGED.get(name, [])]]


def known(name: str, keys: dict[str, Any]) -> tuple[ModelShape, Any]:
    card = RECIPES[name]
    shape = card.shape_of(keys, card.source)
    assert shape is not None
    task = MAKERS[name](Settings(Data(card.source), Train(global_batch=8, epochs=1), model=keys))
    return shape, task


@pytest.mark.parametrize(("name", "keys"), CASES)
def test_a_shape_has_every_parameter_of_the_real_model(name: str, keys: dict[str, Any]) -> None:
    shape, task = known(name, keys)
    real = sorted(each.numel() for each in task.model().parameters())
    reckoned = sorted(
        tensor.elements
        for layer in shape.layers
        for tensor in layer.parameters
        for _ in range(layer.count * tensor.number)
    )
    assert reckoned == real
    assert shape.elements == sum(real)


@pytest.mark.parametrize(("name", "keys"), CASES)
def test_activations_are_what_autograd_keeps(name: str, keys: dict[str, Any]) -> None:
    """Within a fifth: allocators round, and kernels keep statistics of their own."""
    shape, task = known(name, keys)
    model = task.model()
    own = {each.untyped_storage().data_ptr() for each in model.parameters()}
    batch = task.splits.train.take(np.arange(8))
    batch["keys"] = torch.arange(8)
    own |= {each.untyped_storage().data_ptr() for each in batch.values()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = task.loss(model, batch)
    assert loss.requires_grad
    reckoned = 8 * sum(4 * layer.count * (layer.saved + layer.saved_fp32) for layer in shape.layers)
    assert reckoned == pytest.approx(sum(kept.values()), rel=0.2)


@pytest.mark.parametrize(("name", "keys"), CASES)
def test_the_number_of_examples_is_that_of_the_real_split(name: str, keys: dict[str, Any]) -> None:
    card = RECIPES[name]
    _, task = known(name, keys)
    if card.examples is not None:
        assert card.training_examples(keys, card.source, 0.70) == len(task.splits.train)
    assert card.training_examples(keys, "/data/unknown.npz", 0.70) is None


def test_data_that_nothing_is_known_of_is_reckoned_as_the_recipes_own() -> None:
    card = RECIPES["digits_cnn"]
    assert card.shape_of({}, "/data/faces.npz") == card.shape_of({}, card.source)


def test_keys_that_no_model_can_be_built_from_are_named() -> None:
    shape = RECIPES["text_transformer"].shape_of({"width": 100, "heads": 3}, "text://pydoc_topics")
    assert shape is not None
    assert shape.wrong == (("width", 100, "must be a multiple of twice model.heads, 6"),)
