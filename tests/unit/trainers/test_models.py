"""Models, and the recipes that the contract promises."""

from __future__ import annotations

import dataclasses
import importlib

import pytest
import torch

from trainers.config import Data, Settings, Train
from trainers.contract import RECIPES
from trainers.errors import BadConfig
from trainers.models.dropout import SampleDropout, keep_mask
from trainers.models.transformer import Transformer
from trainers.recipes import MAKERS
from trainers.recipes.digits_cnn import digits_cnn
from trainers.recipes.text_transformer import text_transformer

KEYS = torch.tensor([3, -(2**62), 2**40, 11])


def settings(source: str, **model: object) -> Settings:
    return Settings(Data(source), Train(global_batch=4, epochs=1), model=model)


def test_dropout_drops_its_share_anew_for_every_key_and_layer() -> None:
    keys = torch.arange(64) * 0x9E3779B97F4A7C1
    masks = torch.stack([keep_mask(keys, layer, 1000, p=0.3).float() for layer in (0, 1)])
    assert masks.mean().item() == pytest.approx(0.7, abs=0.005)
    assert masks.mean(dim=(0, 1)).std().item() < 0.06  # no element is preferred
    assert masks.mean(dim=(0, 2)).std().item() < 0.02  # nor a sample
    alike = (masks[0] == masks[1]).float().mean().item()
    assert alike == pytest.approx(0.7**2 + 0.3**2, abs=0.01)  # layers are independent


def test_dropout_of_a_sample_does_not_depend_on_its_batch() -> None:
    dropout = SampleDropout(0.5, layer=2)
    x = torch.ones(4, 5, 6)
    whole = dropout(x, KEYS)
    parts = torch.cat([dropout(x[:1], KEYS[:1]), dropout(x[1:], KEYS[1:])])
    assert torch.equal(whole, parts)
    assert set(whole.unique().tolist()) == {0.0, 2.0}


def test_dropout_rests_in_evaluation() -> None:
    x = torch.randn(4, 7)
    assert torch.equal(SampleDropout(0.5, layer=0).eval()(x, KEYS), x)
    assert torch.equal(SampleDropout(0.0, layer=0)(x, KEYS), x)


def test_the_transformer_does_not_see_the_future() -> None:
    torch.manual_seed(0)
    model = Transformer(vocabulary=11, context=8, layers=2, heads=2, width=16, dropout=0.0)
    tokens = torch.randint(0, 11, (4, 8))
    later = tokens.clone()
    later[:, 5:] = (later[:, 5:] + 1) % 11
    before, after = model(tokens, KEYS), model(later, KEYS)
    assert torch.allclose(before[:, :5], after[:, :5], atol=1e-6)
    assert not torch.allclose(before[:, 5:], after[:, 5:], atol=1e-3)


def test_every_card_has_its_recipe_and_no_other() -> None:
    assert MAKERS.keys() == RECIPES.keys()


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_keeps_what_its_card_says(name: str) -> None:
    card = RECIPES[name]
    model = importlib.import_module(f"trainers.recipes.{name}").Model
    assert tuple(each.name for each in dataclasses.fields(model)) == card.model_keys
    source = {"digits_cnn": "sklearn://digits", "text_transformer": "text://pydoc_topics"}[name]
    task = MAKERS[name](settings(source))
    assert task.judged_by == card.default_metric
    batch = {**task.splits.validation.take(torch.arange(4).numpy()), "keys": KEYS}
    measured = task.measure(task.model(), batch)
    assert {"train_loss", *(f"val_{each}" for each in measured)} == set(card.metrics)
    assert all(each.shape == (4,) for each in measured.values())


def test_unknown_model_keys_are_refused() -> None:
    with pytest.raises(BadConfig, match=r"^model\.depth: got 3: unknown key; known: width, dropout"):
        digits_cnn(settings("sklearn://digits", depth=3))


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(BadConfig, match=r"^model\.width: got 10: must be a multiple of model\.heads, 4"):
        text_transformer(settings("text://pydoc_topics", width=10))
