"""How a population's trial changes its rates when it goes on from another one's checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping

from orchestrator.core.chance import Chance
from orchestrator.spec.search import Parameter, Search, Value

ANEW = 0.25  # of all changes forget where the rate was
FACTORS = (0.8, 1.2)


def changeable(search: Search, point: Mapping[str, Value]) -> list[str]:
    """Its rates that no other parameter's condition asks for."""
    parents = {parent for each in search.space.values() for parent in each.when}
    return [path for path in search.rates if path in point and path not in parents]


def perturbed(search: Search, point: Mapping[str, Value], draw: Chance) -> dict[str, Value]:
    """The point with each rate moved a step, or drawn anew (Jaderberg et al. 2017); the rest stays with the weights."""
    changed = dict(point)
    for path in changeable(search, point):
        parameter = search.space[path]
        changed[path] = anew(parameter, draw) if draw.random() < ANEW else _moved(parameter, point[path], draw)
    return changed


def anew(parameter: Parameter, draw: Chance) -> Value:
    """Anywhere in its range, by orders of magnitude where it is one of those."""
    if parameter.log is not None:
        low, high = parameter.log
        return min(high, max(low, math.exp(draw.uniform(math.log(low), math.log(high)))))
    if parameter.uniform is not None:
        return draw.uniform(*parameter.uniform)
    if parameter.whole is not None:
        return draw.randint(*parameter.whole)
    return draw.choice(parameter.values)


def _moved(parameter: Parameter, value: Value, draw: Chance) -> Value:
    """By a fifth within its range; in a list, to a neighbour."""
    bounds = parameter.bounds
    if bounds is None:
        place = [each == value for each in parameter.values].index(True) + draw.choice((-1, 1))
        return parameter.values[min(len(parameter.values) - 1, max(0, place))]
    assert isinstance(value, int | float), "a range holds numbers"
    moved = min(bounds[1], max(bounds[0], value * draw.choice(FACTORS)))
    return round(moved) if parameter.whole is not None else moved
