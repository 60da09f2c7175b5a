"""A learning rate that falls when the validation metric stops improving: a pure account over the epochs."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from trainers.config import Schedule


@dataclass(frozen=True)
class Plateau:
    """The state after some epochs. It is kept in every checkpoint, as `to_extra`."""

    mode: Literal["min", "max"]
    factor: float  # what the ratio is multiplied by
    patience: int  # epochs without improvement until then
    least: float  # the ratio never falls below it
    ratio: float = 1.0  # of the peak learning rate
    best: float | None = None
    stale_epochs: int = 0  # since the best one, or since the ratio fell

    def after_epoch(self, value: float) -> Plateau:
        """Ties are no improvement, and what is no finite number is none either."""
        if math.isfinite(value) and (
            self.best is None or (value < self.best if self.mode == "min" else value > self.best)
        ):
            return replace(self, best=value, stale_epochs=0)
        if self.stale_epochs + 1 < self.patience:
            return replace(self, stale_epochs=self.stale_epochs + 1)
        return replace(self, stale_epochs=0, ratio=max(self.least, self.ratio * self.factor))

    def to_extra(self) -> dict[str, Any]:
        """What a checkpoint keeps. The rest comes from the run file."""
        kept = asdict(self)
        return {name: kept[name] for name in ("ratio", "best", "stale_epochs")}

    def resumed(self, extra: dict[str, Any]) -> Plateau:
        return replace(self, **extra)


def plateau_of(schedule: Schedule, mode: Literal["min", "max"]) -> Plateau | None:
    """None for every other schedule. `mode` is the judging metric's."""
    if schedule.type != "plateau":
        return None
    return Plateau(mode, schedule.factor, schedule.patience, schedule.final_ratio)
