"""How soon a search finds a configuration within 1 % of the best: ours against random search, Ray Tune's and Optuna's.

    python -m tests.benchmarks.search_quality [--quick]

Searches are replayed on a table of real learning curves (`learning_curves.py`, trained once on this machine), so only time
is simulated: four workers, each free one asks for the next trial at once, each epoch costs its nominal time. Every
decision is made by the code that makes it in earnest. Ours: the searcher and the scheduler that the driver of a sweep
makes of `algorithm: tpe` and `scheduler: asha`, a trial ahead of the workers, as that driver is. Random: Tune's domains,
every trial whole. Ray Tune: the same with its ASHA at its defaults. Optuna: a study at its defaults with its Hyperband
pruner.

A search has found it when a trial reports a validation accuracy of at least the table's best less one hundredth; after
150 simulated seconds it is given up. Each
seed is a pair: all arms search with it, and ratios are taken within it.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import optuna
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from orchestrator.cluster.search_driver import AHEAD
from orchestrator.cluster.search_points import OBJECTIVE, REPORT, Points
from orchestrator.cluster.search_schedulers import scheduler
from orchestrator.spec.search import Search
from tests.benchmarks.harness import Figure, arguments, lower_bound, median, report
from tests.benchmarks.learning_curves import EPOCHS, SPACE, Table, epoch_s, load

SEEDS, WORKERS, REGRET, HORIZON_S = 30, 4, 0.01, 150.0
FIRST_SEED = 60  # our defaults were chosen on 0 to 29 and 100 to 159, which therefore prove nothing

Config = Mapping[str, Any]


class Arm(Protocol):
    """One search, as its workers know it."""

    def propose(self) -> tuple[str, Config]:
        """The next trial, by its name."""
        ...

    def ends(self, trial: str, epoch: int, accuracy: float) -> bool:
        """Hears one report; says whether the trial is over with it."""
        ...


class TuneArm:
    """A searcher and a scheduler of Ray Tune's kind, told what its controller would tell them, in its order.

    `ahead`: so many trials are proposed before a worker is free for them.
    """

    def __init__(self, searcher: Searcher, scheduler: TrialScheduler, ahead: int = 0) -> None:
        self._searcher, self._scheduler, self._ahead = searcher, scheduler, ahead
        self._trials: dict[str, Trial] = {}
        self._waiting: list[tuple[str, Config]] = []

    def propose(self) -> tuple[str, Config]:
        while len(self._waiting) <= self._ahead:
            self._waiting.append(self._suggested())
        return self._waiting.pop(0)

    def _suggested(self) -> tuple[str, Config]:
        name = f"trial-{len(self._trials)}"
        config = self._searcher.suggest(name)
        assert isinstance(config, dict), "the space is not exhausted, and there is room"
        self._trials[name] = Trial("search_quality", config=config, stub=True, trial_id=name)
        self._scheduler.on_trial_add(None, self._trials[name])
        return name, config["point"]

    def ends(self, trial: str, epoch: int, accuracy: float) -> bool:
        told = {OBJECTIVE: accuracy, REPORT: epoch, "whole": epoch == EPOCHS}
        decision = self._scheduler.on_trial_result(None, self._trials[trial], told)
        if decision == TrialScheduler.CONTINUE and epoch < EPOCHS:
            self._searcher.on_trial_result(trial, told)
            return False
        self._scheduler.on_trial_complete(None, self._trials[trial], told)
        self._searcher.on_trial_complete(trial, told)
        return True


class RandomPoints(Searcher):
    """Tune's domains, one independent draw after another."""

    def __init__(self, seed: int) -> None:
        super().__init__(metric=OBJECTIVE, mode="max")
        self._random = np.random.RandomState(seed)

    def suggest(self, trial_id: str) -> dict[str, Any]:
        point: dict[str, Any] = {}
        for path, parameter in SPACE.items():
            if counts(parameter, point):
                point[path] = domain(parameter).sample(random_state=self._random)
        return {"point": point}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Learns nothing."""


def domain(parameter: Mapping[str, Any]) -> Any:
    if "log" in parameter:
        return tune.loguniform(*parameter["log"])
    return tune.uniform(*parameter["uniform"]) if "uniform" in parameter else tune.choice(parameter["choice"])


def counts(parameter: Mapping[str, Any], point: Config) -> bool:
    return all(point[path] == value for path, value in parameter.get("when", {}).items())


class OptunaArm:
    """A study as its documentation shows it, asked and told by each worker."""

    def __init__(self, seed: int) -> None:
        self._study = optuna.create_study(
            study_name=f"seed {seed}",
            direction="maximize",
            sampler=optuna.samplers.TPESampler(seed=seed),
            pruner=optuna.pruners.HyperbandPruner(min_resource=1, max_resource=EPOCHS),
        )
        self._trials: dict[str, optuna.Trial] = {}

    def propose(self) -> tuple[str, Config]:
        trial = self._study.ask()
        point: dict[str, Any] = {}
        for path, parameter in SPACE.items():
            if not counts(parameter, point):
                continue
            if "choice" in parameter:
                point[path] = trial.suggest_categorical(path, parameter["choice"])
            else:
                log = "log" in parameter
                point[path] = trial.suggest_float(path, *parameter["log" if log else "uniform"], log=log)
        self._trials[str(trial.number)] = trial
        return str(trial.number), point

    def ends(self, trial: str, epoch: int, accuracy: float) -> bool:
        asked = self._trials[trial]
        asked.report(accuracy, epoch)
        if epoch == EPOCHS:
            self._study.tell(asked, accuracy)
        elif asked.should_prune():
            self._study.tell(asked, state=optuna.trial.TrialState.PRUNED)
        else:
            return False
        return True


def ours(seed: int) -> Arm:
    document = {
        "train": {"epochs": EPOCHS},
        "search": {"metric": "val_accuracy", "mode": "max", "scheduler": "asha", "space": SPACE, "seed": seed},
    }
    search = Search.model_validate(document["search"])
    return TuneArm(Points(search), scheduler(search, document), AHEAD)


def random_search(seed: int) -> Arm:
    return TuneArm(RandomPoints(seed), FIFOScheduler())


def ray_asha(seed: int) -> Arm:
    stops = AsyncHyperBandScheduler(time_attr=REPORT, metric=OBJECTIVE, mode="max", max_t=EPOCHS)
    return TuneArm(RandomPoints(seed), stops)


ARMS: dict[str, Callable[[int], Arm]] = {
    "ours": ours,
    "random": random_search,
    "Ray Tune ASHA": ray_asha,
    "Optuna Hyperband": OptunaArm,
}
BOUNDS = {"random": 4.0, "Ray Tune ASHA": 1.0, "Optuna Hyperband": 1.0}


@dataclass(frozen=True)
class Found:
    after_s: float  # HORIZON_S where nothing was found until then: a peer's ratio to ours is at least that
    trials: int


def replay(table: Table, arm: Arm, workers: int = WORKERS) -> Found:
    """Until a trial reports what is good enough, or the horizon has come."""
    goal = table.best - REGRET
    order = itertools.count()
    running: list[tuple[float, int, str, Config, int]] = []

    def start(now_s: float) -> None:
        name, config = arm.propose()
        heapq.heappush(running, (now_s + epoch_s(config), next(order), name, config, 1))

    for _ in range(workers):
        start(0.0)
    proposed = workers
    while running[0][0] < HORIZON_S:
        now_s, place, name, config, epoch = heapq.heappop(running)
        accuracy = float(table.accuracy[table.row(config), epoch - 1])
        if accuracy >= goal:
            return Found(now_s, proposed)
        if arm.ends(name, epoch, accuracy):
            start(now_s)
            proposed += 1
        else:
            heapq.heappush(running, (now_s + epoch_s(config), place, name, config, epoch + 1))
    return Found(HORIZON_S, proposed)


def figures(table: Table, found: Mapping[str, Sequence[Found]]) -> list[Figure]:
    good = float((table.accuracy.max(axis=1) >= table.best - REGRET).mean())
    told = [
        Figure("configurations of the table", len(table.accuracy), "", 2000, "higher"),
        Figure("best validation accuracy in it", table.best, ""),
        Figure("configurations that are good enough", good, "share"),
    ]
    for name, runs in found.items():
        told.append(Figure(f"{name}: to 1 % regret, p50", median([each.after_s for each in runs]), "s"))
        told.append(Figure(f"{name}: trials until then, p50", median([each.trials for each in runs]), ""))
    for name, bound in BOUNDS.items():
        ratios = [its.after_s / mine.after_s for mine, its in zip(found["ours"], found[name], strict=True)]
        told.append(Figure(f"{name} over ours, p50", median(ratios), "ratio", bound, "higher"))
        told.append(Figure(f"{name} over ours, lower 95 % bound", lower_bound(ratios), "ratio"))
        medians = [median([each.after_s for each in found[arm]]) for arm in (name, "ours")]
        told.append(Figure(f"{name}'s p50 over our p50", medians[0] / medians[1], "ratio"))
    return told


def main() -> None:
    options = arguments(__doc__ or "", SEEDS)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    table = load()
    found: dict[str, list[Found]] = {name: [] for name in ARMS}
    for seed in range(FIRST_SEED, FIRST_SEED + options.pairs):
        for name, arm in ARMS.items():
            np.random.seed(seed)  # Tune's schedulers draw brackets from numpy's own generator
            found[name].append(replay(table, arm(seed)))
        print(
            f"seed {seed}: " + ", ".join(f"{name} {runs[-1].after_s:,.1f} s" for name, runs in found.items()),
            flush=True,
        )
    report("search_quality", figures(table, found))


if __name__ == "__main__":
    main()
