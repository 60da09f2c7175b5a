"""PBT and PB2 as Ray Tune's scheduler: trials are ordinary runs, and go on from one another's sealed checkpoints.

Tune's own PBT copies checkpoints of Tune's, keeps what it knows in the driver's memory and takes no searcher beside it. Here
a trial of the worst quarter is given a further run (its next generation), which begins with all that the donor's newest
seal holds; the server ends the run before, and `SweepTrial` follows. A driver may die at any point of that.
"""

from __future__ import annotations

import importlib
import logging
import random
import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from ray.tune.schedulers import FIFOScheduler

from orchestrator.cluster.search_line import SearchLine
from orchestrator.cluster.search_points import REPORT
from orchestrator.core.population import select
from orchestrator.core.sweeps import Trial
from orchestrator.errors import Refused
from orchestrator.spec.search import Search, Value, interval, reports, words
from orchestrator.spec.search_changes import anew, changeable, perturbed

log = logging.getLogger(__name__)

CANDIDATES = 200
KAPPA = 1.0  # how much PB2 likes what it does not know


class Population(FIFOScheduler):
    """Looks at a trial every `interval` reports. `known` are the trials from before this driver."""

    def __init__(self, search: Search, document: Mapping[str, Any], line: SearchLine, known: Sequence[Trial]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._search, self._line = search, line
        self._interval, self._last = interval(document, search), reports(document, search)
        self._looked = {each.number: each.stages[-1].since - 1 for each in known if each.stages}

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        number, report = trial.config["trial"], result[REPORT]
        if not result["done"] and report - self._looked.get(number, 0) >= self._interval:
            self._looked[number] = report
            self._look(number, report)
        decision: str = super().on_trial_result(tune_controller, trial, result)
        return decision

    def _look(self, number: int, report: int) -> None:
        trials = self._line.sweep().trials
        mine = next((each for each in trials if each.number == number), None)
        if mine is None or not mine.live:
            return
        draw = random.Random(f"{self._search.seed}/{number}/{mine.generation}/{report}")
        selection = select(trials, number, report, self._search.mode, draw, self._last)
        donor = selection.donor
        if donor is None or donor.seal is None:
            log.info("trial %d goes its own way: %s", number, selection.words)
            return
        point = perturbed(self._search, donor.point, draw)
        if self._search.population == "pb2":
            point |= improved(self._search, trials, donor, report, draw)
        told = f"{self._search.population}: {selection.words}, with {words(_differing(point, donor.point))}"
        log.info("trial %d %s", number, told)
        try:
            self._line.start_trial(number, point, mine.generation + 1, donor.seal, told)
        except Refused as error:
            log.warning("trial %d does not change: %s", number, error)


def _differing(point: Mapping[str, Value], before: Mapping[str, Value]) -> dict[str, Value]:
    return {path: value for path, value in point.items() if before.get(path) != value}


def improved(
    search: Search, trials: Sequence[Trial], donor: Trial, report: int, draw: random.Random
) -> dict[str, Value]:
    """The rates under which the donor's state should gain most until the next look; none while too little is known.

    A Gaussian process over (report, value before, rates) tells of the gain of a report; the upper confidence bound of it
    chooses among random rates (Parker-Holder et al. 2020, arXiv 2002.02518).
    """
    paths = changeable(search, donor.point)
    rows = list(_gains(search, trials, paths))
    if len(rows) < 2 or not paths or donor.last is None:
        return {}
    from sklearn.exceptions import ConvergenceWarning

    gaussian: Any = importlib.import_module("sklearn.gaussian_process")  # untyped
    known = np.array([row[:-1] for row in rows])
    gains = np.array([row[-1] for row in rows])
    offset, scale = known.mean(axis=0), np.maximum(known.std(axis=0), 1e-9)
    kernel = gaussian.kernels.RBF(np.ones(known.shape[1]), (1e-1, 1e2)) + gaussian.kernels.WhiteKernel(0.1, (1e-4, 1.0))
    model = gaussian.GaussianProcessRegressor(kernel, normalize_y=True, random_state=draw.randrange(2**32))
    with warnings.catch_warnings():  # where a rate makes no difference its length has no end
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit((known - offset) / scale, gains)
    candidates = [{path: anew(search.space[path], draw) for path in paths} for _ in range(CANDIDATES)]
    asked = np.array([[report, donor.last, *_scaled(search, paths, each)] for each in candidates])
    mean, deviation = model.predict((asked - offset) / scale, return_std=True)
    bound: npt.NDArray[np.float64] = mean + KAPPA * deviation
    return candidates[int(np.argmax(bound))]


def _gains(search: Search, trials: Sequence[Trial], paths: Sequence[str]) -> Iterator[list[float]]:
    """Of each report that has one before it in the same generation: report, value before, rates, and what was gained."""
    sign = 1.0 if search.mode == "max" else -1.0
    for trial in trials:
        for (before, held), (report, value) in pairwise(trial.curve):
            stage = next((each for each in reversed(trial.stages) if each.since <= report), None)
            if stage is not None and stage.since <= before and all(path in stage.point for path in paths):
                rates = _scaled(search, paths, stage.point)
                yield [float(before), held, *rates, sign * (value - held) / (report - before)]


def _scaled(search: Search, paths: Sequence[str], point: Mapping[str, Any]) -> list[float]:
    return [float(np.log(point[path]) if search.space[path].log is not None else point[path]) for path in paths]
