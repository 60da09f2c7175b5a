"""Normal numbers that belong to the sample, as the masks of `trainers.models.dropout` do."""

from __future__ import annotations

import math

import torch

from trainers.models.dropout import hashed


def normal_noise(keys: torch.Tensor, layer: int, elements: int) -> torch.Tensor:
    """float32 [batch, elements] for `keys` int64 [batch]: the same for the same key, layer and element."""
    uniform = (hashed(keys, layer, elements).double() + (2**31 + 0.5)) / 2**32
    return (math.sqrt(2) * torch.erfinv(2 * uniform - 1)).float()
