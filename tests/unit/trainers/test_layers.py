"""The layers of convolutional, recurrent and tabular networks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trainers.models.batch_norm import BatchNorm
from trainers.models.cnn import Cnn, Norm
from trainers.models.rnn import Cell, Rnn
from trainers.models.tabular import TabularMlp
from trainers.models.text_classifier import PADDING, TextClassifier
from trainers.models.transformer import Transformer

KEYS = torch.tensor([3, -(2**62), 2**40, 11])


def test_batch_norm_is_torchs_in_training_and_after_it() -> None:
    torch.manual_seed(0)
    ours, theirs = BatchNorm(3), nn.BatchNorm2d(3)
    for _ in range(3):
        mine = (torch.randn(8, 3, 5, 5) * 2 + 1).requires_grad_()
        other = mine.detach().clone().requires_grad_()
        assert torch.allclose(ours(mine), theirs(other), atol=1e-5)
        ours(mine).pow(3).sum().backward()
        theirs(other).pow(3).sum().backward()
        assert mine.grad is not None
        assert other.grad is not None
        assert torch.allclose(mine.grad, other.grad, atol=1e-3)
    x = torch.randn(2, 3, 5, 5)
    assert torch.allclose(ours.eval()(x), theirs.eval()(x), atol=1e-5)


@pytest.mark.parametrize(("norm", "alone"), [("layer", True), ("none", True), ("batch", False)])
def test_only_batch_norm_lets_an_image_depend_on_its_batch(norm: Norm, alone: bool) -> None:
    torch.manual_seed(0)
    model = Cnn(channels=2, classes=5, width=4, blocks=2, norm=norm, dropout=0.5)
    images = torch.randn(4, 2, 9, 7)
    whole = model(images, KEYS)
    parts = torch.cat([model(images[:1], KEYS[:1]), model(images[1:], KEYS[1:])])
    assert whole.shape == (4, 5)
    assert torch.allclose(whole, parts, atol=1e-5) == alone


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_recurrent_network_does_not_see_the_future(cell: Cell) -> None:
    torch.manual_seed(0)
    model = Rnn(vocabulary=11, cell=cell, layers=2, width=8, dropout=0.0)
    tokens = torch.randint(0, 11, (4, 8))
    later = tokens.clone()
    later[:, 5:] = (later[:, 5:] + 1) % 11
    before, after = model(tokens, KEYS), model(later, KEYS)
    assert before.shape == (4, 8, 11)
    assert torch.allclose(before[:, :5], after[:, :5], atol=1e-6)
    assert not torch.allclose(before[:, 5:], after[:, 5:], atol=1e-3)


def test_dropout_of_a_recurrent_network_belongs_to_the_sample() -> None:
    torch.manual_seed(0)
    model = Rnn(vocabulary=11, cell="lstm", layers=2, width=8, dropout=0.5)
    tokens = torch.randint(0, 11, (4, 8))
    whole = model(tokens, KEYS)
    assert torch.allclose(whole[1:], model(tokens[1:], KEYS[1:]), atol=1e-6)
    assert not torch.allclose(whole, model(tokens, KEYS + 1), atol=1e-3)


def bodies() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return {
        "rnn": Rnn(vocabulary=11, cell="gru", layers=2, width=8, dropout=0.0, both_ways=True, outputs=3),
        "transformer": Transformer(vocabulary=11, layers=2, heads=2, width=8, dropout=0.0, causal=False, outputs=3),
    }


@pytest.mark.parametrize("family", ["rnn", "transformer"])
def test_a_text_is_classified_alike_however_far_it_is_padded(family: str) -> None:
    model = TextClassifier(bodies()[family])
    tokens = torch.randint(1, 11, (4, 6))
    tokens[0, 2:] = tokens[1, 5:] = PADDING
    padded = torch.cat([tokens, torch.full((4, 5), PADDING)], dim=1)
    short = model(tokens[:1, :2], KEYS[:1])
    assert model(tokens, KEYS).shape == (4, 3)
    assert torch.allclose(model(tokens, KEYS), model(padded, KEYS), atol=1e-6)
    assert torch.allclose(short[0], model(tokens, KEYS)[0], atol=1e-6)


@pytest.mark.parametrize("family", ["rnn", "transformer"])
def test_a_classifier_of_texts_reads_both_ways(family: str) -> None:
    body = bodies()[family]
    tokens = torch.randint(1, 11, (4, 6))
    other_end = tokens.clone()
    other_end[:, -1] = tokens[:, -1] % 10 + 1
    real = torch.ones(4, 6, dtype=torch.bool)
    assert not torch.allclose(body(tokens, KEYS, real)[:, 0], body(other_end, KEYS, real)[:, 0], atol=1e-5)


@pytest.mark.parametrize(("numbers", "sizes"), [(3, [4, 9]), (0, [4]), (3, [])])
def test_a_table_may_lack_numbers_or_categories(numbers: int, sizes: list[int]) -> None:
    model = TabularMlp(numbers=numbers, sizes=sizes, classes=2, width=8, layers=2, embedding=4, dropout=0.3)
    categories = torch.stack([torch.arange(4) % size for size in sizes], dim=1) if sizes else torch.empty((4, 0)).long()
    values = torch.randn(4, numbers)
    whole = model(values, categories, KEYS)
    assert whole.shape == (4, 2)
    assert torch.allclose(whole[2:], model(values[2:], categories[2:], KEYS[2:]), atol=1e-6)
