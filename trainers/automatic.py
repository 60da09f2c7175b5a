"""What the run file leaves to be found: `train.micro_batch: auto` and `train.lr: auto`.

Each is tried with an engine of its own that is thrown away, so weights, optimizer, random state and the order of samples
are as if nothing had been tried. What was found is kept in every checkpoint: a resumed run does not try again.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from trainers.config import Schedule, Settings, plan_batch
from trainers.contract import Launch
from trainers.data.loader import Loader
from trainers.data.sampler import Sampler
from trainers.distributed import World
from trainers.engine import Engine, build_engine, precision_of
from trainers.errors import BadConfig
from trainers.micro_batch import Trials, memory_limit, smallest_plan
from trainers.parallel import Place
from trainers.range_test import LOWEST, range_test
from trainers.tasks.task import Task

_NO_END = 10**9  # steps, of an engine whose learning rate is set by hand


@dataclass
class Automatic:
    """Collective: every rank calls the same, and finds the same."""

    launch: Launch
    task: Task
    world: World
    place: Place
    alive: Callable[[], None]  # called whenever something was tried
    found: dict[str, Any] = field(default_factory=dict)  # what every checkpoint keeps

    def settle(self, settings: Settings, earlier: Mapping[str, Any]) -> Settings:
        """`settings` with numbers for every `auto`: those found `earlier` in this run, else by trial.

        Raises BadConfig where nothing can be tried.
        """
        if settings.train.micro_batch == "auto":
            if "micro_batch" not in earlier:
                earlier = {**earlier, "micro_batch": self._try_micro_batches(settings)}
            self.found["micro_batch"] = int(earlier["micro_batch"])
            settings = replace(settings, train=replace(settings.train, micro_batch=self.found["micro_batch"]))
        if settings.train.lr == "auto":
            test = earlier.get("range_test") or self._try_learning_rates(settings)
            self.found["range_test"] = dict(test)
            settings = replace(settings, train=replace(settings.train, lr=float(test["chosen"])))
        return settings

    def _try_micro_batches(self, settings: Settings) -> int:
        for name, most in (("zero", 2), ("tensor", 1), ("pipeline", 1), ("sequence", 1), ("expert", 1)):
            if (degree := getattr(settings.parallelism, name)) > most:
                why = f"cannot be tried with parallelism.{name} {degree}, whose ranks compute together: give a number"
                raise BadConfig("train.micro_batch", "auto", why)
        world, size = self.world, settings.train.global_batch
        share = plan_batch(settings.train, world.size).micro_batch
        trial = _for_trial(settings)
        engine = build_engine(self.task.model, trial, smallest_plan(world), world, self.place, _NO_END)
        trials = Trials(
            engine=engine,
            task=self.task,
            sampler=Sampler(len(self.task.splits.train), size, settings.train.seed),
            world=world,
            dtype=precision_of(settings.train, world.device),
            limit_bytes=memory_limit(self.launch.memory_bytes, _local_world_size(world), world.device),
            exchange=self.place.exchange,
            alive=self.alive,
        )
        largest = trials.largest(share)
        _release(engine)
        tried = ", ".join(f"{each} {'fits' if fits else 'does not'}" for each, fits in sorted(trials.tried.items()))
        self._say(f"micro-batch {largest} of {share} samples for each rank and step, by trial ({tried or '1 fits'})")
        return largest

    def _try_learning_rates(self, settings: Settings) -> dict[str, Any]:
        world, place = self.world, self.place
        plan = plan_batch(settings.train, place.data_size, stages=settings.parallelism.pipeline)
        engine = build_engine(self.task.model, _for_trial(settings), plan, world, place, _NO_END)
        loader = Loader(plan, place.at.data, world.device, precision_of(settings.train, world.device))
        sampler = Sampler(len(self.task.splits.train), plan.global_batch, settings.train.seed)
        curve = range_test(place, engine, self.task, loader, sampler, self.alive)
        _release(engine)
        chosen = float(f"{curve.steepest():.3g}")
        if curve.rates:
            span = f"{curve.rates[0]:.3g} to {curve.rates[-1]:.3g}"
            self._say(f"learning rate {chosen:g}, by a range test of {len(curve.rates)} steps from {span}")
        return {"chosen": chosen, **curve.to_extra()}

    def _say(self, words: str) -> None:
        if self.world.rank == 0:
            print(words, flush=True)


def _for_trial(settings: Settings) -> Settings:
    return replace(settings, train=replace(settings.train, lr=LOWEST, schedule=Schedule(), compile=False))


def _release(engine: Engine) -> None:
    destroy: Any = engine.destroy
    destroy()
    del engine
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _local_world_size(world: World) -> int:
    return int(os.environ.get("LOCAL_WORLD_SIZE", world.size))
