"""Gymnasium environments side by side, each with a seed of its own."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from trainers.errors import BadConfig

_PREFIX = "gymnasium://"
_PATH = "data.source"


@dataclass(frozen=True)
class Kind:
    """What an environment asks of a policy."""

    name: str
    observations: int  # numbers of one observation
    actions: int
    longest_steps: int  # an episode is cut after so many


@dataclass(frozen=True)
class Moment:
    """What one step of all environments brought."""

    rewards: npt.NDArray[np.float64]  # [count]
    terminated: npt.NDArray[np.bool_]  # [count]: the episode reached its own end
    truncated: npt.NDArray[np.bool_]  # [count]: it was cut, and could have gone on
    last: npt.NDArray[np.float32]  # [count, observations]: what was seen before a new episode began, else zeros


def kind_of(source: str) -> Kind:
    """Of `gymnasium://NAME`. Raises BadConfig unless observations are one row of numbers, actions are numbered and
    episodes have a limit."""
    gymnasium = _gymnasium(source)
    name = source.removeprefix(_PREFIX)
    try:
        environment = gymnasium.make(name)
    except (gymnasium.error.Error, ImportError) as error:
        raise BadConfig(_PATH, source, f"gymnasium cannot make it: {' '.join(str(error).split())}") from error
    seen, acted, limit = environment.observation_space, environment.action_space, environment.spec.max_episode_steps
    environment.close()
    flat = isinstance(seen, gymnasium.spaces.Box) and len(seen.shape) == 1
    if not flat or not isinstance(acted, gymnasium.spaces.Discrete) or acted.start != 0 or limit is None:
        expected = "must have one row of numbers to see, numbered actions, and a limit to an episode's steps"
        raise BadConfig(_PATH, source, f"{expected}; this one has {seen}, {acted}, {limit}")
    return Kind(name, int(seen.shape[0]), int(acted.n), int(limit))


class Environments:
    """A new episode in each, one for each seed; where one ends the next begins in the same step."""

    def __init__(self, kind: Kind, seeds: Sequence[int]) -> None:
        gymnasium = _gymnasium(kind.name)
        make = partial(gymnasium.make, kind.name, disable_env_checker=True)
        self._all: Any = gymnasium.vector.SyncVectorEnv(
            [make] * len(seeds), autoreset_mode=gymnasium.vector.AutoresetMode.SAME_STEP
        )
        self._observations = self._all.reset(seed=list(seeds))[0]

    @property
    def observations(self) -> npt.NDArray[np.float32]:
        """What is to be seen now, [count, observations]."""
        return np.asarray(self._observations, dtype=np.float32)

    def step(self, actions: npt.NDArray[np.int64]) -> Moment:
        """One action [count] in each."""
        self._observations, rewards, terminated, truncated, told = self._all.step(actions)
        last = np.zeros(self._observations.shape, dtype=np.float32)
        for index in np.flatnonzero(terminated | truncated):
            last[index] = told["final_obs"][index]
        return Moment(rewards, terminated, truncated, last)


def _gymnasium(source: str) -> Any:
    if importlib.util.find_spec("gymnasium") is None:
        raise BadConfig(_PATH, source, "gymnasium is not installed on this node: install evertrain[rl]")
    import gymnasium

    return gymnasium
