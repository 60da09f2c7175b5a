"""Preparing data: what is refused with which rows, what comes out, and that it is made once."""

from __future__ import annotations

import base64
import dataclasses
import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
import torch
import yaml
from PIL import Image

from orchestrator import spec
from trainers.config import Data, section
from trainers.contract import FACTS_BYTES
from trainers.data import prepare as preparing
from trainers.data import ray_job
from trainers.data.loader import Splits
from trainers.data.prepare import is_asked_for, main, prepare
from trainers.data.prepared import Prepared, verify
from trainers.data.preparing.checks import BadData
from trainers.data.preparing.fitting import PROFILED_ROWS, Moments
from trainers.data.preparing.profile import quantiles
from trainers.data.preparing.report import image_cards
from trainers.data.preparing.sketch import Sketch, k_of
from trainers.data.preparing.splitting import PARTS
from trainers.data.reading.formats import Fragment
from trainers.data.reading.tables import fragments, stream
from trainers.errors import BadConfig, StorageError

CARRIERS = ("UA", "AA", "DL")


def flights(rows: int = 400, **columns: Any) -> pa.Table:
    """A table with numbers, categories, a group, a time and a label."""
    random = np.random.default_rng(0)
    delay = random.normal(10, 5, rows)
    values = {
        "delay": delay,
        "distance": random.integers(100, 2000, rows),
        "carrier": [CARRIERS[each] for each in random.integers(0, 3, rows)],
        "plane": [f"N{each}" for each in random.integers(0, 40, rows)],
        "hour": pa.array(random.integers(0, 5000, rows), pa.timestamp("s")),
        "late": [bool(each) for each in delay > 12],
    }
    return pa.table({**values, **columns})


FEATURES = ["delay", "distance", "carrier"]


def written(directory: Path, table: pa.Table, name: str = "flights.parquet") -> str:
    directory.mkdir(parents=True, exist_ok=True)
    if name.endswith("csv"):
        pyarrow.csv.write_csv(table, directory / name)
    else:
        pyarrow.parquet.write_table(table, directory / name, row_group_size=150)
    return str(directory / name)


def made(source: str, root: Path, **sections: Any) -> Prepared:
    raw = {"source": source, "label": "late", "features": FEATURES, **sections}
    return prepare(section(Data, raw, "data"), None if "prepared" in sections else root)


def column(prepared: Prepared, part: str, name: str) -> Any:
    return np.load(prepared.directory / part / f"{name}.npy")


def source_rows(prepared: Prepared) -> dict[str, list[int]]:
    return {part: column(prepared, part, "row").tolist() for part in PARTS}


def refused(source: str, root: Path, **sections: Any) -> BadConfig:
    with pytest.raises(BadConfig) as error:
        made(source, root, **sections)
    assert not [each for each in root.glob("*") if each.is_dir()], "nothing half made is left"
    return error.value


# ---- what comes out -------------------------------------------------------------------------------------------------


def test_a_table_becomes_memory_mapped_columns_of_three_parts(tmp_path: Path) -> None:
    table = flights()
    prepared = made(written(tmp_path / "in", table), tmp_path / "out")
    rows = source_rows(prepared)
    assert {part: len(each) for part, each in rows.items()} == {"train": 280, "validation": 60, "test": 60}
    assert sorted(row for each in rows.values() for row in each) == list(range(400))
    for part in PARTS:
        targets = column(prepared, part, "targets")
        assert targets.tolist() == [int(table["late"][row].as_py()) for row in rows[part]]
        codes = column(prepared, part, "categories")[:, 0]
        assert [prepared.fitted.categories["carrier"][code - 1] for code in codes] == [
            table["carrier"][row].as_py() for row in rows[part]
        ]
    verify(prepared)


