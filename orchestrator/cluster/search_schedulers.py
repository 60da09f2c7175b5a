"""Who ends trials early: Ray Tune's schedulers and our own halving, by the words of the run file."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    FIFOScheduler,
    MedianStoppingRule,
    TrialScheduler,
)

from orchestrator.cluster.search_points import OBJECTIVE, REPORT
from orchestrator.core import halving as core
from orchestrator.core.sweeps import Trial
from orchestrator.spec.search import Search, reports

log = logging.getLogger(__name__)


def scheduler(search: Search, document: Mapping[str, Any], known: Sequence[Trial] = ()) -> TrialScheduler:
    """Time is counted in reports. `known` are trials from before. A population has a scheduler of its own:
    `search_population.py`."""
    asked, most = search.scheduler, reports(document, search)
    common: dict[str, Any] = {"time_attr": REPORT, "metric": OBJECTIVE, "mode": search.mode}
    halving: dict[str, Any] = {
        "max_t": most or asked.grace,
        "grace_period": asked.grace,
        "reduction_factor": asked.reduction,
    }
    match asked.type:
        case "asha":
            return Halving(search, document, known)
        case "hyperband":
            return Brackets(**common, **halving, brackets=brackets(search, document))
        case "median":
            return MedianStoppingRule(**common, grace_period=asked.grace, min_samples_required=3)
        case _:
            return FIFOScheduler()  # type: ignore[no-untyped-call]


class Halving(FIFOScheduler):
    """Tells `core.halving` what Tune hears, and Tune what that says."""

    def __init__(self, search: Search, document: Mapping[str, Any], known: Sequence[Trial] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        asked, most = search.scheduler, reports(document, search)
        self._races = core.Halving(
            search.mode, grace=asked.grace, reduction=asked.reduction, most=most or asked.grace, known=known
        )

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        value = result.get(OBJECTIVE)
        if value is None:
            return TrialScheduler.CONTINUE
        number = trial.config["trial"]
        if (why := self._races.hear(number, result[REPORT], value)) is None:
            return TrialScheduler.CONTINUE
        log.info("trial %d ends: %s", number, why)
        return TrialScheduler.STOP

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        number, value = trial.config["trial"], result.get(OBJECTIVE)
        self._races.end(number, infeasible=bool(result.get("infeasible")))
        if value is not None:  # of a trial that ended by itself the last report comes only here
            self._races.hear(number, result[REPORT], value)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        self._races.end(trial.config["trial"], infeasible=True)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        self._races.end(trial.config["trial"])


class Brackets(AsyncHyperBandScheduler):
    """Hyperband's brackets (Li et al. 2018, arXiv 1603.06560), each halved as trials come: nobody is paused, for a paused
    gang is one that has to be started again.

    Bracket s ends nobody before report grace x reduction^s. The brackets are filled together, in Hyperband's proportions
    and by the trials' numbers, so that a driver started again puts each where it was.
    """

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        super().on_trial_add(tune_controller, trial)
        order = in_turn([_trials_of(len(each._rungs), self._reduction_factor) for each in self._brackets])
        self._trial_info[trial.trial_id] = self._brackets[order[trial.config["trial"] % len(order)]]


def brackets(search: Search, document: Mapping[str, Any]) -> int:
    """As many as there are rungs, that of the whole trial too."""
    most = reports(document, search) or search.scheduler.grace
    return 1 + int(math.log(most / search.scheduler.grace, search.scheduler.reduction) + 1e-9)


def in_turn(shares: Sequence[float]) -> list[int]:
    """One round of places, each as often as its share says, spread evenly."""
    counts = [math.ceil(each) for each in shares]
    order: list[int] = []
    for turn in range(1, sum(counts) + 1):
        lags = [count * turn / sum(counts) - order.count(place) for place, count in enumerate(counts)]
        order.append(lags.index(max(lags)))
    return order


def _trials_of(rungs: int, reduction: float) -> float:
    """Of a bracket, to cost as much as the others do."""
    return float(reduction ** (rungs - 1)) / rungs if rungs else 0.0


def milestones(search: Search, document: Mapping[str, Any]) -> tuple[int, ...]:
    """The reports at which the scheduler judges: all that it has to hear again of a trial that is over."""
    most = reports(document, search)
    if search.scheduler.type == "asha" and most is not None:
        return core.milestones(search.scheduler.grace, search.scheduler.reduction, most)
    if search.scheduler.type == "hyperband" and most is not None:
        found, at = [], search.scheduler.grace
        while at <= most:
            found.append(at)
            at *= search.scheduler.reduction
        return tuple(found)
    return tuple(range(1, (most or 0) + 1)) if search.scheduler.type == "median" else ()
