"""What a model's parts are made of: slices of weights, masks of parts of samples, and routed experts."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trainers.models.divided import Split
from trainers.models.dropout import SampleDropout
from trainers.models.experts import BALANCE_WEIGHT, Experts, balance_loss
from trainers.models.transformer import SPLITS, Attention, Feed

KEYS = torch.tensor([3, -(2**62)])


@pytest.mark.parametrize("split", SPLITS.values())
@pytest.mark.parametrize("size", [1, 2, 3])
def test_slices_make_the_whole_again(split: Split, size: int) -> None:
    whole = torch.arange(36 * 24.0).view(36, 24)
    parts = [split.part(whole, rank, size) for rank in range(size)]
    assert torch.equal(split.whole(parts), whole)
    assert len({part.shape for part in parts}) == 1


def test_a_slice_of_stacked_matrices_has_the_same_rows_of_each() -> None:
    stacked = torch.cat([torch.arange(4.0), 10 + torch.arange(4.0)]).unsqueeze(1)
    assert Split(dim=0, blocks=2).part(stacked, rank=1, size=2).flatten().tolist() == [2, 3, 12, 13]


def test_the_sum_over_slices_of_a_feed_forward_layer_is_the_whole_layer() -> None:
    torch.manual_seed(0)
    whole, x = Feed(width=16), torch.randn(2, 3, 16)
    total = torch.zeros(2, 3, 16)
    for rank in range(2):
        part = Feed(width=16)
        part.gate_up.weight = nn.Parameter(SPLITS["gate_up.weight"].part(whole.gate_up.weight, rank, 2))
        part.down.weight = nn.Parameter(SPLITS["down.weight"].part(whole.down.weight, rank, 2))
        total += part(x)
    assert torch.allclose(total, whole(x), atol=1e-6)


def test_every_weight_of_a_block_that_is_split_is_named() -> None:
    attention, feed = Attention(width=16, heads=2, causal=True), Feed(width=16)
    names = [f"attention.{name}" for name, _ in attention.named_parameters()]
    names += [f"feed.{name}" for name, _ in feed.named_parameters()]
    assert all(any(name.endswith(end) for end in SPLITS) for name in names)


def test_the_mask_of_a_part_is_a_part_of_the_whole_samples_mask() -> None:
    x = torch.ones(2, 6, 5)
    whole = SampleDropout(0.5, layer=1)(x, KEYS)
    for part in range(3):
        dropout = SampleDropout(0.5, layer=1)
        dropout.part = part
        assert torch.equal(dropout(x[:, :2], KEYS), whole[:, 2 * part : 2 * part + 2])


def experts_of(width: int, experts: int) -> Experts:
    torch.manual_seed(1)
    return Experts(width=width, experts=experts, expert=lambda: nn.Linear(width, width, bias=False))


def loss_of(layer: Experts) -> torch.Tensor:
    loss = balance_loss(layer)
    assert isinstance(loss, torch.Tensor)
    return loss


def test_every_token_is_computed_by_its_two_best_experts() -> None:
    layer, x = experts_of(8, 4), torch.randn(2, 5, 8)
    rated = torch.softmax(layer.router(x), dim=-1)
    expected = torch.zeros_like(x)
    for sample, position in ((s, p) for s in range(2) for p in range(5)):
        best = rated[sample, position].argsort(descending=True)[:2]
        shares = rated[sample, position, best] / rated[sample, position, best].sum()
        for share, expert in zip(shares, best.tolist(), strict=True):
            expected[sample, position] += share * layer.local[expert](x[sample, position])
    assert torch.allclose(layer(x), expected, atol=1e-6)


def test_an_expert_without_tokens_has_a_gradient_of_zeros() -> None:
    layer = experts_of(8, 4)
    with torch.no_grad():
        layer.router.weight.zero_()
        layer.router.weight[:2] = 1.0
    layer(torch.ones(1, 3, 8)).sum().backward()
    assert [bool(each.weight.grad.abs().sum() > 0) for each in layer.local] == [True, True, False, False]


def test_the_routers_loss_is_one_where_all_experts_are_alike_and_more_where_few_are_favoured() -> None:
    layer = experts_of(8, 4)
    x = torch.randn(3, 50, 8)
    layer(x)
    even = loss_of(layer)
    assert even.item() / BALANCE_WEIGHT == pytest.approx(1.0, abs=0.1)
    with torch.no_grad():
        x[..., 0] = 1.0
        layer.router.weight[0, 0] = 5.0
    layer(x)
    favoured = loss_of(layer)
    assert favoured.item() > 1.2 * even.item()


def test_the_routers_loss_of_a_batch_is_the_mean_of_its_samples() -> None:
    layer, x = experts_of(8, 4), torch.randn(4, 6, 8)
    layer(x)
    whole = loss_of(layer)
    parts = []
    for half in x.chunk(2):
        layer(half)
        parts.append(loss_of(layer))
    assert torch.allclose(torch.stack(parts).mean(), whole)
