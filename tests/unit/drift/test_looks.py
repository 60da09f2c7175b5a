"""What images look like, on both sides, and that a blur or an inversion is told by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

import orchestrator.drift.looks as live
import trainers.data.preparing.looks as training
from orchestrator.drift.batches import Batch, BatchError, read_batch, write_batch
from orchestrator.drift.reference import read_looks, read_profile, read_rows
from orchestrator.drift.watch import Reference, Rules, Watch
from orchestrator.drift.windows import Cut
from trainers.config import Data, section
from trainers.data.prepare import prepare

GENERATOR = np.random.default_rng(0)


@pytest.mark.parametrize(
    "images",
    [
        GENERATOR.integers(0, 256, (5, 9, 7)).astype(np.uint8),
        GENERATOR.random((5, 12, 8, 3)),
        GENERATOR.random((5, 3, 12, 8)),
        [GENERATOR.random((4, 4)), None, GENERATOR.random((30, 20, 3)), np.zeros((1, 1))],
    ],
)
def test_both_sides_see_the_same(images: Any) -> None:
    ours, theirs = live.looks(images), training.looks(images)
    assert ours.keys() == theirs.keys()
    for name, values in ours.items():
        assert values.tolist() == pytest.approx(theirs[name].tolist(), nan_ok=True)


def test_looks_are_what_their_names_say() -> None:
    image = np.zeros((6, 6))
    image[2:4, 2:4] = 10.0
    seen = {name: float(each[0]) for name, each in live.looks([image]).items()}
    assert seen["brightness"] == pytest.approx(40 / 36)
    assert seen["contrast"] == pytest.approx(image.std())
    assert (seen["lightest"], seen["darkest"]) == pytest.approx((4 / 36, 32 / 36))
    inner = np.array([[0, -10, -10, 0], [-10, 20, 20, -10], [-10, 20, 20, -10], [0, -10, -10, 0]])
    assert seen["sharpness"] == pytest.approx(inner.var())
    colours = live.looks(np.stack([np.full((4, 4), level) for level in (1.0, 2.0, 3.0)], axis=-1)[None])
    assert [float(colours[name][0]) for name in live.COLOURS] == [1.0, 2.0, 3.0]
    assert set(live.looks([image])) == set(live.PLAIN)


def test_an_image_goes_as_its_looks_and_a_missing_one_as_missing() -> None:
    images = [GENERATOR.random((8, 8)), None]
    for column in (images, images[:1], np.stack(images[:1])):
        batch = read_batch(write_batch({"scan": column, "age": [3.0] * len(column)}), 0.0)
        assert set(batch.columns) == {"age", *live.PLAIN}
    batch = read_batch(write_batch({"scan": images, "age": [3.0, 4.0]}), 0.0)
    assert np.isnan(batch.columns["sharpness"][1])  # type: ignore[index]
    with pytest.raises(BatchError, match="column scan holds images, and brightness is there already"):
        write_batch({"scan": images, "brightness": [1.0, 2.0]})
    with pytest.raises(BatchError, match=r"column scan: an image has the shape \(5, 8, 8\)"):
        write_batch({"scan": np.zeros((2, 5, 8, 8))})


def digits(tmp_path: Path) -> Reference:
    """As the run of a recipe for images leaves it: from the profile of its training part."""
    prepared = prepare(section(Data, {"source": "sklearn://digits"}, "data"), tmp_path)
    profile = prepared.profile
    assert read_looks(profile) == set(live.PLAIN)
    return Reference(1, read_profile(profile), rows=read_rows(profile), looks=read_looks(profile))


def served(images: Any) -> Batch:
    return read_batch(write_batch({"image": images}), 1_000.0)


def blurred(images: Any) -> Any:
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1)), mode="edge")
    return np.mean([padded[:, i : i + 8, j : j + 8] for i in range(3) for j in range(3)], axis=0)


def test_a_blur_and_an_inversion_of_digits_are_told_by_name(tmp_path: Path) -> None:
    known, images = digits(tmp_path), load_digits().images / 16  # as the source has them
    order = np.random.default_rng(1).permutation(len(images))[:1_500]
    for change, name, how in (
        (lambda each: each, "", ""),
        (blurred, "sharpness", "-"),
        (lambda each: 1 - each, "brightness", "+"),
    ):
        watched = Watch.begin(known, Rules(Cut("count", 500)), 0.0)
        judged = watched.rows(served(change(images[order])), 1e6, 1e6)
        last = judged[-1].judgement
        if not name:
            assert {each.judgement.status for each in judged} == {"stable"}
            continue
        assert last.status == "drift"
        (told,) = [
            each for each in last.evidence["findings"] if (each["feature"], each["test"]) == (name, "distribution")
        ]
        assert f"{name}: median" in told["words"]
        assert f"({how}" in told["words"]
        assert f"{name}: median" in last.words


def test_who_sends_no_images_does_not_miss_their_looks(tmp_path: Path) -> None:
    known = digits(tmp_path)
    watched = Watch.begin(known, Rules(Cut("count", 500)), 0.0)
    table = known.table.columns
    made = read_batch(write_batch({"camera": [1.0] * 500}), 0.0)
    (judged,) = watched.rows(made, 1.0, 1.0)
    assert set(table) == set(live.PLAIN)
    assert judged.judgement.status == "stable"
    assert "no longer there" not in judged.judgement.words
