"""A learning-rate range test: let the rate grow over a few steps, and take it where the loss falls fastest.

Smith 2015 (arXiv 1506.01186); Smith and Topin 2017 (arXiv 1708.07120).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed

from trainers.data.loader import Loader
from trainers.data.sampler import Sampler
from trainers.engine import Engine
from trainers.parallel import Place
from trainers.tasks.task import Task

LOWEST, HIGHEST = 1e-6, 10.0
_STEPS_A_DECADE = 15
_MEMORY = 0.9  # of the smoothed loss
_DIVERGED = 3.0  # times the lowest smoothed loss ends the test
_LEAST_POINTS = 5


@dataclass
class Curve:
    """Smoothed mean loss over all ranks, by learning rate."""

    rates: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    _average: float = 0.0

    def add(self, rate: float, loss: float) -> bool:
        """False when the test is over: the loss diverges."""
        if not math.isfinite(loss):
            return False
        self._average = _MEMORY * self._average + (1 - _MEMORY) * loss
        smooth = self._average / (1 - _MEMORY ** (len(self.losses) + 1))
        self.rates.append(rate)
        self.losses.append(smooth)
        return len(self.losses) < _LEAST_POINTS or smooth <= _DIVERGED * abs(min(self.losses)) + 1e-12

    def steepest(self) -> float:
        """The rate at which the loss falls fastest per decade, before its lowest point; the lowest rate where it never
        falls."""
        lowest = self.losses.index(min(self.losses)) if self.losses else 0
        slopes = [self._slope(index) for index in range(1, lowest)]
        if not slopes or min(slopes) >= 0:
            return self.rates[0] if self.rates else LOWEST
        return self.rates[1 + slopes.index(min(slopes))]

    def _slope(self, index: int) -> float:
        run = math.log(self.rates[index + 1] / self.rates[index - 1])
        return (self.losses[index + 1] - self.losses[index - 1]) / run

    def to_extra(self) -> dict[str, Any]:
        """What the run's checkpoints keep."""
        return {"lr": [float(f"{each:.4g}") for each in self.rates], "loss": [round(each, 6) for each in self.losses]}


def range_test(
    place: Place, engine: Engine, task: Task, loader: Loader, sampler: Sampler, alive: Callable[[], None]
) -> Curve:
    """Collective; the same on every rank. `engine` was built for the rate `LOWEST`, and is of no use afterwards.

    The samples are those of the run's first steps; the run's own cursor does not move. `alive` is called after each step.
    """
    optimizer: Any = engine.optimizer
    factors = [group["lr"] / LOWEST for group in optimizer.param_groups]
    curve = Curve()
    for step in range(round(_STEPS_A_DECADE * math.log10(HIGHEST / LOWEST)) + 1):
        rate = LOWEST * 10 ** (step / _STEPS_A_DECADE)
        for group, factor in zip(optimizer.param_groups, factors, strict=True):
            group["lr"] = rate * factor
        if not curve.add(rate, _train(place, engine, task, loader, sampler, step)):
            break
        alive()
    return curve


def _train(place: Place, engine: Engine, task: Task, loader: Loader, sampler: Sampler, step: int) -> float:
    batches = loader.training(task.splits.train, sampler, step * sampler.global_batch)
    total = torch.stack(place.train_step(engine, task, batches)).double().mean()
    torch.distributed.all_reduce(total)
    return float(total) / torch.distributed.get_world_size()
