"""What somebody would like next, learned from ratings with their times: MovieLens, or a .csv file in its form."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from trainers.config import Settings, section
from trainers.data.loader import Splits
from trainers.data.ratings import Histories, read_ratings
from trainers.data.sources import split_points
from trainers.errors import BadConfig
from trainers.models.recommender import Recommender
from trainers.tasks.recommendation import Recommendation


@dataclass(frozen=True)
class Model:
    """`model:` of the run file."""

    width: int = 32  # of an item's row
    hidden: int = 128
    history: int = 30  # how many of a user's last ratings are looked at
    negatives: int = 1000  # items drawn in each step, to tell those that were rated from
    dropout: float = 0.1
    liked: float = 4.0  # least score of what a user liked
    table_lr_factor: float = 50.0  # times train.lr: the learning rate of the rows


def recommender(settings: Settings) -> Recommendation:
    """The ratings are cut in three spans of time. The first teaches what is rated next; the others ask what will be liked.

    Raises BadConfig when nothing in one of them was liked.
    """
    model = section(Model, settings.model, "model")
    ratings = read_ratings(settings.data.source)
    first, second = split_points(len(ratings), settings.data.split)
    splits = [Histories(ratings, np.arange(first), model.history, with_seen=False)]
    for span in (np.arange(first, second), np.arange(second, len(ratings))):
        liked = span[ratings.scores[span] >= model.liked]
        if len(span) and not len(liked):
            highest = f"the highest score in a part of the ratings is {ratings.scores[span].max():g}"
            raise BadConfig("model.liked", model.liked, f"must leave something liked; {highest}")
        splits.append(Histories(ratings, liked, model.history, with_seen=True))
    return Recommendation(
        splits=Splits(*splits),
        dense=partial(
            Recommender,
            width=model.width,
            hidden=model.hidden,
            history=model.history,
            kinds=ratings.kinds.shape[1],
            dropout=model.dropout,
        ),
        kinds=torch.from_numpy(ratings.kinds),
        width=model.width,
        negatives=model.negatives,
        table_lr_factor=model.table_lr_factor,
        seed=settings.train.seed,
        notes={"items": list(ratings.item_names), "width": model.width},
    )
