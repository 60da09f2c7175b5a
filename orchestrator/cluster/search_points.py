"""Who proposes points, as Ray Tune asks: optuna's samplers over a space with conditions.

Ray Tune's own wrapper of optuna tells it of a trial that was ended early as of one that ran to its end, and takes neither
conditions nor results of earlier trials together. This one tells both as they are; where trials are ended at rungs,
`search_model.py` proposes in place of optuna's TPE.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial
from ray.tune.search import Searcher

from orchestrator.cluster.search_model import NUMBER, POINT, RungSampler, distribution
from orchestrator.core import sweeps
from orchestrator.core.sweeps import Mode, Trial
from orchestrator.spec.search import Search, Value, in_order, points, same

OBJECTIVE = "objective"  # the metric's name in what trials tell Tune
REPORT = "report"  # ... and its unit of time


class Points(Searcher):
    """Implements Tune's Searcher. A config is {"trial": number, "point": {path: value}}, and of a trial that went on from
    another one's checkpoint also its generation and that checkpoint.

    `known` are trials of this sweep from before: they keep their numbers and points, and are handed out first, for whoever
    runs them replays what is over and goes on with what is not. `warm` are another sweep's: only learned from.
    `room` says how many trials may live at once.
    """

    def __init__(
        self,
        search: Search,
        *,
        known: Sequence[Trial] = (),
        warm: Sequence[Trial] = (),
        room: Callable[[], int] = lambda: 2**31,
    ) -> None:
        super().__init__(metric=OBJECTIVE, mode=search.mode)
        self._search, self._room = search, room
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        self._study = optuna.create_study(
            direction="maximize" if search.mode == "max" else "minimize", sampler=sampler(search, len(known))
        )
        for each in warm:
            self._learn(each, {})
        self._known = sorted(known, key=lambda each: each.number)
        for each in sorted(known, key=lambda each: (each.ended_at or math.inf, each.number)):
            if not each.live:
                self._learn(each, {NUMBER: each.number})
        self._tried: list[Mapping[str, Value]] = [each.stages[0].point if each.stages else each.point for each in known]
        self._numbers = {each.number for each in known}
        self._all = points(search.space) if search.size is not None else None
        first = self._all if search.algorithm == "grid" and self._all is not None else search.start_with
        self._first = [point for point in first if not any(_covers(each, point) for each in self._tried)]
        self._asked: dict[str, optuna.trial.Trial | None] = {}  # by Tune's id; None: one from before that is over
        self._heard: dict[str, dict[int, float]] = {}

    def suggest(self, trial_id: str) -> Any:
        """A config; None: not now. FINISHED: nothing is left to try."""
        if self._known:
            return self._again(trial_id, self._known.pop(0))
        if len(self._asked) - sum(1 for each in self._asked.values() if each is None) >= self._room():
            return None
        asked, point = self._ask(self._first.pop(0) if self._first else None)
        if self._all is not None and any(same(point, each) for each in self._tried):
            self._study.tell(asked, state=TrialState.FAIL)
            left = [each for each in self._all if not any(same(each, tried) for tried in self._tried)]
            if not left:
                return Searcher.FINISHED
            asked, point = self._ask(left[0])
        return self._hand_out(trial_id, self._next_number(), point, asked)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        asked = self._asked.get(trial_id)
        if asked is not None:
            self._hear(asked, trial_id, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Complete where the trial ended by itself, pruned where somebody ended it, failed where it cannot work."""
        asked = self._asked.pop(trial_id, None)
        if asked is None:
            self._heard.pop(trial_id, None)
            return
        told = result or {}
        self._hear(asked, trial_id, told)  # Tune keeps the report at which it ends a trial for here
        values = list(self._heard.pop(trial_id, {}).values())
        if error or told.get("infeasible") or not values:
            self._study.tell(asked, state=TrialState.FAIL)
        elif told.get("whole"):
            self._study.tell(asked, max(values) if self._search.mode == "max" else min(values))
        else:
            self._study.tell(asked, state=TrialState.PRUNED)

    def _hear(self, asked: optuna.trial.Trial, trial_id: str, told: Mapping[str, Any]) -> None:
        value, heard = told.get(OBJECTIVE), self._heard.setdefault(trial_id, {})
        if value is None or not math.isfinite(value) or told[REPORT] in heard:
            return
        heard[told[REPORT]] = value
        asked.report(value, told[REPORT])

    def save(self, checkpoint_path: str) -> None:
        """Nothing: a sweep's state is in the server's records of its trials."""
        Path(checkpoint_path).write_text("")

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: see `save`."""

    def _again(self, trial_id: str, trial: Trial) -> dict[str, Any]:
        asked = None
        if trial.live:  # ask for it, so that whoever proposes knows that it is being tried, and how it went so far
            asked, _ = self._ask(trial.point)
            for report, value in trial.curve:
                self._hear(asked, trial_id, {REPORT: report, OBJECTIVE: value})
        config = self._hand_out(trial_id, trial.number, trial.point, asked)
        return (
            {**config, "generation": trial.generation, "start": trial.stages[-1].start} if trial.generation else config
        )

    def _ask(self, wanted: Mapping[str, Value] | None) -> tuple[optuna.trial.Trial, dict[str, Value]]:
        """The wanted point, with what it lacks proposed; None: all of it."""
        if wanted is not None:
            self._study.enqueue_trial(dict(wanted))
        asked = self._study.ask()
        return asked, _suggested(asked, self._search)

    def _hand_out(
        self, trial_id: str, number: int, point: Mapping[str, Value], asked: optuna.trial.Trial | None
    ) -> dict[str, Any]:
        self._asked[trial_id] = asked
        if asked is not None:
            asked.set_user_attr(NUMBER, number)
            asked.set_user_attr(POINT, dict(point))
        self._numbers.add(number)
        self._tried.append(point)
        return {"trial": number, "point": dict(point)}

    def _next_number(self) -> int:
        return next(number for number in range(len(self._numbers) + 1) if number not in self._numbers)

    def _learn(self, trial: Trial, attributes: Mapping[str, Any]) -> None:
        frozen = _frozen(trial, self._search, attributes)
        if frozen is not None:
            self._study.add_trial(frozen)


def sampler(search: Search, offset: int = 0) -> optuna.samplers.BaseSampler:
    """Who proposes. `offset`: trials that there were before, so that a driver started again does not propose them again."""
    seed = (search.seed + 7919 * offset) % 2**32
    match search.algorithm:
        case "tpe" if search.scheduler.type == "asha":
            return RungSampler(search)
        case "tpe":
            return optuna.samplers.TPESampler(
                seed=seed, multivariate=True, group=True, constant_liar=True, n_startup_trials=10
            )
        case "cmaes":
            return optuna.samplers.CmaEsSampler(seed=seed)
        case _:
            return optuna.samplers.RandomSampler(seed=seed)


def _suggested(asked: optuna.trial.Trial, search: Search) -> dict[str, Value]:
    """The point that optuna proposes: only the parameters that count in it."""
    point: dict[str, Value] = {}
    for path in in_order(search.space):
        if search.active(path, point):
            point[path] = asked._suggest(path, distribution(search.space[path]))
    return point


def _frozen(trial: Trial, search: Search, attributes: Mapping[str, Any]) -> FrozenTrial | None:
    """A trial that is over as optuna keeps it; None where its point is not of this space."""
    point = {path: value for path, value in trial.point.items() if path in search.space}
    if not point or not all(search.space[path].holds(value) for path, value in point.items()):
        return None
    state, value = _end(trial, search.mode)
    return create_trial(
        state=state,
        value=value,
        params=point,
        distributions={path: distribution(search.space[path]) for path in point},
        intermediate_values=dict(trial.curve),
        user_attrs=dict(attributes),
    )


def _end(trial: Trial, mode: Mode) -> tuple[TrialState, float | None]:
    if trial.state is sweeps.TrialState.COMPLETED and (best := trial.best(mode)) is not None:
        return TrialState.COMPLETE, best
    if trial.state is sweeps.TrialState.STOPPED and trial.curve:
        return TrialState.PRUNED, None
    return TrialState.FAIL, None


def _covers(point: Mapping[str, Value], wanted: Mapping[str, Value]) -> bool:
    """Whether the point is the wanted one in everything that is wanted of it."""
    return same({path: value for path, value in point.items() if path in wanted}, wanted)
