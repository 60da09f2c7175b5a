"""Activation checkpointing: a block keeps its input only, and is computed again in the backward pass (Chen et al. 2016,
arXiv 1604.06174)."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from trainers.errors import BadConfig


def recompute_blocks(model: nn.Module) -> None:
    """Wrap every entry of the model's outermost `nn.ModuleList`s, in training only.

    Random numbers are drawn again alike. Raises BadConfig when the model has no such list.
    """
    blocks = [block for each in _outermost_lists(model) for block in each]
    if not blocks:
        raise BadConfig(
            "train.activation_checkpointing",
            True,
            f"{type(model).__name__} has no nn.ModuleList of blocks to compute again: leave it out",
        )
    for block in blocks:
        block.forward = partial(_forward, block, block.forward)


def _forward(block: nn.Module, forward: Any, *args: Any, **kwargs: Any) -> Any:
    if not (block.training and torch.is_grad_enabled()):
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)


def _outermost_lists(module: nn.Module) -> list[nn.ModuleList]:
    if isinstance(module, nn.ModuleList):
        return [module]
    return [found for child in module.children() for found in _outermost_lists(child)]
