"""Where a sweep that ends trials early looks next: a Parzen estimator of one rung at a time, that stays curious.

optuna's TPE ranks a trial by how far it got, then by its value there, and counts what still runs as bad: the best trials of
a halving search, for they run longest. It then proposes the neighbours of an early lucky trial over and over. As in BOHB
(Falkner, Klein and Hutter 2018, arXiv 1807.01774) values are compared at one rung only, the highest that enough trials have
passed, running ones too. As in the first TPE (Bergstra et al. 2011) each parameter has densities of its own: a few dozen
trials tell which learning rates are hopeless, and not which pairs of values are good. Unlike both, candidates are drawn from
the whole space and not around good points: the estimator only turns away what looks bad. What is proposed follows from the
seed, the trials' number and what they reported, so that a driver started again proposes what the one before would have.
`tests/benchmarks/search_quality.py` measures it beside the others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial

from orchestrator.spec.search import Parameter, Search, Value, in_order

NUMBER = "number"  # the attribute of a study's trial that has its number in the sweep
POINT = "point"  # ... and its values as they are: optuna takes 1 for True where both are choices
_RANDOM = 0.1  # of all points are drawn without the estimator
_FEWEST = 20  # trials at a rung before it is believed
_GOOD = 0.25  # of the trials at a rung are good
_CANDIDATES = 24  # for one point: many more of them would gather where it was good before
_NARROWEST = 0.05  # of a parameter's whole range: a kernel's least width
_FLOOR = 1e-12  # of a density: far from every centre all is equally unlikely

Rows = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.float64]


class RungSampler(BaseSampler):
    """Proposes whole points, of which the conditions leave the parameters that count."""

    def __init__(self, search: Search) -> None:
        self._search = search
        self._coordinates = Coordinates(search)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {path: distribution(each) for path, each in self._search.space.items()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        random = np.random.default_rng([self._search.seed, trial.number])
        told = [each for each in study.get_trials(deepcopy=False) if each.intermediate_values]
        split = _split(told, self._search, maximize=study.direction is StudyDirection.MAXIMIZE)
        if split is None or random.random() < _RANDOM:
            return self._coordinates.point(self._coordinates.anywhere(1, random)[0])
        good, bad = (
            np.array([self._coordinates.row(each.user_attrs.get(POINT, each.params)) for each in some])
            for some in split
        )
        candidates, choices = self._coordinates.anywhere(_CANDIDATES, random), self._coordinates.choices
        gain = log_density(good, candidates, choices) - log_density(
            bad, candidates, choices
        )  # grows with what is expected
        return self._coordinates.point(candidates[np.argmax(gain)])

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A parameter that only counts because the trial has to have other values than proposed."""
        place = list(self._search.space).index(param_name)
        random = np.random.default_rng([self._search.seed, trial.number, 1 + place])
        return self._coordinates.drawn(param_name, random)


def _split(
    trials: Sequence[FrozenTrial], search: Search, *, maximize: bool
) -> tuple[list[FrozenTrial], list[FrozenTrial]] | None:
    """The good and the bad of the highest rung that enough trials have passed; None while there is no such rung."""
    rung, passed = search.scheduler.grace, list(trials)
    found: list[tuple[float, int, FrozenTrial]] = []
    while passed := [each for each in passed if max(each.intermediate_values) >= rung]:
        if len(passed) < _FEWEST:
            break
        found = [(_value_at(each, rung), each.user_attrs.get(NUMBER, -1), each) for each in passed]
        rung *= search.scheduler.reduction
    if not found:
        return None
    ranked = [each for _, _, each in sorted(found, key=lambda one: (-one[0] if maximize else one[0], one[1]))]
    good = max(3, math.ceil(_GOOD * len(ranked)))
    return ranked[:good], ranked[good:]


def _value_at(trial: FrozenTrial, rung: int) -> float:
    """Of the last report until there; of the first where that came behind the rung."""
    heard = trial.intermediate_values
    return heard[max((each for each in heard if each <= rung), default=min(heard))]