def test_normalisation_is_fitted_on_the_training_part_alone(tmp_path: Path) -> None:
    table = flights()
    prepared = made(written(tmp_path / "in", table), tmp_path / "out")
    train = table.take(source_rows(prepared)["train"])["delay"].to_numpy()
    inputs = {part: column(prepared, part, "inputs")[:, 0] for part in PARTS}
    assert inputs["train"].mean() == pytest.approx(0, abs=1e-6)
    assert inputs["train"].std() == pytest.approx(1, abs=1e-6)
    test = table.take(source_rows(prepared)["test"])["delay"].to_numpy()
    assert inputs["test"] == pytest.approx((test - train.mean()) / train.std(), abs=1e-5)
    assert abs(inputs["test"].mean()) > 1e-3


def test_ranges_and_raw_values_can_be_had(tmp_path: Path) -> None:
    source = written(tmp_path / "in", flights())
    ranged = column(made(source, tmp_path / "out", steps={"normalize": "range"}), "train", "inputs")
    raw = column(made(source, tmp_path / "out", steps={"normalize": "none"}), "train", "inputs")
    assert (ranged.min(axis=0).tolist(), ranged.max(axis=0).tolist()) == ([0, 0], [1, 1])
    assert raw[:, 1].min() >= 100


def test_flags_are_numbers_days_are_times_and_empty_files_do_not_matter(tmp_path: Path) -> None:
    day = pa.array([number // 10 for number in range(400)], pa.int32()).cast(pa.date32())
    table = flights(weekend=[number % 7 > 4 for number in range(400)], day=day)
    written(tmp_path / "in", table.slice(0, 0), "a.parquet")
    source = str(Path(written(tmp_path / "in", table, "b.parquet")).parent)
    prepared = made(
        source, tmp_path / "out", features=["weekend"], split_by={"time": "day"}, steps={"normalize": "none"}
    )
    assert [column(prepared, part, "row").min() for part in PARTS] == [0, 280, 340]
    assert set(column(prepared, "train", "inputs").ravel()) == {0.0, 1.0}
    assert made(source, tmp_path / "out", split_by={"group": "day"}).manifest.rows["train"] == 280


def test_loading_gives_int64_labels_and_rows_in_any_order(tmp_path: Path) -> None:
    prepared = made(written(tmp_path / "in", flights()), tmp_path / "out")
    splits = prepared.splits()
    assert isinstance(splits, Splits)
    batch = splits.train.take(np.array([3, 0, 3]))
    assert batch["targets"].dtype == batch["categories"].dtype == torch.int64
    assert torch.equal(batch["inputs"][0], batch["inputs"][2])
    assert torch.equal(batch["inputs"][1], torch.from_numpy(column(prepared, "train", "inputs")[0]))


def test_a_number_as_label_is_estimated(tmp_path: Path) -> None:
    prepared = made(written(tmp_path / "in", flights()), tmp_path / "out", label="delay", features=["distance"])
    assert prepared.fitted.classes is None
    assert column(prepared, "train", "targets").dtype == np.float32


def test_text_is_numbered_by_the_training_parts_vocabulary(tmp_path: Path) -> None:
    lines = [f"word{number % 7} and w{number}" for number in range(100)]
    source = written(tmp_path / "in", pa.table({"text": lines, "label": [number % 2 for number in range(100)]}))
    steps = {"tokenize": {"unit": "word", "length": 4, "vocabulary": 12}}
    prepared = made(source, tmp_path / "out", label="label", features=["text"], steps=steps)
    tokens = column(prepared, "test", "tokens")
    assert tokens.shape == (15, 4)
    assert (tokens[:, 2] == 1).all(), "what only the test part says is unknown"
    assert (tokens[:, 3] == 0).all(), "short texts are filled up"
    assert len(prepared.fitted.vocabulary) == 10
    assert "and" in prepared.fitted.vocabulary


def draw(directory: Path, sizes: Mapping[str, tuple[int, int]], count: int = 10) -> str:
    random = np.random.default_rng(0)
    for label, (height, width) in sizes.items():
        (directory / label).mkdir(parents=True)
        for number in range(count):
            pixels = random.integers(0, 255, (height, width), dtype=np.uint8)
            Image.fromarray(pixels).save(directory / label / f"{number}.png")
    return str(directory)


def images(source: str, root: Path, **sections: Any) -> Prepared:
    return made(source, root, label="label", features=["image"], **sections)


def test_images_are_resized_and_normalised_by_channel(tmp_path: Path) -> None:
    source = draw(tmp_path / "in", {"cat": (10, 8), "dog": (12, 12)})
    prepared = images(source, tmp_path / "out", steps={"resize": [6, 5]}, split_by={"stratify": "label"})
    inputs = column(prepared, "train", "inputs")
    assert inputs.shape == (14, 1, 6, 5)
    assert inputs.mean() == pytest.approx(0, abs=1e-5)
    assert prepared.fitted.classes == ("cat", "dog")
    assert np.bincount(column(prepared, "test", "targets")).tolist() == [2, 2]
    report = (prepared.directory / "report.html").read_text()
    assert report.count("data:image/png;base64") == 2 + 12  # the mean of each class, and examples
    assert "channel 0, as prepared" in report


def test_images_unlike_the_others_are_told_in_the_report() -> None:
    images = np.random.default_rng(3).normal(size=(40, 3, 8, 8)).astype(np.float32)
    images[7] += 9
    images[9] = 0
    *channels, brightness = image_cards(images)
    assert [each["name"] for each in channels] == [f"channel {place}, as prepared" for place in range(3)]
    assert (brightness["outliers"], brightness["missing"]) == ("1 (2.50%)", "1 (2.50%) of one colour")


# ---- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "rules", "words"),
    [
        ({}, {"delay": {"max": 20.0}}, "data.columns.delay.max: delay must be at most 20"),
        ({}, {"distance": {"min": 150}}, "data.columns.distance.min"),
        ({}, {"carrier": {"values": ["UA", "AA"]}}, "data.columns.carrier.values: carrier must be one of UA, AA"),
        ({"delay": ["1.5"] * 250 + ["x"] + ["2"] * 149}, {"delay": {"type": "number"}}, "flights.parquet row 250"),
        ({"delay": [float("nan")] + [1.0] * 399}, {}, "data.clean.nulls: delay must not be missing: 1 row"),
        (
            {"delay": [1.0] * 399 + [float("inf")]},
            {},
            "data.clean.infinite: delay must be finite: 1 row, the first inf",
        ),
        ({"late": [None] + [True, False, True] * 133}, {}, "data.clean.nulls: late must not be missing"),
        ({"late": [True] * 400}, {}, "data.label: late must name at least two classes"),
    ],
)
def test_values_that_break_a_rule_are_named_with_their_rows(
    columns: dict[str, Any], rules: dict[str, Any], words: str, tmp_path: Path
) -> None:
    source = written(tmp_path / "in", flights(**columns))
    error = refused(source, tmp_path / "out", columns=rules)
    assert isinstance(error, BadData)
    assert words in str(error)


def test_rows_are_counted_over_all_pieces_and_the_first_are_named(tmp_path: Path) -> None:
    delays = np.where(np.arange(400) % 100 == 99, 1e6, np.arange(400))
    error = refused(written(tmp_path / "in", flights(delay=delays)), tmp_path / "out", columns={"delay": {"max": 500}})
    assert isinstance(error, BadData)
    (finding,) = error.findings
    assert finding.count == 4
    assert "flights.parquet rows 99, 199, 299, 399" in str(error)
    assert [each.rpartition(" ")[2] for each in finding.rows] == ["99", "199", "299", "399"]


def test_shares_of_nulls_and_of_repeated_rows_are_held_to_their_limits(tmp_path: Path) -> None:
    delay = [None if number % 10 == 0 else float(number) for number in range(400)]
    source = written(tmp_path / "in", flights(delay=pa.array(delay)))
    fill = {"clean": {"nulls": "median"}}
    assert made(source, tmp_path / "out", columns={"delay": {"nulls": 0.1}}, **fill)
    with pytest.raises(BadData, match=r"at most 5\.00% of the rows: 40 rows"):
        made(source, tmp_path / "out", columns={"delay": {"nulls": 0.05}}, **fill)
    twice = written(tmp_path / "twice", pa.concat_tables([flights(), flights().slice(0, 40)]))
    assert made(twice, tmp_path / "out", checks={"duplicates": 0.1})
    with pytest.raises(BadData, match=r"data\.checks\.duplicates.*40 rows: row 400, row 401"):
        made(twice, tmp_path / "out", checks={"duplicates": 0.05})


def test_rare_classes_and_few_rows_are_refused_when_the_run_file_says_so(tmp_path: Path) -> None:
    source = written(tmp_path / "in", flights(late=[number < 8 for number in range(400)]))
    sections = {"split_by": {"stratify": "late"}}
    assert "at least 5.00% of each class, not 2.00%" in str(
        refused(source, tmp_path / "out", checks={"balance": 0.05}, **sections)
    )
    assert "must hold 401 rows" in str(refused(source, tmp_path / "out", checks={"rows": 401}, **sections))


def test_corrupt_images_are_named_or_dropped(tmp_path: Path) -> None:
    source = draw(tmp_path / "in", {"cat": (8, 8), "dog": (8, 8)})
    torn = Path(source, "dog", "3.png")
    torn.write_bytes(torn.read_bytes()[:60])
    Path(source, "cat", "4.png").write_bytes(b"")
    with pytest.raises(BadData) as error:
        images(source, tmp_path / "out")
    assert str(torn) in str(error.value)
    assert "cat/4.png" in str(error.value)
    prepared = images(source, tmp_path / "out", clean={"corrupt": "drop"})
    assert prepared.manifest.dropped["corrupt"] == 2
    assert sum(prepared.manifest.rows.values()) == 18


def test_images_of_different_sizes_need_a_size(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"data\.steps\.resize.*from \(8, 8\) to \(9, 9\)"):
        images(draw(tmp_path / "in", {"cat": (8, 8), "dog": (9, 9)}), tmp_path / "out")


@pytest.mark.parametrize(
    ("sections", "path"),
    [
        ({"label": "price"}, "data.label"),
        ({"features": ["delay", "price"]}, "data.features"),
        ({"features": ["delay", "late"]}, "data.features"),
        ({"features": ["delay", "hour"]}, "data.features"),
        ({"columns": {"price": {"min": 0}}}, "data.columns.price"),
        ({"label": "hour"}, "data.label"),
        ({"prepared": "s3://bucket/prepared"}, "data.prepared"),
        ({"split_by": {"group": "price"}}, "data.split_by.group"),
        ({"split_by": {"group": "plane", "time": "hour"}}, "data.split_by"),
        ({"split_by": {"stratify": "late"}, "split": [0.9, 0.2, 0.0]}, "data.split"),
        ({"steps": {"tokenize": {"length": 0}}}, "data.steps.tokenize"),
        ({"features": ["delay"], "steps": {"tokenize": {"length": 3}}}, "data.steps.tokenize"),
        ({"features": FEATURES, "steps": {"resize": [4, 4]}}, "data.steps.resize"),
    ],
)
def test_what_the_run_file_names_wrongly_is_told_by_its_path(
    sections: dict[str, Any], path: str, tmp_path: Path
) -> None:
    assert refused(written(tmp_path / "in", flights()), tmp_path / "out", **sections).path == path


def test_a_part_that_would_be_empty_is_refused(tmp_path: Path) -> None:
    source = written(tmp_path / "in", flights(plane=["N1"] * 400))
    error = refused(source, tmp_path / "out", split_by={"group": "plane"})
    assert error.path == "data.split"
    assert "leaves no row to the" in str(error)
    few = written(tmp_path / "few", flights(3))
    assert "leaves no row" in str(refused(few, tmp_path / "out"))
    none = written(tmp_path / "none", flights(0))
    assert "holds no rows" in str(refused(none, tmp_path / "out"))


def test_a_class_that_training_never_sees_is_refused(tmp_path: Path) -> None:
    kind = ["a", "b"] * 199 + ["c", "a"]
    hour = pa.array(range(400), pa.timestamp("s"))
    source = written(tmp_path / "in", flights(kind=kind, hour=hour))
    error = refused(source, tmp_path / "out", label="kind", split_by={"time": "hour"})
    assert (error.path, error.got) == ("data.split", "c")


# ---- cleaning -------------------------------------------------------------------------------------------------------


def test_missing_values_are_filled_from_the_training_part_or_dropped(tmp_path: Path) -> None:
    delay = pa.array([None if number % 4 == 0 else float(number) for number in range(400)])
    table = flights(delay=delay)
    source = written(tmp_path / "in", table)
    raw = {"steps": {"normalize": "none"}}
    for policy, of in (("mean", np.mean), ("median", np.median), ("zero", lambda _: 0.0)):
        prepared = made(source, tmp_path / "out", clean={"nulls": policy}, **raw)
        rows = source_rows(prepared)
        train = [delay[row].as_py() for row in rows["train"] if row % 4]
        filled = [column(prepared, part, "inputs")[place, 0] for part in PARTS for place in gaps(rows[part])]
        assert filled == pytest.approx([of(train)] * 100, rel=1e-5)
    dropped = made(source, tmp_path / "out", clean={"nulls": "drop"}, **raw)
    assert dropped.manifest.dropped == {"nulls": 100}
    assert sum(dropped.manifest.rows.values()) == 300


def gaps(rows: list[int]) -> list[int]:
    return [place for place, row in enumerate(rows) if row % 4 == 0]


def test_infinite_values_can_be_missing_ones(tmp_path: Path) -> None:
    source = written(tmp_path / "in", flights(delay=[float("inf"), *map(float, range(399))]))
    prepared = made(source, tmp_path / "out", clean={"infinite": "missing", "nulls": "drop"})
    assert 0 not in [row for rows in source_rows(prepared).values() for row in rows]
    assert "delay" in str(refused(source, tmp_path / "other", clean={"infinite": "missing"}))


def test_outliers_are_held_to_the_fences_of_the_training_part(tmp_path: Path) -> None:
    delay = np.random.default_rng(3).normal(0, 1, 400)
    delay[::50] = 1e6
    source = written(tmp_path / "in", flights(delay=delay))
    inputs = column(made(source, tmp_path / "out", clean={"outliers": "clip"}), "train", "inputs")[:, 0]
    assert inputs.max() < 10
    assert inputs.std() == pytest.approx(1, abs=1e-5)


def test_arrays_with_nan_are_named(tmp_path: Path) -> None:
    x = np.ones((50, 2, 2), dtype=np.float32)
    x[17, 0, 1] = np.nan
    (tmp_path / "in").mkdir()
    np.savez(tmp_path / "in" / "some.npz", x=x, y=np.arange(50) % 2)
    error = refused(str(tmp_path / "in" / "some.npz"), tmp_path / "out", label="y", features=["x"])
    assert "some.npz row 17" in str(error)


# ---- no leakage -----------------------------------------------------------------------------------------------------


def test_rows_that_repeat_one_another_fall_to_one_part(tmp_path: Path) -> None:
    table = pa.concat_tables([flights()] * 3)
    prepared = made(written(tmp_path / "in", table), tmp_path / "out")
    originals = {part: {row % 400 for row in rows} for part, rows in source_rows(prepared).items()}
    assert sum(map(len, originals.values())) == len(set.union(*originals.values())) == 400
    dropped = made(written(tmp_path / "in", table), tmp_path / "out", clean={"duplicates": "drop"})
    assert dropped.manifest.dropped == {"duplicates": 800}
    assert {part: set(rows) for part, rows in source_rows(dropped).items()} == originals


def test_groups_stay_together(tmp_path: Path) -> None:
    table = flights()
    prepared = made(written(tmp_path / "in", table), tmp_path / "out", split_by={"group": "plane"})
    planes = {part: set(table.take(rows)["plane"].to_pylist()) for part, rows in source_rows(prepared).items()}
    assert sum(map(len, planes.values())) == 40
    assert prepared.manifest.rows["train"] == pytest.approx(280, abs=20)


def test_time_goes_from_training_to_test(tmp_path: Path) -> None:
    table = flights()
    prepared = made(written(tmp_path / "in", table), tmp_path / "out", split_by={"time": "hour"})
    hours = {part: table.take(rows)["hour"].to_pylist() for part, rows in source_rows(prepared).items()}
    assert max(hours["train"]) < min(hours["validation"])
    assert max(hours["validation"]) < min(hours["test"])
    unknown = written(tmp_path / "unknown", flights(hour=pa.array([None, *range(399)], pa.timestamp("s"))))
    assert "data.split_by.time" in str(refused(unknown, tmp_path / "other", split_by={"time": "hour"}))


def test_strata_keep_their_shares(tmp_path: Path) -> None:
    source = written(tmp_path / "in", flights(late=[number < 40 for number in range(400)]))
    prepared = made(source, tmp_path / "out", split_by={"stratify": "late"})
    assert {part: counts["True"] for part, counts in prepared.manifest.labels.items()} == {
        "train": 28,
        "validation": 6,
        "test": 6,
    }


# ---- made once ------------------------------------------------------------------------------------------------------


def test_the_same_inputs_and_steps_are_prepared_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = written(tmp_path / "in", flights())
    first = made(source, tmp_path / "out")
    monkeypatch.setattr(preparing, "_make", None)
    assert made(source, tmp_path / "out").directory == first.directory
    varied = made(source, tmp_path / "out", steps={"augment": {"flip": True}})
    assert varied.directory == first.directory, "augmentation is drawn in the run"


def test_what_a_killed_process_left_is_cleared_away(tmp_path: Path) -> None:
    source = written(tmp_path / "in", flights())
    prepared = made(source, tmp_path / "out")
    left = tmp_path / "out" / f".{prepared.manifest.key}.abc"
    prepared.directory.rename(left)
    again = made(source, tmp_path / "out")
    assert again.directory.is_dir()
    assert not left.exists()


def test_a_root_that_cannot_be_written_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(StorageError, match="data cannot be prepared in"):
        made(written(tmp_path / "in", flights()), tmp_path / "out")


def test_other_inputs_or_steps_are_prepared_anew(tmp_path: Path) -> None:
    source = written(tmp_path / "in", flights())
    keys = {
        made(source, tmp_path / "out").manifest.key,
        made(source, tmp_path / "out", steps={"normalize": "range"}).manifest.key,
        made(source, tmp_path / "out", split_by={"stratify": "late"}).manifest.key,
        made(written(tmp_path / "in", flights(401)), tmp_path / "out").manifest.key,
    }
    assert len(keys) == 4


def test_csv_and_parquet_of_the_same_values_give_the_same_arrays(tmp_path: Path) -> None:
    table = flights().drop_columns(["hour"])
    one = made(written(tmp_path / "parquet", table), tmp_path / "out")
    other = made(written(tmp_path / "csv", table, "flights.csv"), tmp_path / "out")
    for part in PARTS:
        assert np.array_equal(column(one, part, "row"), column(other, part, "row"))
        assert np.allclose(column(one, part, "inputs"), column(other, part, "inputs"), atol=1e-5)


def test_damage_is_found_and_told(tmp_path: Path) -> None:
    source = written(tmp_path / "in", flights())
    prepared = made(source, tmp_path / "out")
    file = prepared.directory / "train" / "inputs.npy"
    body = bytearray(file.read_bytes())
    body[-1] ^= 1
    file.write_bytes(body)
    with pytest.raises(BadConfig, match=r"train/inputs\.npy is corrupted"):
        verify(prepared)
    file.write_bytes(body[:-8])
    with pytest.raises(BadConfig, match="remove the directory"):
        made(source, tmp_path / "out")


# ---- profile and report ---------------------------------------------------------------------------------------------


def test_the_profile_describes_the_training_part(tmp_path: Path) -> None:
    table = flights()
    prepared = made(written(tmp_path / "in", table), tmp_path / "out")
    train = table.take(source_rows(prepared)["train"])
    profile = json.loads(json.dumps(prepared.profile))
    delay = train["delay"].to_numpy()
    assert profile["format"] == 2
    assert profile["rows"] == 280
    assert profile["numbers"]["delay"]["mean"] == pytest.approx(delay.mean())
    assert profile["numbers"]["delay"]["deviation"] == pytest.approx(delay.std())
    shares = np.linspace(0, 1, 101)
    exact = np.quantile(delay, shares, method="inverted_cdf")
    assert quantiles(profile["numbers"]["delay"], shares) == pytest.approx(exact)
    assert sum(profile["categories"]["carrier"]["values"].values()) == 280
    assert profile["label"]["values"] == {str(value): train["late"].to_pylist().count(value) for value in (False, True)}


def test_the_profile_of_images_tells_what_they_look_like(tmp_path: Path) -> None:
    prepared = images(draw(tmp_path / "in", {"cat": (8, 8), "dog": (8, 8)}), tmp_path / "out")
    profile = json.loads(json.dumps(prepared.profile))
    assert set(profile["looks"]) == set(profile["numbers"]) == set(profile["sample"]["columns"])
    assert {"sharpness", "brightness"} <= set(profile["looks"])
    assert profile["numbers"]["brightness"]["count"] == profile["rows"]
    assert 0 < profile["numbers"]["brightness"]["mean"] < 255


def test_the_profile_has_rows_of_the_training_part_as_they_were(tmp_path: Path) -> None:
    table = flights()
    prepared = made(written(tmp_path / "in", table), tmp_path / "out")
    sample = json.loads(json.dumps(prepared.profile))["sample"]
    rows = np.frombuffer(base64.b64decode(sample["values"]), "<f4").reshape(-1, len(sample["columns"]))
    train = table.take(source_rows(prepared)["train"])
    words = [*sample["words"]["carrier"], None]
    place = {name: sample["columns"].index(name) for name in ("delay", "carrier")}
    told = sorted((np.float32(row[place["delay"]]), words[int(row[place["carrier"]])]) for row in rows)
    assert told == sorted(zip(train["delay"].to_numpy().astype(np.float32), train["carrier"].to_pylist(), strict=True))


def test_equal_rows_are_sampled_each_by_itself(tmp_path: Path) -> None:
    table = pa.table({"size": [float(each) for each in range(60)] * 150, "y": [0, 1] * 4_500})
    source = tmp_path / "many.parquet"
    pyarrow.parquet.write_table(table, source, row_group_size=1_500)
    prepared = prepare(section(Data, {"source": str(source)}, "data"), tmp_path / "out")
    sample, rows = prepared.profile["sample"], prepared.profile["rows"]
    values, times = np.unique(np.frombuffer(base64.b64decode(sample["values"]), "<f4"), return_counts=True)
    assert times.sum() == PROFILED_ROWS < rows
    assert len(values) == rows / 150
    assert times.max() < 3 * PROFILED_ROWS / len(values)


def test_sketches_of_pieces_are_merged_within_their_rank_error(tmp_path: Path) -> None:
    rows = 20_000
    delay = np.random.default_rng(1).normal(10, 5, rows)
    label = delay * 2
    table = pa.table({"delay": delay, "label": label})
    source = tmp_path / "many.parquet"
    pyarrow.parquet.write_table(table, source, row_group_size=2500)
    prepared = prepare(section(Data, {"source": str(source)}, "data"), tmp_path / "out")
    train = table.take(source_rows(prepared)["train"])
    for facts, column_name in ((prepared.profile["numbers"]["delay"], "delay"), (prepared.profile["label"], "label")):
        values = np.sort(train[column_name].to_numpy())
        shares = np.array([0.01, 0.25, 0.5, 0.75, 0.99])
        ranks = np.searchsorted(values, quantiles(facts, shares)) / len(values)
        assert facts["count"] == Sketch.from_text(facts["sketch"]).count == len(values)
        assert np.abs(ranks - shares).max() < 0.01  # k is 800
    assert len(json.dumps(prepared.profile)) < 80_000


@pytest.mark.parametrize("columns", [1, 10, 60, 200])
def test_sketches_of_many_columns_together_stay_small(columns: int) -> None:
    k = k_of(columns)
    sketch = Sketch(k)
    sketch.update(np.random.default_rng(0).normal(size=100_000))
    assert columns * len(sketch.to_text()) < FACTS_BYTES
    assert pickle.loads(pickle.dumps(sketch)).to_text() == sketch.to_text()


def test_what_is_no_sketch_is_refused() -> None:
    for text in ("", "not base64!", "AAAA"):
        with pytest.raises(ValueError, match="not a KLL sketch"):
            quantiles({"sketch": text}, np.array([0.5]))


def test_moments_are_merged_exactly() -> None:
    values = np.random.default_rng(0).normal(1e6, 1, (1000, 2))
    values[3, 1] = np.nan
    merged = Moments.of(values[:10]).merged(Moments.of(values[10:400])).merged(Moments.of(values[400:]))
    assert merged.count.tolist() == [1000, 999]
    assert merged.mean == pytest.approx(np.nanmean(values, axis=0))
    assert merged.deviation == pytest.approx(np.nanstd(values, axis=0), rel=1e-9)


def test_the_report_is_one_page_that_escapes_what_data_say(tmp_path: Path) -> None:
    carrier = ["<script>alert(1)</script>", "AA"] * 200
    prepared = made(written(tmp_path / "in", flights(carrier=carrier)), tmp_path / "out")
    page = (prepared.directory / "report.html").read_text()
    assert "<script" not in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    for word in ("Class balance", "Correlations", "outliers", "Examples", "&lt;script"):
        assert word in page


def test_a_piece_that_cannot_be_read_on_another_node_is_told_as_here(tmp_path: Path) -> None:
    source = written(tmp_path / "in", flights())
    (piece, *_) = fragments(source)
    Path(source).unlink()
    row = ray_job._work(pickle.dumps(first_rows), {"number": 3, "item": pickle.dumps(({}, piece))})
    told = pickle.loads(row["told"])
    assert (row["number"], told.path, told.got) == (3, "data.source", source)
    assert "cannot read it" in told.expected


def first_rows(piece: Fragment) -> int:
    return next(stream(piece)).num_rows


# ---- the command and the run file -----------------------------------------------------------------------------------


def test_the_command_prepares_the_data_of_a_run_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_file = tmp_path / "run.yaml"
    data = {"source": written(tmp_path / "in", flights()), "label": "late", "features": FEATURES}
    run_file.write_text(yaml.safe_dump({"name": "flights", "data": data}))
    assert main([str(run_file), "--root", str(tmp_path / "out"), "--verify"]) == 0
    assert "280 train, 60 validation, 60 test" in capsys.readouterr().out
    data["columns"] = {"delay": {"max": 0}}
    run_file.write_text(yaml.safe_dump({"name": "flights", "data": data}))
    assert main([str(run_file), "--root", str(tmp_path / "out")]) == 1
    assert "data.columns.delay.max" in capsys.readouterr().err


def test_the_server_and_the_ranks_know_the_same_keys() -> None:
    every = {
        "source": "/data/*.csv",
        "split_by": {"time": "hour"},
        "columns": {"delay": {"type": "number", "values": [1, 2]}},
        "steps": {"resize": [4, 4], "tokenize": {"length": 3}, "augment": {"flip": True}},
    }
    run_file = {"name": "a", "recipe": "digits_cnn", "train": {"steps": 1}, "data": every}
    dumped = spec.dump(spec.parse(yaml.safe_dump(run_file)))["data"]
    read = section(Data, dumped, "data")
    assert set(dumped) == {each.name for each in dataclasses.fields(Data)}
    assert json.loads(json.dumps(dataclasses.asdict(read))) == dumped


def test_data_are_prepared_only_when_the_run_file_asks_for_it() -> None:
    assert not is_asked_for(Data("sklearn://digits", (0.8, 0.1, 0.1)))
    assert is_asked_for(section(Data, {"source": "a.csv", "clean": {"nulls": "drop"}}, "data"))
