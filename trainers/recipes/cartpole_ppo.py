"""A policy learns to balance a pole, or to do what any small gymnasium environment rewards."""

from __future__ import annotations

from dataclasses import dataclass

from trainers.config import Settings, section
from trainers.data.environments import kind_of
from trainers.tasks.policy import Policy, Ppo


@dataclass(frozen=True)
class Model:
    """`model:` of the run file."""

    width: int = 64  # of both layers
    environments: int = 32  # over all workers, who share them evenly
    horizon: int = 128  # steps of each environment in one epoch
    passes: int = 4  # over an epoch's transitions
    discount: float = 0.99
    smoothing: float = 0.95  # lambda of generalized advantage estimation
    clip_ratio: float = 0.2
    entropy: float = 0.01
    value: float = 0.5
    episodes: int = 50  # played for val_return, and as many others for test_return


def cartpole_ppo(settings: Settings) -> Policy:
    """Raises BadConfig for environments of another kind."""
    model = section(Model, settings.model, "model")
    kind = kind_of(settings.data.source)
    ppo = Ppo(
        environments=model.environments,
        horizon=model.horizon,
        passes=model.passes,
        discount=model.discount,
        smoothing=model.smoothing,
        clip_ratio=model.clip_ratio,
        entropy=model.entropy,
        value=model.value,
    )
    return Policy(kind, ppo, width=model.width, episodes=model.episodes, seed=settings.train.seed)
