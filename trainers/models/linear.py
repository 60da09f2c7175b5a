"""Products of activations and weights, on a CPU in fp32 by oneDNN.

torch carries two libraries for them there. Left to itself it multiplies by MKL, which on an AMD EPYC (Zen 4) was seen to
do 83 GFLOP/s a core where oneDNN does 96. oneDNN it takes for narrower types, and in what `torch.compile` makes for
inference: by the operator that is called here. Everywhere else a product is torch's own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional


class Linear(nn.Linear):
    """`x` [..., inputs] -> [..., outputs], without a bias."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return product(x, self.weight)


class LinearPair(nn.Linear):
    """Two layers of equal size whose matrices lie under one another in one weight: `x` [..., inputs] -> two [..., outputs].

    On a GPU they are one product. On a CPU that gains nothing, and the gradients of both results would first have to be
    copied together.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, 2 * outputs, bias=False)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # type: ignore[override]
        if x.device.type == "cpu":
            first, second = (product(x, half) for half in self.weight.chunk(2))
        else:
            first, second = functional.linear(x, self.weight).chunk(2, dim=-1)
        return first, second


def product(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """`x` [..., inputs] times the transpose of `weight` [outputs, inputs], in `x`'s type."""
    by_onednn = x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32 and x.numel() > 0
    if by_onednn and _HAS_ONEDNN and not torch.compiler.is_compiling():
        multiplied: torch.Tensor = _Product.apply(x, weight)  # type: ignore[no-untyped-call]
        return multiplied
    return functional.linear(x, weight)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        return _onednn(x, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        x, weight = ctx.saved_tensors
        gradient = gradient.contiguous()
        of_x = _onednn(gradient, weight.t()) if ctx.needs_input_grad[0] else None
        # Here both factors are transposed, which oneDNN would copy first: MKL is the faster.
        of_weight = _rows(gradient).t() @ _rows(x) if ctx.needs_input_grad[1] else None
        return of_x, of_weight


def _onednn(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    multiplied: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
    return multiplied


def _rows(x: torch.Tensor) -> torch.Tensor:
    return x.reshape(-1, x.shape[-1])


_THERE = bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
_HAS_ONEDNN = _THERE and torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
