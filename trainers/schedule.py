"""The learning rate as a function of the optimizer step."""

from __future__ import annotations

import math

from trainers.config import Schedule

_CYCLE_START = 1 / 25  # of the peak, where one cycle begins
_CYCLE_RISE = 0.3  # of all steps, unless `warmup_steps` says otherwise


def learning_rate_factor(step: int, schedule: Schedule, total_steps: int) -> float:
    """What the peak learning rate is multiplied by for the update after `step` updates.

    It is 1 at the first update after the warm-up and the final ratio at the last one; where they are the same, it is 1.
    One cycle rises and falls along half a cosine each (Smith and Topin 2017, arXiv 1708.07120; momentum stays). A
    plateau's own part is `trainers.plateau`.
    """
    warmup_steps = _rising_steps(schedule, total_steps)
    if step < warmup_steps:
        return _rising(step, warmup_steps, schedule)
    decaying_steps = max(1, total_steps - 1 - warmup_steps)
    done = min(1.0, (step - warmup_steps) / decaying_steps)
    match schedule.type:
        case "constant" | "plateau":
            return 1.0
        case "cosine" | "one_cycle":
            remaining = 0.5 * (1 + math.cos(math.pi * done))
        case "linear":
            remaining = 1.0 - done
    return schedule.final_ratio + (1 - schedule.final_ratio) * remaining


def _rising_steps(schedule: Schedule, total_steps: int) -> int:
    if schedule.type == "one_cycle" and schedule.warmup_steps == 0:
        return int(_CYCLE_RISE * total_steps)
    return schedule.warmup_steps


def _rising(step: int, warmup_steps: int, schedule: Schedule) -> float:
    if schedule.type == "one_cycle":
        return _CYCLE_START + (1 - _CYCLE_START) * 0.5 * (1 - math.cos(math.pi * step / warmup_steps))
    return (step + 1) / (warmup_steps + 1)
