"""Layers whose gradients are written by hand, held to torch's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from trainers.models.linear import Linear, LinearPair
from trainers.models.rms_norm import RMSNorm

WIDTH = 48
SHAPES = [(2, 5, WIDTH), (7, WIDTH), (WIDTH,), (0, WIDTH)]


def answers(ours: torch.Tensor, torchs: torch.Tensor, inputs: tuple[torch.Tensor, ...]) -> None:
    assert torch.allclose(ours, torchs, atol=1e-5)
    weights = torch.randn(torchs.shape)
    mine = torch.autograd.grad((ours * weights).sum(), inputs)
    its = torch.autograd.grad((torchs * weights).sum(), inputs)
    for one, other in zip(mine, its, strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_products_and_their_gradients_are_torchs(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer = Linear(WIDTH, 32).to(dtype)
    x = torch.randn(shape, dtype=dtype, requires_grad=True)
    answers(layer(x), functional.linear(x, layer.weight), (x, layer.weight))


def test_a_product_of_transposed_activations_is_torchs() -> None:
    torch.manual_seed(0)
    layer = Linear(WIDTH, 32)
    x = torch.randn(WIDTH, 5, 2, requires_grad=True)
    turned = x.permute(2, 1, 0)
    answers(layer(turned), functional.linear(turned, layer.weight), (x, layer.weight))


def test_a_product_leaves_out_the_gradient_that_nobody_wants() -> None:
    frozen = Linear(WIDTH, 32).requires_grad_(False)
    x = torch.randn(3, WIDTH, requires_grad=True)
    frozen(x).sum().backward()
    assert frozen.weight.grad is None
    assert x.grad is not None
    first = Linear(WIDTH, 32)
    first(torch.randn(3, WIDTH)).sum().backward()
    assert first.weight.grad is not None


def test_a_pair_is_the_two_halves_of_one_product() -> None:
    torch.manual_seed(0)
    pair = LinearPair(WIDTH, 32)
    x = torch.randn(2, 5, WIDTH, requires_grad=True)
    whole = functional.linear(x, pair.weight)
    answers(torch.cat(pair(x), dim=-1), whole, (x, pair.weight))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_norm_and_its_gradients_are_torchs(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    norm = RMSNorm(WIDTH).to(dtype)
    nn.init.normal_(norm.weight)
    x = torch.randn(shape, dtype=dtype, requires_grad=True)
    answers(norm(x), functional.rms_norm(x, (WIDTH,), norm.weight, norm.eps), (x, norm.weight))
