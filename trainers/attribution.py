"""What each input counted for in what a model said, by captum.

Integrated gradients (Sundararajan et al. 2017, arXiv 1703.01365) for what can be scaled between a baseline and the
sample: pixels, numbers, and the vectors that stand for categories. Occlusion (Zeiler and Fergus 2014, arXiv 1311.2901)
for what cannot: tokens are replaced, one at a time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from trainers.models.transformer import Attention, Rotation

Forward = Callable[..., torch.Tensor]

_STEPS = (64, 128, 256, 512)  # on the way from the baseline, until the gap is small
_SMALL_GAP_RATIO = 0.01  # of the change
_SMALL_GAP = 1e-4  # where nothing much changes
_BATCH = 64  # of one pass through the model


@dataclass(frozen=True)
class Attributed:
    """What each part of one sample's inputs counted for; together they should add up to `change`."""

    parts: tuple[torch.Tensor, ...]  # each [1, ...], as the inputs
    change: float  # output at the sample less output at the baseline
    gap: float  # sum of all parts less `change`


def integrated_gradients(
    forward: Forward, inputs: tuple[torch.Tensor, ...], baselines: tuple[torch.Tensor, ...], target: int
) -> Attributed:
    """Of the output `forward(*inputs)[:, target]`, for one sample: all inputs are [1, ...] and floating-point.

    The path is cut finer until the parts add up to the change within 1 %, or 512 steps have been taken.
    """
    with torch.no_grad():
        change = float(forward(*inputs)[0, target] - forward(*baselines)[0, target])
    from captum.attr import IntegratedGradients  # here: a zygote, which imports every module, has no use for it

    method: Any = IntegratedGradients(forward)
    for steps in _STEPS:
        parts = method.attribute(inputs, baselines, target=target, n_steps=steps, internal_batch_size=_BATCH)
        gap = sum(float(each.sum()) for each in parts) - change
        if abs(gap) <= max(_SMALL_GAP, _SMALL_GAP_RATIO * abs(change)):
            break
    return Attributed(tuple(each.detach() for each in parts), change, gap)


def occlusion(
    forward: Forward, tokens: torch.Tensor, replacements: Sequence[torch.Tensor], target: int
) -> torch.Tensor:
    """How much less likely `target` becomes, in nats, when one token is replaced: [positions], for one sample.

    `tokens` int64 [1, positions]; each of the `replacements`, of that shape, is tried, and their mean taken.
    `forward(tokens)` gives logits [batch, classes].
    """
    from captum.attr import Occlusion

    method: Any = Occlusion(lambda changed: functional.log_softmax(forward(changed), dim=-1)[:, target])
    with torch.no_grad():
        each = [
            method.attribute(tokens, sliding_window_shapes=(1,), baselines=other, perturbations_per_eval=_BATCH)
            for other in replacements
        ]
    mean: torch.Tensor = torch.stack(each).float().mean(dim=0)[0]
    return mean


@contextlib.contextmanager
def embedded_as(embeddings: Sequence[nn.Module], vectors: Sequence[torch.Tensor]) -> Iterator[None]:
    """Within, each embedding answers the given vectors, whatever it is asked."""

    def answer(vector: torch.Tensor, *_: object) -> torch.Tensor:
        return vector

    with contextlib.ExitStack() as hooks:
        for embedding, vector in zip(embeddings, vectors, strict=True):
            hooks.callback(embedding.register_forward_hook(partial(answer, vector)).remove)
        yield


def attention(model: nn.Module, forward: Forward, tokens: torch.Tensor) -> torch.Tensor | None:
    """How much every position looks at every other [positions, positions], the mean over layers and heads, for one sample
    [1, positions]; None when the model has no attention."""
    layers = [each for each in model.modules() if isinstance(each, Attention)]
    seen: list[torch.Tensor] = []

    def look(layer: nn.Module, given: tuple[torch.Tensor, Rotation, torch.Tensor | None]) -> None:
        assert isinstance(layer, Attention)
        seen.append(layer.weights(*given)[0].mean(dim=0))

    with contextlib.ExitStack() as hooks, torch.no_grad():
        for layer in layers:
            hooks.callback(layer.register_forward_pre_hook(look).remove)
        forward(tokens)
    return torch.stack(seen).mean(dim=0) if seen else None
