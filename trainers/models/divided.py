"""What layers need whose work is divided over ranks: slices of weights, and the collectives between the slices.

Column- and row-parallel layers: Shoeybi et al. 2019 (arXiv 1909.08053). All-to-all for experts: Lepikhin et al. 2020
(arXiv 2006.16668).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed
from torch import nn
from torch.distributed import ProcessGroup


@dataclass(frozen=True)
class Split:
    """A weight of which every rank holds a slice along `dim`. Where several matrices are stacked there, `blocks` of
    them, it holds the same slice of each."""

    dim: int
    blocks: int = 1

    def part(self, whole: torch.Tensor, rank: int, size: int) -> torch.Tensor:
        """The slice of one of `size` ranks, which must divide the dimension."""
        part = self._stacked(whole).chunk(size, dim=self.dim + 1)[rank]
        return part.flatten(self.dim, self.dim + 1).contiguous()

    def whole(self, parts: list[torch.Tensor]) -> torch.Tensor:
        """The weight from the slices of all ranks, in order."""
        joined = torch.cat([self._stacked(each) for each in parts], dim=self.dim + 1)
        return joined.flatten(self.dim, self.dim + 1).contiguous()

    def _stacked(self, weight: torch.Tensor) -> torch.Tensor:
        shape = weight.shape
        return weight.reshape(*shape[: self.dim], self.blocks, shape[self.dim] // self.blocks, *shape[self.dim + 1 :])


def keep_part(layer: nn.Linear, split: Split, rank: int, size: int) -> None:
    """Leave this rank its slice of the layer's weight."""
    weight = nn.Parameter(split.part(layer.weight.detach(), rank, size), requires_grad=layer.weight.requires_grad)
    weight.model_parallel = True  # type: ignore[attr-defined]  # DeepSpeed counts it on every rank in the gradient's norm
    layer.weight = weight
    layer.out_features, layer.in_features = weight.shape


def copied(x: torch.Tensor, group: ProcessGroup | None) -> torch.Tensor:
    """`x`, the same on all ranks of the group, for layers of which each holds a slice: their gradients are summed."""
    return x if group is None else _Copied.apply(x, group)  # type: ignore[no-untyped-call]


def summed(x: torch.Tensor, group: ProcessGroup | None) -> torch.Tensor:
    """The sum of what the ranks of the group computed, the same on all of them."""
    return x if group is None else _Summed.apply(x, group)  # type: ignore[no-untyped-call]


def exchanged(rows: torch.Tensor, send: list[int], receive: list[int], group: ProcessGroup) -> torch.Tensor:
    """Rows [sum(send), ...] to the ranks of the group, `send` of them to each in order; rows [sum(receive), ...]."""
    return _Exchanged.apply(rows, send, receive, group)  # type: ignore[no-untyped-call, no-any-return]


class _Copied(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, group: ProcessGroup) -> torch.Tensor:
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        gradient = gradients[0].contiguous().clone()
        torch.distributed.all_reduce(gradient, group=ctx.group)
        return gradient, None


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, group: ProcessGroup) -> torch.Tensor:
        total = x.contiguous().clone()
        torch.distributed.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradients[0], None


class _Exchanged(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, send: list[int], receive: list[int], group: ProcessGroup) -> torch.Tensor:
        ctx.send, ctx.receive, ctx.group = send, receive, group
        return _all_to_all(rows, send, receive, group)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        return _all_to_all(gradients[0], ctx.receive, ctx.send, ctx.group), None, None, None


def _all_to_all(rows: torch.Tensor, send: list[int], receive: list[int], group: ProcessGroup) -> torch.Tensor:
    received = rows.new_empty((sum(receive), *rows.shape[1:]))
    torch.distributed.all_to_all_single(received, rows.contiguous(), receive, send, group=group)
    return received
