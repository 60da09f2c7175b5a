"""Batch normalisation over the samples of all ranks: torch's own refuses to do that on a CPU.

Ioffe and Szegedy 2015 (arXiv 1502.03167). With statistics of one rank alone, losses would depend on how the batch is cut,
and every rank would keep running statistics of its own, of which a checkpoint holds rank 0's. Over all ranks both are gone
as long as a step has one micro-batch; with accumulation the statistics are those of world size x micro_batch samples.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.distributed
from torch import nn

_MOMENTUM = 0.1  # of the running statistics
_EPSILON = 1e-5


class BatchNorm(nn.Module):
    """Each channel of `x` [batch, channels, height, width] with mean 0 and variance 1, then scaled and shifted."""

    running_mean: torch.Tensor
    running_variance: torch.Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_variance", torch.ones(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Collective in training; in evaluation the running statistics are taken."""
        if self.training:
            centred, variance = self._of_all_ranks(x.float())
        else:
            centred, variance = x.float() - self.running_mean.float().view(-1, 1, 1), self.running_variance.float()
        scale = self.weight.float() * torch.rsqrt(variance + _EPSILON)
        return (centred * scale.view(-1, 1, 1) + self.bias.float().view(-1, 1, 1)).to(x.dtype)

    def _of_all_ranks(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """`x` less its mean, and its variance [channels]: of the differences, for that of two large numbers is inexact."""
        ranks = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
        average = partial(_over_all_ranks, ranks=ranks)
        mean = average(x)
        centred = x - mean.view(-1, 1, 1)
        variance = average(centred.square())
        samples = x.numel() // x.shape[1] * ranks
        with torch.no_grad():
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), _MOMENTUM)
            unbiased = variance * (samples / max(1, samples - 1))
            self.running_variance.lerp_(unbiased.to(self.running_variance.dtype), _MOMENTUM)
        return centred, variance


def _over_all_ranks(values: torch.Tensor, ranks: int) -> torch.Tensor:
    mean = values.mean(dim=(0, 2, 3))
    return mean if ranks == 1 else _sum_over_ranks(mean) / ranks


class _SumOverRanks(torch.autograd.Function):
    """What one rank contributed moves the losses of all, so gradients are summed as well."""

    @staticmethod
    def forward(context: Any, values: torch.Tensor) -> torch.Tensor:
        return _summed(values)

    @staticmethod
    def backward(context: Any, gradients: torch.Tensor) -> torch.Tensor:
        return _summed(gradients)


_sum_over_ranks: Callable[[torch.Tensor], torch.Tensor] = _SumOverRanks.apply


def _summed(values: torch.Tensor) -> torch.Tensor:
    total = values.clone()
    torch.distributed.all_reduce(total)
    return total
