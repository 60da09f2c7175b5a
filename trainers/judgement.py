"""Which epoch was best, and whether to go on: a pure account of one metric over the epochs."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal


@dataclass(frozen=True)
class Judgement:
    """The state after some epochs. It is kept in every checkpoint, as `to_extra`."""

    metric: str
    mode: Literal["min", "max"]
    patience: int | None = None  # epochs without improvement that end the run; None: never
    best: float | None = None
    best_step: int | None = None
    best_checkpoint: str | None = None
    stale_epochs: int = 0  # since the best one
    target: float | None = None  # a value that ends the run

    def after_epoch(self, value: float, step: int) -> Judgement:
        """Ties are no improvement, and what is no finite number is never the best."""
        better = math.isfinite(value) and (
            self.best is None or (value < self.best if self.mode == "min" else value > self.best)
        )
        if better:
            return replace(self, best=value, best_step=step, best_checkpoint=None, stale_epochs=0)
        return replace(self, stale_epochs=self.stale_epochs + 1)

    def sealed(self, checkpoint: str | None) -> Judgement:
        """The best epoch's checkpoint is known."""
        return replace(self, best_checkpoint=checkpoint)

    @property
    def stop_reason(self) -> str | None:
        """Why the run should end now, or None."""
        if self.target is not None and self._reaches(self.target):
            return f"{self.metric} has reached {self.best:.6g} at step {self.best_step}: the target is {self.target:g}"
        if self.patience is None or self.stale_epochs < self.patience:
            return None
        if self.best is None:
            return f"{self.metric} has been no finite number for {self.stale_epochs} epochs"
        return (
            f"{self.metric} has not improved for {self.stale_epochs} epochs: "
            f"best {self.best:.6g} at step {self.best_step}"
        )

    def _reaches(self, target: float) -> bool:
        return self.best is not None and (self.best <= target if self.mode == "min" else self.best >= target)

    def to_extra(self) -> dict[str, Any]:
        """What a checkpoint keeps. The rest comes from the run file."""
        kept = asdict(self)
        return {name: kept[name] for name in ("best", "best_step", "best_checkpoint", "stale_epochs")}

    def resumed(self, extra: dict[str, Any], checkpoint: str | None, step: int) -> Judgement:
        """The state in `checkpoint`. A best checkpoint did not know its own name when it was written."""
        state = replace(self, **extra)
        return state.sealed(checkpoint) if state.best_step == step else state
