"""Expected time and cost from what earlier runs took."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.core.ledger import Ledger, TimeClass
from orchestrator.core.money import NO_PRICES, Prices
from orchestrator.core.scheduling.fit import GangShape
from orchestrator.planning.outlook import Outlook, Past, measured, outlook, past_of
from orchestrator.spec import dump, load
from tests.builders import attempt_ended, hear, placed_run, queued_run
from trainers.layout import Layout

SHAPE = GangShape(workers=2)
PRICES = Prices(cpu_hour=36.0, currency="EUR")


def spec(**changes: Any) -> dict[str, Any]:
    document = {"name": "digits", "recipe": "digits_cnn", "train": {"epochs": 2, "global_batch": 64}}
    return dump(load({**document, "resources": {"workers": 2}, **changes}))


def past(number: int = 1, *, steps: int = 100, step_s: float = 0.1, beside: float = 1.0, **changes: Any) -> Past:
    document = spec(**changes)
    training = steps * step_s * document["resources"]["workers"]
    return Past(f"run-{number}", document, steps, training, training * (1 + beside), whole=True)


def expected(pasts: list[Past], now: dict[str, Any] | None = None, **changes: Any) -> Outlook:
    values: dict[str, Any] = {"examples": 1280, "shape": SHAPE, "prices": PRICES, **changes}
    found = outlook(now or spec(), pasts, **values)
    assert found is not None
    return found


def test_the_same_run_takes_as_long_again() -> None:
    found = expected([past()])
    assert found.step_s == pytest.approx(0.1)
    assert found.steps == 2 * (1280 // 64)
    assert found.duration_s == pytest.approx(40 * 0.1 * 2)  # as much beside training as then
    assert found.cost is not None
    assert found.cost.amount == pytest.approx(8 * 2 * 36 / 3600)
    assert found.cost.currency == "EUR"
    assert found.based_on == ("run-1",)
    assert found.words == "as 1 earlier run with the same workers, batch and layout took"


def test_one_that_was_slow_does_not_count_for_all() -> None:
    pasts = [past(1, step_s=0.1), past(2, step_s=9.0), past(3, step_s=0.2)]
    assert expected(pasts).step_s == pytest.approx(0.2)


def test_another_size_is_scaled_and_said_to_be_at_best() -> None:
    now = spec(resources={"workers": 4}, train={"epochs": 2, "global_batch": 256})
    found = expected([past()], now, shape=GangShape(workers=4))
    assert found.step_s == pytest.approx(0.2)  # 64 samples a rank in place of 32
    assert found.words.startswith(
        "at best: scaled by the samples of a rank from 1 earlier run (2 workers with batch 64)"
    )


def test_an_exact_match_beats_a_newer_one_of_another_size() -> None:
    pasts = [past(1, step_s=5.0, resources={"workers": 1}), past(2)]
    assert expected(pasts).based_on == ("run-2",)


@pytest.mark.parametrize(
    "other",
    [
        {"recipe": "text_transformer"},
        {"model": {"width": 64}},
        {"resources": {"workers": 2, "gpu": "H100:1"}},
        {"resources": {"workers": 2, "cpu": 4}},
        {"train": {"epochs": 2, "global_batch": 64, "precision": "bf16"}},
    ],
)
def test_what_computes_something_else_is_no_evidence(other: dict[str, Any]) -> None:
    assert outlook(spec(), [past(**other)], examples=1280, shape=SHAPE, prices=PRICES) is None


def test_the_length_of_an_epoch_is_learned_from_a_run_that_went_through_them() -> None:
    assert expected([past(steps=60)], examples=None).steps == 2 * 30
    cut_short = replace(past(steps=60), whole=False)
    unknown = expected([cut_short], examples=None)
    assert (unknown.steps, unknown.duration_s, unknown.cost) == (None, None, None)
    other_data = past(steps=60, data={"source": "/data/faces.npz"})
    assert expected([other_data], examples=None).steps is None


def test_steps_end_a_run_before_its_epochs_do() -> None:
    train = {"epochs": 2, "steps": 7, "global_batch": 64}
    assert expected([past()], spec(train=train)).steps == 7
    assert expected([past()], spec(train={"steps": 70, "global_batch": 64})).steps == 70


def test_without_prices_there_is_no_cost() -> None:
    assert expected([past()], prices=NO_PRICES).cost is None


def test_steps_are_measured_by_layout_of_runs_with_the_same_workers_and_batch() -> None:
    pasts = [
        past(1, step_s=0.1, parallelism={"zero": 1}),
        past(2, step_s=0.4, parallelism={"zero": 2}),
        past(3, step_s=0.3, parallelism={"zero": 1}),
        past(4, step_s=9.0, resources={"workers": 1}),
        past(5, step_s=9.0, train={"epochs": 2, "global_batch": 128}),
        past(6, step_s=9.0, model={"width": 64}),
        past(7, step_s=9.0, parallelism={"zero": 2, "offload": "cpu"}),
    ]
    found = measured(spec(parallelism="auto"), pasts)
    assert found.keys() == {Layout(workers=2, zero=1), Layout(workers=2, zero=2)}
    assert found[Layout(workers=2, zero=1)].step_s == pytest.approx(0.2)
    assert found[Layout(workers=2, zero=1)].runs == ("run-1", "run-3")
    assert found[Layout(workers=2, zero=2)].step_s == pytest.approx(0.4)


def test_a_run_is_evidence_once_it_trained() -> None:
    assert past_of(queued_run()) is None
    worked = Ledger({TimeClass.TRAINING: 4 * 10**9, TimeClass.STARTING: 10**9, TimeClass.RECOMPUTING: 10**9})
    run = hear(placed_run(), attempt_ended("succeeded", ledger=worked))
    run = replace(run, spec=copy.deepcopy(spec()))
    found = past_of(run)
    assert found is not None
    assert found.step_s == pytest.approx(4 / 2 / 10)
    assert found.paid_worker_s == pytest.approx(6)
    assert found.whole
