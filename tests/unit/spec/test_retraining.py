"""What a run file says of retraining: the policy, and the run file of a retraining."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator import spec
from orchestrator.core import recall
from orchestrator.core.prospects import Proof
from orchestrator.core.retraining import Cause, Mode, QuietHours
from orchestrator.spec.monitor import Monitor
from orchestrator.spec.retraining import (
    alerts_of,
    label_of,
    newest_rows_of,
    policy_of,
    proof_of,
    recall_of,
    retraining_document,
)

RUN: dict[str, Any] = {
    "name": "flights",
    "recipe": "tabular",
    "data": {"source": "/data/*.parquet", "label": "late", "split_by": {"time": "hour"}, "features": ["dep", "dist"]},
    "train": {"epochs": 2},
    "monitor": {"retrain": {"mode": "auto"}},
}


def settings(**retrain: Any) -> dict[str, Any]:
    return Monitor.model_validate({"retrain": retrain}).model_dump(mode="json")


def made(run: dict[str, Any], **retrain: Any) -> dict[str, Any]:
    document = spec.dump(spec.load(run))
    return retraining_document(document, settings(**retrain), source="/snapshots/1", label="late", champion="flights@3")


def test_a_policy_says_what_the_run_file_says() -> None:
    policy = policy_of(
        settings(
            mode="dry-run",
            triggers=[{"drift": "major"}, {"cron": "0 3 * * 1"}, {"rows": 5000}, {"alert": "ErrorHigh"}],
            cooldown="2h",
            minimum_rows=300,
            budget={"runs": 4, "cost": "20 USD"},
            quiet_hours=["22:00-06:30"],
            utc_offset=-5,
        )
    )
    assert policy.causes == {Cause.DRIFT, Cause.SCHEDULE, Cause.DATA_VOLUME, Cause.ALERT}
    assert (policy.mode, policy.cooldown_s, policy.least_severity) == (Mode.DRY_RUN, 7200.0, 3)
    assert (policy.least_new_rows, policy.monthly_runs, policy.monthly_cost) == (300, 4, 20.0)
    assert policy.quiet == (QuietHours(22 * 60, 6 * 60 + 30),)
    assert policy.schedule is not None
    assert (policy.volume_rows, policy.utc_offset_s) == (5000, -18000.0)


def test_a_recall_and_the_newest_rows_are_asked_for_and_otherwise_off() -> None:
    asked = settings(recall={"versions": 16, "rows": 48, "confidence": 0.8}, newest_rows=500)
    assert (recall_of(asked), newest_rows_of(asked)) == (recall.Policy(16, 48, 0.8), 500)
    assert recall_of(settings(recall={})) == recall.Policy()
    for none in (settings(), Monitor().model_dump(mode="json")):
        assert (recall_of(none), newest_rows_of(none)) == (None, None)


def test_a_monitor_that_only_watches_leaves_retraining_to_people() -> None:
    only = Monitor().model_dump(mode="json")
    assert policy_of(only).causes == frozenset()
    assert alerts_of(only) == frozenset()
    assert alerts_of(settings(triggers=["drift", {"alert": "A"}, {"alert": "B"}])) == {"A", "B"}


def test_a_retraining_is_the_run_file_on_other_data() -> None:
    document = made(RUN)
    assert document["data"]["source"] == "/snapshots/1"
    assert document["data"]["features"] == ["dep", "dist"]
    assert document["data"]["split_by"] is None, "live rows need not have the column"
    assert document["init_from"]["model"] == "flights@3"
    again = spec.load(document)
    assert (again.name, again.priority, again.train.epochs) == ("flights", 50, 2)
    assert again.monitor == spec.load(RUN).monitor


def test_a_stratified_split_stays_one() -> None:
    run = {**RUN, "data": {**RUN["data"], "split_by": {"stratify": "late"}}}
    assert spec.load(made(run)).data.split_by is not None


def test_a_retraining_from_scratch_begins_as_the_run_file_says() -> None:
    assert made(RUN, start="scratch")["init_from"] is None
    with_weights = {**RUN, "init_from": {"file": "/weights", "freeze": ["encoder.*"]}}
    assert made(with_weights, start="scratch")["init_from"]["file"] == "/weights"
    warm = made(with_weights)["init_from"]
    assert (warm["model"], warm["freeze"]) == ("flights@3", ["encoder.*"])
    assert "file" not in warm


def test_its_priority_is_its_own_and_a_search_is_left_out() -> None:
    search = {"metric": "val_loss", "mode": "min", "space": {"train.lr": {"log": [1e-4, 1e-1]}}, "trials": 4}
    document = made({**RUN, "search": search}, priority=7)
    assert document["priority"] == 7
    assert spec.load(document).search is None


def test_what_a_proof_is_of_is_the_run_files_and_the_champions() -> None:
    profile = {"label": {"values": {"0": 4, "1": 5, "2": 1}}, "predictions": {"rows": 85}}

    def of(**changed: Any) -> Proof | None:
        return proof_of(spec.dump(spec.load({**RUN, **changed})), profile)

    assert of() == Proof(100, 0.15, 1, 85)
    stratified = {**RUN["data"], "split_by": {"stratify": "late"}, "split": [0.8, 0.2, 0.0]}
    promote = {"minimum": 20, "reference_loss": None}
    assert of(data=stratified, monitor={"promote": promote}) == Proof(20, 0.2, 3, None)
    assert proof_of(spec.dump(spec.load(RUN)), {}) == Proof(100, 0.15), "nothing is known of the champion"
    assert of(recipe=None, entrypoint="flights.training:task") is None, "its own code splits"


@pytest.mark.parametrize(
    ("data", "profile", "label"),
    [
        ({"label": "late"}, {"label": {"name": "other"}}, "late"),
        ({}, {"label": {"name": "target"}}, "target"),
        ({}, {}, "label"),
    ],
)
def test_the_label_is_the_run_files_or_that_of_its_data(
    data: dict[str, Any], profile: dict[str, Any], label: str
) -> None:
    assert label_of({"data": data}, profile) == label
