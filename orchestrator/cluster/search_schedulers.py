"""Who ends trials early: Ray Tune's schedulers, by the words of the run file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    FIFOScheduler,
    MedianStoppingRule,
    TrialScheduler,
)

from orchestrator.cluster.search_points import OBJECTIVE, REPORT
from orchestrator.spec.search import Search, reports


def scheduler(search: Search, document: Mapping[str, Any]) -> TrialScheduler:
    """Time is counted in reports. Raises ValueError for one that this version does not have."""
    asked, most = search.scheduler, reports(document, search)
    common: dict[str, Any] = {"time_attr": REPORT, "metric": OBJECTIVE, "mode": search.mode}
    match asked.type:
        case "fifo":
            return FIFOScheduler()  # type: ignore[no-untyped-call]
        case "asha":
            return AsyncHyperBandScheduler(
                **common, max_t=most or asked.grace, grace_period=asked.grace, reduction_factor=asked.reduction
            )
        case "median":
            return MedianStoppingRule(**common, grace_period=asked.grace, min_samples_required=3)
    raise ValueError(f"no scheduler {asked.type}")


def milestones(search: Search, document: Mapping[str, Any]) -> tuple[int, ...]:
    """The reports at which the scheduler judges: all that it has to hear again of a trial that is over."""
    most = reports(document, search)
    if search.scheduler.type == "asha" and most is not None:
        found, at = [], search.scheduler.grace
        while at <= most:
            found.append(at)
            at *= search.scheduler.reduction
        return tuple(found)
    return tuple(range(1, (most or 0) + 1)) if search.scheduler.type == "median" else ()
