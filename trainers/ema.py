"""An exponential moving average of the weights (Polyak and Juditsky 1992): what is evaluated, and what a run results in.

The weights after each optimizer step enter it, in float32. Early on the decay is lower, or the random first weights would
be most of the average.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from trainers.config import Settings
from trainers.engine import Engine
from trainers.errors import BadConfig


class Ema:
    """The average of one engine's weights, whole on every rank. Its state is kept in every checkpoint."""

    name = "ema"

    def __init__(self, engine: Engine, decay: float) -> None:
        self._decay = decay
        self._updates = 0
        named = [(name, each) for name, each in engine.module.named_parameters() if each.requires_grad]
        self._names = [name for name, _ in named]
        self._weights = [each for _, each in named]
        self._averages = [each.detach().float().clone() for each in self._weights]

    def update(self) -> None:
        """After an optimizer step."""
        self._updates += 1
        decay = min(self._decay, (1 + self._updates) / (10 + self._updates))
        now = [each.detach() for each in self._weights]
        if any(each.dtype != torch.float32 for each in now):
            now = [each.float() for each in now]
        torch._foreach_lerp_(self._averages, now, 1 - decay)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the model computes with the average."""
        kept = [each.detach().clone() for each in self._weights]
        self._put(self._averages)
        try:
            yield
        finally:
            self._put(kept)

    def state_dict(self) -> dict[str, Any]:
        """`weights` float32 by the parameters' names, and how many updates they average."""
        return {"updates": self._updates, "weights": dict(zip(self._names, self._averages, strict=True))}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` returned."""
        self._updates = int(state["updates"])
        for name, average in zip(self._names, self._averages, strict=True):
            average.copy_(state["weights"][name])

    def _put(self, values: list[torch.Tensor]) -> None:
        with torch.no_grad():
            for weight, value in zip(self._weights, values, strict=True):
                weight.copy_(value)


def ema_of(engine: Engine, settings: Settings) -> Ema | None:
    """None unless the run file asks for it. Raises BadConfig for a layout in which no rank holds the whole model."""
    decay, parallel = settings.train.ema, settings.parallelism
    if decay is None:
        return None
    for name, most in (("zero", 2), ("pipeline", 1), ("expert", 1)):
        if (degree := getattr(parallel, name)) > most:
            raise BadConfig(
                "train.ema",
                decay,
                f"needs every rank to hold the model: parallelism.{name} {degree} must be at most {most}",
            )
    return Ema(engine, decay)
