"""The learning rate as a function of the optimizer step."""

from __future__ import annotations

import math

from trainers.config import Schedule


def learning_rate_factor(step: int, schedule: Schedule, total_steps: int) -> float:
    """What the peak learning rate is multiplied by for the update after `step` updates.

    It is 1 at the first update after the warm-up and the final ratio at the last one; where they are the same, it is 1.
    """
    if step < schedule.warmup_steps:
        return (step + 1) / (schedule.warmup_steps + 1)
    decaying_steps = max(1, total_steps - 1 - schedule.warmup_steps)
    done = min(1.0, (step - schedule.warmup_steps) / decaying_steps)
    match schedule.type:
        case "constant":
            return 1.0
        case "cosine":
            remaining = 0.5 * (1 + math.cos(math.pi * done))
        case "linear":
            remaining = 1.0 - done
    return schedule.final_ratio + (1 - schedule.final_ratio) * remaining
