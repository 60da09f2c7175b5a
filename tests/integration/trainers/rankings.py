"""What a recommender must beat: the popular, and a matrix factorisation that has seen the same histories."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from trainers.data.ratings import Histories

Scores = npt.NDArray[np.float64]


def ndcg_at_10(scores: Scores, cases: Histories) -> float:
    """Mean over `cases` [n]: `scores` [n, items], the items that each user had rated before left out."""
    batch = {name: column.numpy() for name, column in cases.take(np.arange(len(cases))).items()}
    wanted = np.take_along_axis(scores, batch["items"][:, None], axis=1)
    above = scores >= wanted
    for case, seen in enumerate(batch["seen"]):
        above[case, seen[seen >= 0]] = False
    rank = np.maximum(1, above.sum(axis=1))
    return float(np.where(rank <= 10, 1 / np.log2(1 + rank), 0.0).mean())


def by_factors(likes: Scores, cases: Histories, *, width: int, weight: float, ridge: float) -> Scores:
    """Implicit-feedback matrix factorisation by alternating least squares (Hu, Koren and Volinsky 2008).

    `likes` [users, items] are training's, 0 or 1. Each case's user is solved for from all that they had rated by then, so
    that the factors know as much of new users as the recommender does.
    """
    random = np.random.default_rng(0)
    items = random.normal(scale=0.1, size=(likes.shape[1], width))
    for _ in range(12):
        users = _solved([np.flatnonzero(row) for row in likes], items, weight, ridge)
        items = _solved([np.flatnonzero(column) for column in likes.T], users, weight, ridge)
    seen = cases.take(np.arange(len(cases)))["seen"].numpy()
    return _solved([row[row >= 0] for row in seen], items, weight, ridge) @ items.T


def _solved(chosen: list[npt.NDArray[np.int64]], others: Scores, weight: float, ridge: float) -> Scores:
    """The factors of whoever chose which of the `others`: 1 for a chosen one with 1 + `weight`, else 0 with 1."""
    common = others.T @ others + ridge * np.eye(others.shape[1])
    answers = np.zeros((len(chosen), others.shape[1]))
    for index, each in enumerate(chosen):
        mine = others[each]
        answers[index] = np.linalg.solve(common + weight * mine.T @ mine, (1 + weight) * mine.sum(axis=0))
    return answers