def distribution(parameter: Parameter) -> BaseDistribution:
    """The parameter as optuna knows it."""
    if parameter.log is not None:
        return FloatDistribution(*parameter.log, log=True)
    if parameter.uniform is not None:
        return FloatDistribution(*parameter.uniform)
    if parameter.whole is not None:
        return IntDistribution(*parameter.whole)
    return CategoricalDistribution(parameter.values)


class Coordinates:
    """Points as rows of numbers: a range as 0 to 1, by orders of magnitude where it is one of those; a choice as the
    number of its value; a parameter that does not count as NaN."""

    def __init__(self, search: Search) -> None:
        self._search = search
        self._paths = in_order(search.space)
        self._parameters = [search.space[path] for path in self._paths]
        self.choices = tuple(len(each.values) for each in self._parameters)  # 0: a range

    def anywhere(self, count: int, random: np.random.Generator) -> Rows:
        """So many points, each value as likely as the other."""
        drawn = [[self._anywhere(place, random) for place in range(len(self._paths))] for _ in range(count)]
        return np.array([self.row(self.point(np.array(each))) for each in drawn])

    def drawn(self, path: str, random: np.random.Generator) -> Value:
        place = self._paths.index(path)
        return self._value(place, self._anywhere(place, random))

    def row(self, params: Mapping[str, Value]) -> list[float]:
        return [
            self._coordinate(place, params[path]) if path in params else math.nan
            for place, path in enumerate(self._paths)
        ]

    def point(self, row: npt.NDArray[np.float64]) -> dict[str, Value]:
        """The values of the parameters that count."""
        point: dict[str, Value] = {}
        for place, path in enumerate(self._paths):
            if self._search.active(path, point):
                point[path] = self._value(place, float(row[place]))
        return point

    def _coordinate(self, place: int, value: Any) -> float:
        parameter = self._parameters[place]
        if self.choices[place]:
            marked = [(isinstance(each, bool), each) for each in parameter.values]
            return float(marked.index((isinstance(value, bool), value)))
        low, high, scaled = self._scaled(place, value)
        return 0.5 if low == high else (scaled - low) / (high - low)

    def _value(self, place: int, coordinate: float) -> Value:
        parameter = self._parameters[place]
        if self.choices[place]:
            return parameter.values[int(coordinate)]
        ends = parameter.bounds
        assert ends is not None
        low, high, _ = self._scaled(place, ends[0])
        scaled = low + (high - low) * coordinate
        if parameter.whole is not None:
            return round(scaled)
        return min(ends[1], max(ends[0], math.exp(scaled) if parameter.log is not None else scaled))

    def _scaled(self, place: int, value: float) -> tuple[float, float, float]:
        """Both ends and the value."""
        parameter = self._parameters[place]
        ends = parameter.bounds
        assert ends is not None
        scale = math.log if parameter.log is not None else float
        return scale(ends[0]), scale(ends[1]), scale(value)

    def _anywhere(self, place: int, random: np.random.Generator) -> float:
        if self.choices[place]:
            return float(random.integers(self.choices[place]))
        if (
            ends := self._parameters[place].whole
        ) is not None:  # rounded, the ends would come half as often as the others
            return self._coordinate(place, int(random.integers(*ends, endpoint=True)))
        return float(random.random())


def log_density(told: Rows, rows: Rows, choices: Sequence[int]) -> Numbers:
    """Of each row, as though its parameters were independent; where nothing was told of one, that one says nothing."""
    total = np.zeros(len(rows))
    for place, count in enumerate(choices):
        centres = told[~np.isnan(told[:, place]), place]
        counts = ~np.isnan(rows[:, place])
        if len(centres) and counts.any():
            total[counts] += np.log(_kernels(centres, rows[counts, place], count).mean(axis=1))
    return total


def _kernels(centres: Numbers, at: Numbers, count: int) -> Rows:
    """[at, centres]: normal along a range, by Scott's rule as wide; of `count` choices mostly the value itself."""
    shrink = 1.06 * len(centres) ** -0.2
    if count:
        another = max(0.1, min(1 - 1 / count, 0.6 * shrink))
        found: Rows = np.where(at[:, None] == centres, 1 - another + another / count, another / count)
        return found
    width = max(_NARROWEST, shrink * float(centres.std()))
    near: Rows = np.exp(-0.5 * ((at[:, None] - centres) / width) ** 2) / width + _FLOOR
    return near
