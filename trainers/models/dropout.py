"""Dropout whose random numbers belong to the sample, not to the process.

The mask is a hash of the sample's key, the layer and the element: the same sample gets the same mask at every world
size, on every device and after every restart, with no random state to save.
"""

from __future__ import annotations

import torch
from torch import nn


class SampleDropout(nn.Module):
    """Zeroes elements with probability `p` and scales the others by 1 / (1 - p), in training only."""

    def __init__(self, p: float, layer: int) -> None:
        super().__init__()
        self.p = p
        self.layer = layer  # layers of one model differ in it, or they would drop the same elements
        self.part = 0  # which of equal parts of every sample this rank sees

    def forward(self, x: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """`x` [batch, ...], `keys` int64 [batch]."""
        if not self.training or self.p == 0.0:
            return x
        elements = x[0].numel()
        mask = keep_mask(keys, self.layer, elements, self.p, first=self.part * elements).view(x.shape)
        return x * mask.to(x.dtype) * (1.0 / (1.0 - self.p))


def keep_mask(keys: torch.Tensor, layer: int, elements: int, p: float, first: int = 0) -> torch.Tensor:
    """Boolean [batch, elements], of a sample's elements from `first` on; each is False with probability `p`."""
    return hashed(keys, layer, elements, first) >= int(p * 2**32) - 2**31


def hashed(keys: torch.Tensor, layer: int, elements: int, first: int = 0) -> torch.Tensor:
    """int32 [batch, elements], uniform over all of them, for `keys` int64 [batch]: those from `first` on."""
    low, high = (keys & 0x7FFFFFFF).int(), ((keys >> 32) & 0x7FFFFFFF).int()
    counters = torch.arange(first, first + elements, dtype=torch.int32, device=keys.device)
    numbers = _scramble(counters.unsqueeze(0) ^ _scramble(low + layer * 0x3C6EF35).unsqueeze(1))
    return _scramble(numbers + high.unsqueeze(1))


def _scramble(x: torch.Tensor) -> torch.Tensor:
    # Shifts of int32 keep the sign, so they are masked; products wrap around.
    x = (x ^ ((x >> 16) & 0xFFFF)) * 0x7FEB352D
    x = (x ^ ((x >> 15) & 0x1FFFF)) * -0x7B935975
    return x ^ ((x >> 16) & 0xFFFF)
