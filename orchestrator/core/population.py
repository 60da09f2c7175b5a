"""Trials that train side by side, of which the worse go on from the better: population based training.

Who goes on from whom is truncation selection as in Jaderberg et al. 2017 (arXiv 1711.09846): a trial among the worst
quarter takes the state of one among the best quarter. Trials are compared by what they had reported when they were as far
as the trial at hand, so that a head start is no merit. What a decision needs is in the trials: a driver that was killed
loses none of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.core.chance import Chance
from orchestrator.core.sweeps import Mode, Trial, TrialState, better

SHARE = 0.25
"""Of all trials are the worst, and as many the best."""


@dataclass(frozen=True)
class Selection:
    """Whose checkpoint the trial goes on from, and why; None: its own way."""

    donor: Trial | None
    words: str


def select(
    trials: Sequence[Trial], number: int, report: int, mode: Mode, draw: Chance, last: int | None = None
) -> Selection:
    """Whether trial `number`, which has made `report` reports, goes on from another one. `draw` picks among the best.

    `last`: the report after which a trial is over, so that nothing could go on from there; None: nobody knows.
    """
    valued = [(value, each) for each in trials if (value := _value_at(each, report)) is not None]
    ranked = sorted(valued, key=lambda pair: (-pair[0] if mode == "max" else pair[0], pair[1].number))
    share = min(math.ceil(SHARE * len(ranked)), len(ranked) // 2)
    worst = {each.number: value for value, each in ranked[len(ranked) - share :]}
    if number not in worst:
        return Selection(None, f"not among the worst {share} of {len(ranked)} at report {report}")
    able = [pair for pair in ranked if _can_be_taken(pair[1], last) and better(pair[0], worst[number], mode)]
    if not able:
        return Selection(None, f"no better trial of {len(ranked)} still trains and has a checkpoint")
    value, donor = draw.choice(able[:share])
    words = (
        f"with {worst[number]:.6g} among the worst {share} of {len(ranked)} at report {report}: "
        f"it goes on from trial {donor.number}, which had {value:.6g}"
    )
    return Selection(donor, words)


def _can_be_taken(trial: Trial, last: int | None) -> bool:
    return trial.live and trial.seal is not None and (last is None or trial.reports < last)


def _value_at(trial: Trial, report: int) -> float | None:
    """The last value by then; None where there is none that counts."""
    if trial.state is TrialState.INFEASIBLE:
        return None
    return next((value for at, value in reversed(trial.curve) if at <= report), None)
