"""What all ranks must decide alike, between two optimizer steps: to stop, to save, that the loss is still a number.

One small all-reduce carries it, not after each step but about four times a second: rank 0's clock says after how many
steps the next one is due, and all ranks hear it in the last one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed


@dataclass(frozen=True)
class Agreed:
    """The same on every rank."""

    loss: float  # of the last step, mean over the ranks
    loss_sum: float  # over the steps since the agreement before
    stop: bool  # some rank was asked to stop
    save: bool  # rank 0 wants a checkpoint


class Agreement:
    """Raises torch.distributed.DistError or RuntimeError from `reach` when a peer is gone."""

    def __init__(
        self, device: torch.device, *, rank: int, interval_s: float, clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._device = device
        self._rank = rank
        self._interval_s = interval_s
        self._clock_s = clock_s
        self._steps = 0  # since the last agreement
        self._due_after = 1
        self._last_s = clock_s()
        self._loss = torch.zeros((), dtype=torch.float64, device=device)
        self._loss_sum = torch.zeros((), dtype=torch.float64, device=device)

    def add(self, loss: torch.Tensor) -> bool:
        """Count one optimizer step with this rank's mean `loss`; True when an agreement is due."""
        self._steps += 1
        self._loss = loss.detach().double()
        self._loss_sum += self._loss
        return self._steps >= self._due_after

    def reach(self, *, stop: bool, save: bool) -> Agreed:
        """Collective: every rank calls it after the same step."""
        mine = torch.tensor(
            [float(stop), float(save and self._rank == 0), float(self._next_due() if self._rank == 0 else 0)],
            dtype=torch.float64,
            device=self._device,
        )
        vector = torch.cat([torch.stack([self._loss, self._loss_sum]), mine])
        torch.distributed.all_reduce(vector)
        loss, loss_sum, stops, saves, due_after = vector.tolist()
        world_size = torch.distributed.get_world_size()
        self._due_after = int(due_after)
        self._steps = 0
        self._last_s = self._clock_s()
        self._loss_sum.zero_()
        return Agreed(loss / world_size, loss_sum / world_size, stop=stops > 0, save=saves > 0)

    def _next_due(self) -> int:
        """Steps until `interval_s` will have passed; at most twice as many as last time, so that one fast step or a
        slow change of pace cannot put the next agreement far off."""
        step_s = (self._clock_s() - self._last_s) / max(1, self._steps)
        wanted = math.ceil(self._interval_s / step_s) if step_s > 0 else 1
        return max(1, min(wanted, 2 * self._due_after))
