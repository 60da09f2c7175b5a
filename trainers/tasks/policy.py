"""Act so that rewards add up: proximal policy optimization (Schulman et al. 2017, arXiv 1707.06347).

An epoch is one iteration: the environments go on for `horizon` steps under the policy as it is, each rank with its share
of them, and all ranks learn from what all have seen. Environments, their seeds and the draws of actions are numbered over
all ranks, so that a run is the same at every world size. A resumed run begins new episodes, with seeds of that epoch, and
sees the rest of an epoch's steps with what it collects then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
import torch.distributed
from torch import nn
from torch.nn import functional

from trainers.data.environments import Environments, Kind
from trainers.data.loader import Batch, Splits, Tensors
from trainers.data.sampler import Indices, mix
from trainers.distributed import World, joined
from trainers.errors import BadConfig
from trainers.models.actor_critic import ActorCritic
from trainers.tasks.task import Model

_ACTIONS, _TRAINING, _VALIDATION, _TEST = range(4)  # what random numbers are for


@dataclass(frozen=True)
class Ppo:
    """The algorithm's own numbers."""

    environments: int  # over all ranks
    horizon: int  # steps of each environment in one iteration
    passes: int  # over what was collected
    discount: float
    smoothing: float  # lambda of generalized advantage estimation
    clip_ratio: float
    entropy: float  # weight of its bonus
    value: float  # weight of the value's squared error


@dataclass
class Rollout:
    """What was collected, `passes` times over: example i is transition i modulo their number."""

    transitions: int
    passes: int
    columns: Mapping[str, torch.Tensor] = field(default_factory=dict)  # [transitions, ...]

    def __len__(self) -> int:
        return self.transitions * self.passes

    def take(self, indices: Indices) -> Mapping[str, torch.Tensor]:
        where = torch.from_numpy(indices % self.transitions)
        return {name: column.index_select(0, where) for name, column in self.columns.items()}


class Policy:
    """Judged by the mean return of whole episodes with the likeliest action, from seeds that training never sees."""

    judged_by = "val_return"
    judged_mode: Literal["min", "max"] = "max"

    def __init__(self, kind: Kind, ppo: Ppo, *, width: int, episodes: int, seed: int) -> None:
        self._kind = kind
        self._ppo = ppo
        self._width = width
        self._seed = seed
        self._rollout = Rollout(ppo.environments * ppo.horizon, ppo.passes)
        judged = (Tensors({"seeds": torch.from_numpy(_seeds(each, 0, episodes))}) for each in (_VALIDATION, _TEST))
        self.splits = Splits(self._rollout, *judged)
        self.notes: Mapping[str, Any] = {
            "environment": kind.name,
            "observations": kind.observations,
            "actions": kind.actions,
            "width": width,
        }
        self._collecting: _Collecting | None = None

    def model(self) -> nn.Module:
        return ActorCritic(observations=self._kind.observations, actions=self._kind.actions, width=self._width)

    def collect(self, model: Model, epoch: int) -> Mapping[str, float]:
        """`mean_return`: over the environments, of the episode that each ended last, or of its first one so far."""
        if self._collecting is None:
            self._collecting = _Collecting(self._kind, self._ppo, self._seed, epoch)
        with torch.no_grad():
            columns, returns = self._collecting.go_on(model, epoch)
        advantages = columns["advantages"]
        columns["advantages"] = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        self._rollout.columns = columns
        return {"mean_return": float(returns.mean())}

    def loss(self, model: Model, batch: Batch) -> torch.Tensor:
        outputs = model(batch["observations"]).float()
        log_probabilities = functional.log_softmax(outputs[:, :-1], dim=1)
        taken = log_probabilities.gather(1, batch["actions"].unsqueeze(1)).squeeze(1)
        ratio = (taken - batch["log_probabilities"]).exp()
        clipped = ratio.clamp(1 - self._ppo.clip_ratio, 1 + self._ppo.clip_ratio)
        gain = torch.minimum(ratio * batch["advantages"], clipped * batch["advantages"]).mean()
        entropy = -(log_probabilities.exp() * log_probabilities).sum(dim=1).mean()
        value_error = (outputs[:, -1] - batch["returns"]).square().mean()
        return self._ppo.value * value_error - gain - self._ppo.entropy * entropy

    def measure(self, model: Model, batch: Batch) -> Mapping[str, torch.Tensor]:
        seeds, inverse = torch.unique(batch["seeds"], return_inverse=True)  # copies fill the last batch
        environments = Environments(self._kind, seeds.tolist())
        returns, goes_on = np.zeros(len(seeds)), np.ones(len(seeds), dtype=bool)
        while goes_on.any():
            outputs = model(torch.from_numpy(environments.observations))
            moment = environments.step(outputs[:, :-1].argmax(dim=1).cpu().numpy())
            returns += moment.rewards * goes_on
            goes_on &= ~(moment.terminated | moment.truncated)
        return {"return": torch.from_numpy(returns).to(batch["seeds"].device)[inverse]}


