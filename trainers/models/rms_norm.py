"""RMSNorm (Zhang and Sennrich 2019, arXiv 1910.07467), on a CPU with its gradient in few passes over memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable

_EPS = 1e-5


class RMSNorm(nn.RMSNorm):
    """`x` [..., width] over the root of its mean square, times a weight. On a GPU torch has one kernel for it; for a CPU
    it is put together from a dozen operations, of which each reads and writes all of `x`."""

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=_EPS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if (
            x.device.type == "cpu"
            and x.dtype == self.weight.dtype == torch.float32
            and not torch.compiler.is_compiling()
        ):
            normed: torch.Tensor = _Normed.apply(x, self.weight)  # type: ignore[no-untyped-call]
            return normed
        return super().forward(x)


class _Normed(torch.autograd.Function):
    """With n = x / r, r = sqrt(mean(x^2) + eps), and y = n w: dx = (dy w - n mean(dy w n)) / r."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        mean_square = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square() / x.shape[-1]
        scale = (mean_square + _EPS).rsqrt()
        unit = x * scale
        ctx.save_for_backward(unit, scale, weight)
        normed: torch.Tensor = unit * weight
        return normed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        unit, scale, weight = ctx.saved_tensors
        by_unit = (gradient * unit).view(-1, weight.numel())
        along = torch.mv(by_unit, weight).view(scale.shape) / -weight.numel()
        of_x = torch.addcmul(gradient * weight, unit, along).mul_(scale)
        return of_x, by_unit.sum(0)
