"""How much each searched parameter counted for a sweep's values: fANOVA, as optuna has it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.core.sweeps import Mode, Trial, TrialState

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

FEWEST_TRIALS = 10
_KINDS = ("log", "uniform", "int", "choice", "grid")


@dataclass(frozen=True)
class Importance:
    """Shares of the values' variance that each parameter explains alone, together 1 at most.

    `shares`: of the parameters that every trial has. `conditional`: of each other one the share among those `trials` that
    have it. `lacking`: why there is nothing to say; empty otherwise.
    """

    shares: Mapping[str, float]
    conditional: Mapping[str, tuple[float, int]]  # path: (share, trials)
    trials: int
    lacking: str = ""


def importance(trials: Sequence[Trial], space: Mapping[str, Any], mode: Mode) -> Importance:
    """By the best value that each trial reported (Hutter, Hoos and Leyton-Brown, 2014). The forest's seed is fixed.

    `space` is that of the run file. Needs optuna and scikit-learn; where they are not installed, says so.
    """
    known = {path: kind for path, each in space.items() if (kind := _kind(each)) is not None}
    valued = [(each, value) for each in trials if (value := _finite(each, mode)) is not None]
    lacking = _lacking([value for _, value in valued])
    if lacking:
        return Importance({}, {}, len(valued), lacking)
    everywhere = [path for path in known if all(path in trial.point for trial, _ in valued)]
    conditional = {}
    for path in known:
        having = [(trial, value) for trial, value in valued if path in trial.point]
        if path not in everywhere and not _lacking([value for _, value in having]):
            shared = _fanova(having, {each: known[each] for each in (*everywhere, path)})
            conditional[path] = (shared[path], len(having))
    return Importance(_fanova(valued, {path: known[path] for path in everywhere}), conditional, len(valued))


def _finite(trial: Trial, mode: Mode) -> float | None:
    value = None if trial.state is TrialState.INFEASIBLE else trial.best(mode)
    return value if value is not None and math.isfinite(value) else None


def _lacking(values: Sequence[float]) -> str:
    try:
        import optuna  # noqa: F401
        import sklearn  # noqa: F401
    except ImportError as missing:
        return f"{missing.name} is not installed here: pip install 'evertrain[cluster]' brings it"
    if len(values) < FEWEST_TRIALS:
        return f"too few trials: it takes {FEWEST_TRIALS} with a value, and there are {len(values)}"
    if min(values) == max(values):
        return f"all {len(values)} trials have the same value"
    return ""


def _kind(parameter: Mapping[str, Any]) -> tuple[str, tuple[Any, ...]] | None:
    return next(((kind, tuple(parameter[kind])) for kind in _KINDS if parameter.get(kind)), None)


def _fanova(
    valued: Sequence[tuple[Trial, float]], known: Mapping[str, tuple[str, tuple[Any, ...]]]
) -> dict[str, float]:
    from optuna import create_study, create_trial, logging
    from optuna.importance import FanovaImportanceEvaluator

    spans = {path: _distribution(path, known[path], [trial for trial, _ in valued]) for path in known}
    varied = {path: span for path, span in spans.items() if not span.single()}
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        study = create_study()
        for trial, value in valued:
            params = {path: _number(trial.point[path], known[path][0]) for path in varied}
            study.add_trial(create_trial(params=params, distributions=varied, value=value))
        found = FanovaImportanceEvaluator(seed=0).evaluate(study) if varied else {}
    finally:
        logging.set_verbosity(verbosity)
    return {path: found.get(path, 0.0) for path in known}


def _distribution(path: str, known: tuple[str, tuple[Any, ...]], trials: Sequence[Trial]) -> BaseDistribution:
    """What the forest's variance is taken over: the space, widened to what `start_with` tried outside of it."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    kind, values = known
    tried = [trial.point[path] for trial in trials]
    if kind in ("choice", "grid"):
        marked = [_number(each, kind) for each in (*values, *tried)]
        return CategoricalDistribution(tuple(dict.fromkeys(marked)))
    ends = [_number(each, kind) for each in (*values, *tried)]
    return FloatDistribution(min(ends), max(ends))


def _number(value: Any, kind: str) -> Any:
    """As a coordinate: orders of magnitude for `log`, which optuna's fANOVA would take for plain numbers; a name for a
    choice, for there `true` is not 1."""
    if kind in ("choice", "grid"):
        return repr(value)
    return math.log(value) if kind == "log" else float(value)
