"""Attributions of models for which they are known exactly."""

from __future__ import annotations

import pytest
import torch
from captum.attr import IntegratedGradients
from torch import nn

from trainers.attribution import attention, embedded_as, integrated_gradients, occlusion
from trainers.models.transformer import Attention, Transformer, rotation


def test_a_linear_models_inputs_count_for_weight_times_distance_from_the_baseline() -> None:
    torch.manual_seed(0)
    model = nn.Linear(5, 3)
    x, baseline = torch.randn(1, 5), torch.randn(1, 5)
    found = integrated_gradients(model, (x,), (baseline,), target=2)
    expected = (model.weight[2] * (x - baseline)).detach()
    assert torch.allclose(found.parts[0], expected, atol=1e-6)
    assert found.change == pytest.approx(float(expected.sum()), abs=1e-5)
    assert abs(found.gap) < 1e-5


def test_attributions_of_a_product_add_up_to_the_change() -> None:
    def product(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (x * y).sum(dim=1, keepdim=True)

    x, y = torch.tensor([[2.0, 3.0]]), torch.tensor([[5.0, -1.0]])
    found = integrated_gradients(product, (x, y), (torch.zeros(1, 2), torch.zeros(1, 2)), target=0)
    assert torch.allclose(found.parts[0], torch.tensor([[5.0, -1.5]]), atol=1e-5)  # both factors share alike
    assert torch.allclose(found.parts[1], torch.tensor([[5.0, -1.5]]), atol=1e-5)
    assert found.change == 7.0


def test_a_kink_makes_the_path_finer_until_the_gap_is_small() -> None:
    def bent(x: torch.Tensor) -> torch.Tensor:
        return (20 * (x - 0.77)).clamp(0, 1)  # flat but for a twentieth of the path

    x, zero = torch.ones(1, 1), torch.zeros(1, 1)
    coarse = IntegratedGradients(bent).attribute(x, zero, target=0, n_steps=64)
    assert abs(float(coarse.sum()) - 1) > 0.1
    found = integrated_gradients(bent, (x,), (zero,), target=0)
    assert found.change == pytest.approx(1)
    assert abs(found.gap) < 0.01
    assert found.gap == pytest.approx(float(found.parts[0].sum()) - 1, abs=1e-6)


def test_occlusion_is_what_is_lost_without_the_token() -> None:
    scores = torch.tensor([0.0, 1.0, 4.0])

    def forward(tokens: torch.Tensor) -> torch.Tensor:
        said = scores[tokens].sum(dim=1)
        return torch.stack((torch.zeros_like(said), said), dim=1)

    tokens = torch.tensor([[1, 2, 0]])
    found = occlusion(forward, tokens, [torch.zeros_like(tokens)], target=1)
    likely = [float(nn.functional.logsigmoid(torch.tensor(each))) for each in (5.0, 4.0, 1.0)]
    assert found.tolist() == pytest.approx([likely[0] - likely[1], likely[0] - likely[2], 0.0], abs=1e-6)


def test_occlusion_is_the_mean_over_what_the_token_is_replaced_by() -> None:
    def forward(tokens: torch.Tensor) -> torch.Tensor:
        return torch.stack((tokens[:, 0].float(), tokens[:, 1].float()), dim=1)

    tokens = torch.tensor([[3, 5]])
    others = [torch.tensor([[1, 0]]), torch.tensor([[4, 2]])]
    each = [occlusion(forward, tokens, [other], target=1) for other in others]
    assert torch.allclose(occlusion(forward, tokens, others, target=1), (each[0] + each[1]) / 2)
    assert not torch.allclose(each[0], each[1])


def test_an_embedding_answers_what_it_is_told_and_forgets_it_afterwards() -> None:
    embedding = nn.Embedding(4, 2)
    told = torch.full((3, 2), 7.0)
    with embedded_as([embedding], [told]):
        assert embedding(torch.tensor([0, 1, 2])) is told
    assert torch.equal(embedding(torch.tensor([1])), embedding.weight[1:2])


@pytest.mark.parametrize(("causal", "padded"), [(True, False), (False, False), (False, True)])
def test_attentions_weights_are_those_that_it_attends_by(causal: bool, padded: bool) -> None:
    torch.manual_seed(0)
    layer = Attention(width=16, heads=2, causal=causal)
    x, turn = torch.randn(2, 6, 16), rotation(torch.arange(6), 8)
    real = torch.arange(6).expand(2, 6) < 4 if padded else None
    weights = layer.weights(x, turn, real)
    assert weights.shape == (2, 2, 6, 6)
    values = layer.qkv(x)[..., 32:].view(2, 6, 2, 8).transpose(1, 2)
    attended = (weights @ values).transpose(1, 2).reshape(2, 6, 16)
    assert torch.allclose(layer.out(attended), layer(x, turn, real), atol=1e-5)


def test_attention_is_seen_in_every_layer_and_only_where_there_is_any() -> None:
    torch.manual_seed(0)
    model = Transformer(vocabulary=7, layers=2, heads=2, width=16, dropout=0.0)
    tokens = torch.randint(0, 7, (1, 5))
    seen = attention(model, lambda given: model(given, torch.zeros(len(given), dtype=torch.int64)), tokens)
    assert seen is not None
    assert torch.allclose(seen.sum(dim=1), torch.ones(5))
    assert torch.equal(seen.triu(1), torch.zeros(5, 5))
    assert not any(each._forward_pre_hooks for each in model.modules())
    assert attention(nn.Linear(2, 2), lambda given: given, tokens) is None
