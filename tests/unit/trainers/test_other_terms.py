"""Rows of one data set as a model of another one takes them, and what it says of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from orchestrator.drift.proving import Policy, judge
from trainers import proof
from trainers.config import Data, Proof, Settings, Train, section
from trainers.data.loader import Loader, Tensors
from trainers.data.other_terms import rows_in_terms_of
from trainers.data.prepare import prepare
from trainers.data.preparing.transform import Fitted
from trainers.errors import BadConfig
from trainers.exchange import Exchange
from trainers.layout import BatchPlan
from trainers.proof import Contender, NotComparable, answers, compared
from trainers.recipes.tabular import tabular

LOADER = Loader(BatchPlan(8, 8, 1, 1), 0, torch.device("cpu"), torch.float32)


def table(path: Path, kinds: str, labels: str, scale: float, rows: int = 200) -> dict[str, Any]:
    """A CSV file of a number, a kind and what is to be told of them."""
    generator = np.random.default_rng(len(kinds))
    sizes = np.round(scale * generator.normal(size=rows), 3)
    told = [f"{size},{kinds[row % len(kinds)]},{labels[row % len(labels)]}" for row, size in enumerate(sizes)]
    path.write_text("\n".join(["size,kind,label", *told]))
    return {"source": str(path), "label": "label", "prepared": str(path.parent / "prepared")}


def contender(name: str, data: dict[str, Any]) -> Contender:
    asked = section(Data, data, "data")
    task = tabular(Settings(asked, Train(global_batch=8, steps=1), model={"width": 8, "layers": 1}))
    torch.manual_seed(len(name))
    return Contender(name, task.model().eval(), task, asked, task.notes)


@pytest.fixture
def champion(tmp_path: Path) -> Contender:
    return contender("champion", table(tmp_path / "before.csv", "ab", "xy", 1.0))


@pytest.fixture
def challenger(tmp_path: Path) -> Contender:
    return contender("challenger", table(tmp_path / "after.csv", "abc", "xyz", 50.0))


def test_rows_are_scaled_and_numbered_as_the_other_model_does_in_the_order_asked(
    champion: Contender, challenger: Contender
) -> None:
    fitted = Fitted.from_json(champion.notes["preparation"])
    prepared = prepare(challenger.data)
    places = np.array([9, 2, 5])

    rows = rows_in_terms_of(fitted, challenger.data, "test", places)

    lines = Path(challenger.data.source).read_text().splitlines()[1:]
    for place, row in enumerate(prepared.rows_of("test")[places].tolist()):
        size, kind, _ = lines[row].split(",")
        scale = fitted.scales[0]
        assert rows.columns["inputs"][place, 0].item() == pytest.approx(
            (float(size) - scale.shift) / scale.scale, rel=1e-6
        )
        assert rows.columns["categories"][place, 0].item() == {"a": 1, "b": 2, "c": 0}[kind]  # it never saw a c
    assert "targets" not in rows.columns


def test_a_class_that_a_model_does_not_know_is_one_that_it_cannot_name(
    champion: Contender, challenger: Contender
) -> None:
    rows = np.arange(len(challenger.task.splits.test))
    truth = challenger.task.splits.test.take(rows)["targets"].numpy()
    last = truth == 2

    said = answers(champion, challenger, rows, LOADER, lambda: None)

    assert last.any()
    assert said["accuracy"][last].max() == 0
    assert said["loss"][last].min() > 16
    assert said["loss"][~last].max() < 16
    own = answers(challenger, challenger, rows, LOADER, lambda: None)
    batch = {**challenger.task.splits.test.take(rows), "keys": torch.zeros(len(rows), dtype=torch.int64)}
    measured = challenger.task.measure(challenger.model, batch)
    np.testing.assert_allclose(own["loss"], measured["loss"].detach().numpy(), rtol=1e-4)
    np.testing.assert_array_equal(own["accuracy"], measured["accuracy"].numpy())


def test_rows_that_lack_a_column_are_refused_by_its_name(champion: Contender, tmp_path: Path) -> None:
    fitted = Fitted.from_json(champion.notes["preparation"])
    source = tmp_path / "short.csv"
    source.write_text("\n".join(["size,label", *(f"{row},{'xy'[row % 2]}" for row in range(100))]))
    data = section(Data, {"source": str(source), "label": "label", "prepared": str(tmp_path / "prepared")}, "data")

    with pytest.raises(BadConfig, match="kind"):
        rows_in_terms_of(fitted, data, "test", np.array([0]))


def test_models_whose_notes_differ_in_anything_else_are_not_compared(
    champion: Contender, challenger: Contender
) -> None:
    stranger = Contender("stranger", champion.model, champion.task, champion.data, {**champion.notes, "unit": "mm"})
    measured = Contender("owner", champion.model, champion.task, champion.data, {**champion.notes, "unit": "inch"})
    with pytest.raises(NotComparable, match="the owner's unit is not the stranger's"):
        answers(stranger, measured, np.arange(2), LOADER, lambda: None)


def test_a_challenger_of_which_nothing_is_held_out_is_not_promoted_and_its_run_goes_on(
    champion: Contender, challenger: Contender, monkeypatch: pytest.MonkeyPatch
) -> None:
    none = Tensors({"inputs": torch.zeros(0, 1)})
    challenger.task.splits = replace(challenger.task.splits, validation=none, test=none)
    monkeypatch.setattr(proof, "_contenders", lambda *asked: (champion, challenger))  # as if they had been sealed
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 0)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 1)
    settings = Settings(challenger.data, Train(global_batch=8, steps=1), proof=Proof(3, "sealed"))
    launch: Any = None  # of which only its code is used, to read what was sealed

    found = compared(launch, settings, challenger.task, "sealed", Exchange(0, 1), LOADER, lambda: None)

    assert found is not None
    assert found["latency"] == {}
    judgement = judge(found, Policy())
    assert not judgement.promote
    assert "the recent rows could not be compared: no rows were held out" in judgement.words
    assert "its latency was not measured" in judgement.words

    def broken(*asked: Any) -> dict[str, float]:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(proof, "_latency", broken)
    found = compared(launch, settings, challenger.task, "sealed", Exchange(0, 1), LOADER, lambda: None)
    assert found == {"format": 1, "champion": 3, "problem": "not compared: out of memory"}
