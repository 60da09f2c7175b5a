"""Ratings, and what was known when each was made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trainers.data.ratings import Histories, read_ratings
from trainers.errors import BadConfig

TABLE = """userId,movieId,rating,timestamp,genres
7,30,4.5,300,Drama|War
7,10,5.0,100,Comedy
9,30,3.0,150,Drama|War
7,20,2.0,200,War
7,40,4.0,300,Comedy
9,10,4.0,400,Comedy
"""


def written(path: Path, text: str = TABLE) -> str:
    (path / "ratings.csv").write_text(text)
    return str(path / "ratings.csv")


def test_ratings_are_numbered_and_come_in_the_order_of_time(tmp_path: Path) -> None:
    ratings = read_ratings(written(tmp_path))
    assert ratings.times_s.tolist() == [100, 150, 200, 300, 300, 400]
    assert ratings.item_names == ("10", "20", "30", "40")
    assert ratings.items.tolist() == [0, 2, 1, 2, 3, 0]
    assert ratings.users.tolist() == [0, 1, 0, 0, 0, 1]
    assert ratings.kinds.tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 1], [1, 0, 0]]  # Comedy, Drama, War


def test_a_history_holds_what_its_user_rated_at_an_earlier_second(tmp_path: Path) -> None:
    ratings = read_ratings(written(tmp_path))
    taken = Histories(ratings, np.arange(6), 2, with_seen=True).take(np.arange(6))
    assert taken["items"].tolist() == [0, 2, 1, 2, 3, 0]
    # The two of second 300 know nothing of each other, whatever order the file has.
    assert taken["history"].tolist() == [[-1, -1], [-1, -1], [-1, 0], [0, 1], [0, 1], [-1, 2]]
    assert taken["liked"].tolist() == [[0, 0], [0, 0], [0, 5], [5, 2], [5, 2], [0, 3]]
    assert taken["seen"].tolist() == taken["history"].tolist()


def test_a_long_past_is_seen_whole_but_looked_at_in_part(tmp_path: Path) -> None:
    ratings = read_ratings(written(tmp_path))
    taken = Histories(ratings, np.array([3]), 1, with_seen=True).take(np.array([0]))
    assert taken["history"].tolist() == [[1]]
    assert taken["seen"].tolist() == [[0, 1]]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("userId,rating,timestamp\n1,2,3\n", "movieId is missing"),
        ("userId,movieId,rating,timestamp\n", "must hold ratings"),
        ("userId,movieId,rating,timestamp\n1,2,,3\n", "no empty user, movie, rating or timestamp"),
        ("", "must be a .csv file of ratings"),
    ],
)
def test_a_file_that_holds_no_ratings_is_refused(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=words):
        read_ratings(written(tmp_path, text))
