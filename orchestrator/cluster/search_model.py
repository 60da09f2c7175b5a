"""Where a sweep that ends trials early looks next: a Parzen estimator of one rung at a time, that stays curious.

optuna's TPE ranks a trial by how far it got, then by its value there, and counts what still runs as bad: the best trials of
a halving search, for they run longest. It then proposes the neighbours of an early lucky trial over and over, and these
fill the rungs, so that nothing else passes them. As in BOHB (Falkner, Klein and Hutter, 2018) values are compared at one
rung only, the highest that enough trials have passed, running ones too. Unlike there, candidates are drawn from the whole
space and not around good points: the estimator only turns away what looks bad. `tests/benchmarks/search_quality.py`
measures it beside the others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial

from orchestrator.spec.search import Parameter, Search, Value, in_order

_RANDOM = 0.1  # of all points are drawn without the estimator
_FEWEST = 20  # trials at a rung before it is believed
_GOOD = 0.25  # of the trials at a rung are good
_CANDIDATES = 8  # for one point: more of them would gather where it was good before
_NARROWEST = 0.05  # of a parameter's whole range: a kernel's least width

Rows = npt.NDArray[np.float64]


class RungSampler(BaseSampler):
    """Proposes whole points, of which the conditions leave the parameters that count. One seed, one sequence."""

    def __init__(self, search: Search, seed: int) -> None:
        self._search = search
        self._coordinates = Coordinates(search)
        self._random = np.random.default_rng(seed)
        self._fallback = RandomSampler(seed=seed)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {path: distribution(each) for path, each in self._search.space.items()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        if self._random.random() < _RANDOM:
            return {}
        told = [each for each in study.get_trials(deepcopy=False) if each.intermediate_values]
        split = _split(told, self._search, maximize=study.direction is StudyDirection.MAXIMIZE)
        if split is None:
            return {}
        good, bad = (Kernels(self._rows(each), self._coordinates.choices) for each in split)
        candidates = self._coordinates.anywhere(_CANDIDATES, self._random)
        gain = good.log_density(candidates) - bad.log_density(candidates)  # grows with the expected improvement
        return self._coordinates.point(candidates[np.argmax(gain)])

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._fallback.sample_independent(study, trial, param_name, param_distribution)

    def _rows(self, trials: Sequence[FrozenTrial]) -> Rows:
        return np.array([self._coordinates.row(each.params, self._random) for each in trials])


def _split(
    trials: Sequence[FrozenTrial], search: Search, *, maximize: bool
) -> tuple[list[FrozenTrial], list[FrozenTrial]] | None:
    """The good and the bad of the highest rung that enough trials have passed; None while there is no such rung."""
    rung, passed = search.scheduler.grace, list(trials)
    found: list[tuple[float, FrozenTrial]] = []
    while passed := [each for each in passed if max(each.intermediate_values) >= rung]:
        if len(passed) < _FEWEST:
            break
        found = [(_value_at(each, rung), each) for each in passed]
        rung *= search.scheduler.reduction
    if not found:
        return None
    ranked = [each for _, each in sorted(found, key=lambda pair: (-pair[0] if maximize else pair[0], pair[1].number))]
    good = max(3, math.ceil(_GOOD * len(ranked)))
    return ranked[:good], ranked[good:]


def _value_at(trial: FrozenTrial, rung: int) -> float:
    return trial.intermediate_values[max((each for each in trial.intermediate_values if each <= rung), default=rung)]


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
    number of its value."""

    def __init__(self, search: Search) -> None:
        self._search = search
        self._paths = in_order(search.space)
        self._parameters = [search.space[path] for path in self._paths]
        self.choices = tuple(len(each.values) for each in self._parameters)  # 0: a range

    def anywhere(self, count: int, random: np.random.Generator) -> Rows:
        return np.array([self.row({}, random) for _ in range(count)])

    def row(self, params: Mapping[str, Value], random: np.random.Generator) -> list[float]:
        """A parameter that does not count lies anywhere."""
        return [
            self._coordinate(place, params[path]) if path in params else self._anywhere(place, random)
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
        return float(random.integers(self.choices[place])) if self.choices[place] else float(random.random())


@dataclass(frozen=True)
class Kernels:
    """A density over rows: one product kernel a row, normal along ranges, along choices mostly at its own value."""

    rows: Rows
    choices: tuple[int, ...]

    @property
    def widths(self) -> npt.NDArray[np.float64]:
        """Along ranges a deviation, by Scott's rule; along choices the probability of another draw of the value."""
        shrink = 1.06 * len(self.rows) ** (-1 / (4 + len(self.choices)))
        spread = np.maximum(_NARROWEST, shrink * self.rows.std(axis=0))
        another = [max(0.1, min(1 - 1 / count, 0.6 * shrink)) if count else 0.0 for count in self.choices]
        found: npt.NDArray[np.float64] = np.where(np.array(self.choices) > 0, another, spread)
        return found

    def log_density(self, rows: Rows) -> npt.NDArray[np.float64]:
        kernels = self.log_kernels(rows)
        most = kernels.max(axis=1)
        found: npt.NDArray[np.float64] = most + np.log(np.exp(kernels - most[:, None]).mean(axis=1))
        return found

    def log_kernels(self, rows: Rows) -> Rows:
        """[rows, kernels]."""
        total = np.zeros((len(rows), len(self.rows)))
        for place, (count, width) in enumerate(zip(self.choices, self.widths, strict=True)):
            mine, theirs = rows[:, place, None], self.rows[None, :, place]
            if count:
                total += np.log(np.where(mine == theirs, 1 - width + width / count, width / count))
            else:
                total += -0.5 * ((mine - theirs) / width) ** 2 - np.log(width)
        return total