class _Collecting:
    """This rank's environments, in the middle of their episodes."""

    def __init__(self, kind: Kind, ppo: Ppo, seed: int, epoch: int) -> None:
        self._ppo = ppo
        self._seed = seed
        self._here = joined()
        if ppo.environments % self._here.size:
            expected = f"must be a multiple of the number of ranks, here {self._here.size}"
            raise BadConfig("model.environments", ppo.environments, expected)
        share = ppo.environments // self._here.size
        self._mine = np.arange(self._here.rank * share, (self._here.rank + 1) * share)
        seeds = _seeds(_TRAINING + 4 * seed, epoch * ppo.environments, ppo.environments)
        self._environments = Environments(kind, seeds[self._mine].tolist())
        self._sums = np.zeros(share)  # of the rewards of the episodes that go on
        self._returns = np.zeros(share)
        self._ended_any = np.zeros(share, dtype=bool)

    def go_on(self, model: Model, epoch: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """The transitions of all ranks, each column [horizon x environments, ...], and the returns [environments]."""
        steps: list[dict[str, torch.Tensor]] = []
        for step in range(epoch * self._ppo.horizon, (epoch + 1) * self._ppo.horizon):
            steps.append(self._step(model, step))
        mine = {name: torch.stack([each[name] for each in steps]) for name in steps[0]}  # [horizon, share, ...]
        after = _values(model, torch.from_numpy(self._environments.observations))
        following = torch.cat([mine["values"][1:], after.unsqueeze(0)])
        cut = mine.pop("truncated")
        if cut.any():
            following[cut] = _values(model, mine["last"][cut])
        del mine["last"]
        mine["advantages"] = advantages(
            mine.pop("rewards"),
            mine["values"],
            following * ~mine.pop("terminated"),
            goes_on=~mine.pop("ended"),
            discount=self._ppo.discount,
            smoothing=self._ppo.smoothing,
        )
        mine["returns"] = mine["advantages"] + mine.pop("values")
        latest = torch.from_numpy(np.where(self._ended_any, self._returns, self._sums))
        gather = partial(_gathered, here=self._here)
        return {name: gather(each, dim=1).flatten(0, 1) for name, each in mine.items()}, gather(latest, dim=0)

    def _step(self, model: Model, step: int) -> dict[str, torch.Tensor]:
        observations = torch.from_numpy(self._environments.observations)
        outputs = model(observations).float().cpu()
        log_probabilities = functional.log_softmax(outputs[:, :-1], dim=1)
        draws = _draws(_ACTIONS + 4 * self._seed, step * self._ppo.environments + self._mine)
        below = log_probabilities.exp().cumsum(dim=1)[:, :-1] < torch.from_numpy(draws).unsqueeze(1)
        actions = below.sum(dim=1)
        moment = self._environments.step(actions.numpy())
        ended = moment.terminated | moment.truncated
        self._sums += moment.rewards
        self._returns = np.where(ended, self._sums, self._returns)
        self._sums = np.where(ended, 0.0, self._sums)
        self._ended_any |= ended
        return {
            "observations": observations,
            "actions": actions,
            "log_probabilities": log_probabilities.gather(1, actions.unsqueeze(1)).squeeze(1),
            "values": outputs[:, -1],
            "rewards": torch.from_numpy(moment.rewards).float(),
            "terminated": torch.from_numpy(moment.terminated),
            "truncated": torch.from_numpy(moment.truncated & ~moment.terminated),
            "ended": torch.from_numpy(ended),
            "last": torch.from_numpy(moment.last),
        }


def advantages(
    rewards: torch.Tensor,
    values: torch.Tensor,
    following: torch.Tensor,
    *,
    goes_on: torch.Tensor,
    discount: float,
    smoothing: float,
) -> torch.Tensor:
    """Generalized advantage estimation (Schulman et al. 2016, arXiv 1506.02438). All are [steps, environments]; `following`
    is the value of the state that each step led to, 0 where the episode reached its end, and what follows an episode's
    last step is left out where it does not go on."""
    surprise = rewards + discount * following - values
    estimated = torch.zeros_like(surprise)
    ahead = torch.zeros_like(surprise[0])
    for step in reversed(range(len(surprise))):
        ahead = surprise[step] + discount * smoothing * goes_on[step] * ahead
        estimated[step] = ahead
    return estimated


def _values(model: Model, observations: torch.Tensor) -> torch.Tensor:
    return model(observations)[:, -1].float().cpu()


def _seeds(purpose: int, first: int, count: int) -> Indices:
    return (mix(purpose, np.arange(first, first + count, dtype=np.uint64)) >> np.uint64(33)).astype(np.int64)


def _draws(purpose: int, counters: Indices) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Uniform in [0, 1), one for each counter."""
    return (mix(purpose, counters.astype(np.uint64)) >> np.uint64(40)).astype(np.float32) / np.float32(2**24)


def _gathered(mine: torch.Tensor, dim: int, here: World) -> torch.Tensor:
    """Every rank's tensor, side by side along `dim`."""
    if here.size == 1:
        return mine
    parts = [torch.empty_like(mine, device=here.device) for _ in range(here.size)]
    torch.distributed.all_gather(parts, mine.to(here.device).contiguous())
    return torch.cat(parts, dim=dim).cpu()
