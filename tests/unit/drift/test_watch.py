"""A version under watch: what is judged of live batches, whatever they are like."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from orchestrator.core.retraining import Cause, Trigger
from orchestrator.drift.batches import Batch
from orchestrator.drift.reference import CONFIDENCE, PREDICTION
from orchestrator.drift.sketches import REFERENCE_K, TableSummary
from orchestrator.drift.verdicts import Policy
from orchestrator.drift.watch import LEARNED_ROWS, Judged, Reference, Rules, Watch
from orchestrator.drift.watch_state import newest_window, restored, saved
from orchestrator.drift.windows import Cut
from tests.unit.drift.streams import START, batch, columns, labels_of, reference

COUNTED = Rules(Cut("count", 500))
HOURLY = Rules(Cut("time", length_s=3600.0, late_s=60.0))
LATER = START + 1e6  # received after all times in the batches

REFERENCE = reference()


def watch(rules: Rules = COUNTED, known: Reference = REFERENCE) -> Watch:
    return Watch.begin(known, rules, START)


def feed(watched: Watch, *batches: Batch) -> list[Judged]:
    return [each for one in batches for each in watched.rows(one, LATER, LATER)]


def statuses(judged: list[Judged]) -> list[str]:
    return [each.judgement.status for each in judged]


def triggers(judged: list[Judged]) -> list[Trigger]:
    return [each for one in judged for each in one.triggers]


def drop_answers(read: Batch) -> Batch:
    return replace(read, columns={name: each for name, each in read.columns.items() if not name.startswith("(")})


@pytest.mark.parametrize("rules", [COUNTED, Rules(Cut("adaptive", 500)), Rules(Cut("time", length_s=500.0))])
def test_what_stands_still_is_stable_constant_and_empty_features_among_it(rules: Rules) -> None:
    watched = watch(rules)
    judged = feed(watched, *(batch(500, seed, labelled=True, at=START + 500 * seed) for seed in range(20)))
    assert set(statuses(judged)) == {"stable"}
    assert len(judged) >= 19
    assert triggers(judged) == []
    assert watched.counts.labels == 10_000


def test_a_moved_feature_is_one_event_until_it_is_over() -> None:
    quiet, moved = ({"shift": 0.0}, {"shift": 1.0})
    parts = [quiet, quiet, moved, moved, moved, quiet, quiet, moved, moved]
    judged = feed(watch(), *(batch(500, seed, at=START + 500 * seed, **part) for seed, part in enumerate(parts)))
    assert statuses(judged) == [
        "stable", "stable", "suspected", "drift", "drift", "stable", "stable", "suspected", "drift",
    ]  # fmt: skip
    told = triggers(judged)
    assert {each.cause for each in told} == {Cause.DRIFT}
    assert [each.key for each in told] == [f"drift/v1/{START + 1000:.0f}"] * 2 + [f"drift/v1/{START + 3500:.0f}"]
    assert told[0].severity == 3
    assert "height: median" in told[0].words
    assert (told[0].broken_data, told[0].version) == (False, 1)


def test_a_model_that_errs_more_often_is_told_of_by_its_labels_with_features_unmoved() -> None:
    judged = feed(watch(), *(batch(500, seed, labelled=True, wrong=0.2 if seed > 3 else 0.0) for seed in range(8)))
    told = triggers(judged)
    assert {each.cause for each in told} == {Cause.PERFORMANCE}
    assert len({each.key for each in told}) == 1
    assert any("the error rate rose from" in each.judgement.words for each in judged)
    assert "performance: error rate 0." in judged[-1].judgement.words
    told = judged[-1].judgement.evidence["performance"]
    assert (told["labels"], told["error_rate"]) == (500, pytest.approx(0.3, abs=0.06))


def test_labels_that_come_later_are_joined_by_request_whatever_their_order() -> None:
    watched = watch()
    early = labels_of(500, 1)
    assert watched.labels(early, LATER, LATER) == []
    assert watched.joining.unknown == 500
    feed(watched, batch(500, 0), batch(500, 1))
    watched.labels(labels_of(500, 0), LATER, LATER)
    watched.labels(labels_of(300, 77), LATER, LATER)
    assert (watched.counts.labels, watched.joining.unknown) == (1000, 300)
    rate = watched.outcomes[0] / watched.outcomes[1]
    assert rate == pytest.approx(0.1, abs=0.04)


def test_labels_with_their_answers_beside_them_need_no_joining() -> None:
    watched = watch()
    made = columns(200, 5)
    told = Batch(200, {PREDICTION: made[PREDICTION]}, np.full(200, START), None, made["(label)"])
    watched.labels(told, LATER, LATER)
    assert (watched.counts.labels, watched.counts.rows) == (200, 0)


def test_a_fallen_confidence_is_an_estimated_loss_of_performance_before_any_label_comes() -> None:
    judged = feed(watch(), *(batch(500, seed, doubt=0.2 if seed > 1 else 0.0) for seed in range(5)))
    assert statuses(judged)[:2] == ["stable", "stable"]
    assert "estimated performance: accuracy 0." in judged[-1].judgement.words
    accuracy = [each.judgement.evidence["performance"]["estimated_accuracy"] for each in judged]
    assert accuracy[0] == pytest.approx(0.9, abs=0.02)
    assert accuracy[-1] < 0.8
    assert Cause.PERFORMANCE in {each.cause for each in triggers(judged)}


def test_without_a_calibration_the_first_labelled_rows_stand_for_it() -> None:
    watched = watch(known=reference(calibrated=False))
    feed(watched, *(batch(500, seed, labelled=True) for seed in range(3)))
    assert int(watched.learned.labelled.sum()) == LEARNED_ROWS
    judged = feed(watched, *(batch(500, seed, labelled=True, wrong=0.3) for seed in range(10, 13)))
    assert Cause.PERFORMANCE in {each.cause for each in triggers(judged)}


def test_a_watch_that_is_made_from_its_state_goes_on_as_it_would_have() -> None:
    parts = [batch(700, seed, labelled=seed % 2 == 0, shift=0.8 if seed > 3 else 0.0) for seed in range(8)]
    whole, broken = watch(), watch()
    expected, found = feed(whole, *parts), []
    for part in parts:
        found += feed(broken, part)
        broken = restored(json.loads(json.dumps(saved(broken))), REFERENCE, COUNTED)
    assert statuses(found) == statuses(expected)
    assert [each.judgement.rows for each in found] == [each.judgement.rows for each in expected]
    assert triggers(found)[0].key == triggers(expected)[0].key
    assert (broken.counts, broken.outcomes) == (whole.counts, whole.outcomes)
    window = newest_window(saved(broken))
    assert window is not None
    assert window.rows == 500


def test_texts_where_numbers_were_are_a_data_fault_at_once() -> None:
    odd = batch(500, 1)
    texts = {**odd.columns, "height": ["tall"] * 500}
    judged = feed(watch(), batch(500, 0), replace(odd, columns=texts))
    assert statuses(judged) == ["stable", "data_fault"]
    assert "height was a number and is a category now" in judged[1].judgement.words
    assert triggers(judged)[0].broken_data


def test_replicas_that_send_one_column_as_numbers_and_as_texts_stop_nothing() -> None:
    watched = watch()
    odd = batch(100, 1)
    mixed = [batch(400, 0), replace(odd, columns={**odd.columns, "height": ["tall"] * 100})]
    judged = feed(watched, *mixed)
    judged += feed(watched, batch(400, 2), replace(mixed[1]))
    assert watched.counts.wrong_kind == 200
    assert statuses(judged)[-1] == "data_fault"
    assert "height: missing in 20.0% of the rows" in judged[-1].judgement.words


def test_a_column_that_went_is_a_data_fault_and_a_new_one_is_only_told() -> None:
    gone, more = batch(500, 0), batch(500, 1)
    judged = feed(
        watch(),
        replace(gone, columns={name: each for name, each in gone.columns.items() if name != "weight"}),
    )
    assert statuses(judged) == ["data_fault"]
    judged = feed(watch(), replace(more, columns={**more.columns, "extra": np.zeros(500)}))
    assert statuses(judged) == ["stable"]
    assert [each["feature"] for each in judged[0].judgement.evidence["findings"]] == ["extra"]


def test_a_column_that_is_mostly_missing_may_be_missing_from_a_window_altogether() -> None:
    rare = TableSummary(k=REFERENCE_K)
    values = np.full(5_000, np.nan)
    values[::200] = 1.0
    rare.update({**columns(5_000, 99), "rare": values})
    del rare.columns["(label)"]
    judged = feed(watch(known=Reference(1, rare)), *(batch(500, seed) for seed in range(3)))
    assert set(statuses(judged)) == {"stable"}


def test_a_poisoned_window_is_broken_data_and_no_reason_to_learn_from_it() -> None:
    def poisoned(seed: int) -> Batch:
        made = batch(500, seed)
        made.columns["height"][:5] = 1e9  # type: ignore[index]
        return made

    judged = feed(watch(), batch(500, 0), poisoned(1), poisoned(2))
    assert statuses(judged) == ["stable", "suspected", "data_fault"]
    (told,) = triggers(judged)
    assert told.broken_data
    assert "beyond the reference's range" in told.words


def test_answers_that_are_not_sent_are_not_missed() -> None:
    judged = feed(watch(), *(drop_answers(batch(500, seed)) for seed in range(3)))
    assert set(statuses(judged)) == {"stable"}


def test_of_a_reference_without_features_only_the_answers_are_watched() -> None:
    ours = {name: each for name, each in REFERENCE.table.columns.items() if name.startswith("(")}
    known = replace(REFERENCE, table=replace(REFERENCE.table, columns=ours))
    judged = feed(watch(known=known), *(batch(500, seed, shift=3.0) for seed in range(3)))
    assert set(statuses(judged)) == {"stable"}
    assert {each["feature"] for each in judged[0].judgement.evidence["features"]} == {PREDICTION, CONFIDENCE}


def test_only_the_features_that_were_named_are_watched() -> None:
    named = {name: each for name, each in REFERENCE.table.columns.items() if name in ("weight", PREDICTION)}
    known = replace(REFERENCE, table=replace(REFERENCE.table, columns=named))
    rules = replace(COUNTED, features=frozenset({"weight"}))
    judged = feed(watch(rules, known), *(batch(500, seed, shift=3.0) for seed in range(3)))
    assert set(statuses(judged)) == {"stable"}


def test_nothing_heard_for_a_window_length_is_blindness_told_once_each_time() -> None:
    watched = watch(Rules(Cut("count", 500, length_s=60.0)))
    assert watched.silent(START, START + 50) == []
    (told,) = watched.silent(START, START + 61)
    assert told.judgement.status == "blind"
    assert told.judgement.words.startswith("blind: no rows between")
    assert watched.silent(START, START + 3600) == []
    watched.rows(batch(10, 0), START + 4000, START + 4000)
    assert watched.silent(START, START + 4050) == []
    assert statuses(watched.silent(START, START + 4061)) == ["blind"]


def test_a_server_that_was_away_is_not_blind_before_anybody_could_have_spoken() -> None:
    watched = watch(Rules(Cut("count", 500, length_s=60.0)))
    assert watched.silent(START + 10_000, START + 10_050) == []


def test_rows_of_which_nothing_is_watched_do_not_end_blindness() -> None:
    named = replace(REFERENCE, table=replace(REFERENCE.table, columns={"weight": REFERENCE.table.columns["weight"]}))
    rules = Rules(Cut("count", 500, length_s=60.0), features=frozenset({"weight"}))
    watched = watch(rules, named)
    made = Batch(5, {"height": np.zeros(5)}, START + np.arange(5))
    watched.rows(made, START + 100, START + 100)
    assert statuses(watched.silent(START, START + 101)) == ["blind"]


def test_windows_by_time_take_rows_out_of_order_and_end_without_another_row() -> None:
    watched = watch(HOURLY)
    hour = 3600.0 * (START // 3600 + 1)
    rows = batch(600, 0, at=hour)
    shuffled = np.random.default_rng(0).permutation(600)
    watched.rows(replace(rows, times=rows.times[shuffled]), hour + 600, hour + 600)
    assert watched.passed(hour + 3600 + 59) == []
    (judged,) = watched.passed(hour + 3600 + 61)
    assert (judged.judgement.rows, judged.judgement.status) == (600, "stable")
    watched.rows(batch(10, 1, at=hour), hour + 3700, hour + 3700)
    assert watched.windows.late == 10


def test_a_time_in_the_future_ends_no_window() -> None:
    watched = watch(HOURLY)
    hour = 3600.0 * (START // 3600 + 1)
    odd = batch(300, 0, at=hour)
    odd.times[7] = hour + 1e9
    assert watched.rows(odd, hour + 400, hour + 400) == []
    assert watched.rows(batch(300, 1, at=hour + 400), hour + 800, hour + 800) == []
    assert watched.windows.late == 0


def test_a_window_with_too_few_rows_is_not_judged_and_spends_nothing() -> None:
    watched = watch(HOURLY)
    hour = 3600.0 * (START // 3600 + 1)
    watched.rows(batch(50, 0, at=hour), hour + 60, hour + 60)
    assert statuses(watched.passed(hour + 4000)) == ["too_few"]
    assert watched.history.judged == 0


def test_summaries_of_replicas_are_judged_as_their_rows_would_be() -> None:
    watched = watch()

    def summary(seed: int, shift: float) -> TableSummary:
        made = columns(250, seed, shift=shift)
        del made["(label)"]
        table = TableSummary()
        table.update(made)
        return table

    judged = []
    for seed in range(12):
        judged += watched.sketch(summary(seed, 1.0 if seed >= 6 else 0.0), START + seed, START + seed)
    assert statuses(judged) == ["stable", "stable", "stable", "suspected", "drift", "drift"]
    assert watched.counts.rows == 3000


def test_classes_are_the_same_as_whole_numbers_and_as_texts() -> None:
    table = TableSummary(k=REFERENCE_K)
    table.update({PREDICTION: ["3", "4"] * 500})
    watched = watch(known=Reference(1, table))
    whole = np.array([3.0, 4.0] * 250)
    made = Batch(500, {PREDICTION: whole}, START + np.arange(500), None, ["3", "4"] * 250)
    (judged,) = watched.rows(made, LATER, LATER)
    assert judged.judgement.status == "stable"
    assert watched.learned.right.sum() == watched.learned.labelled.sum() == 500


def test_a_regression_is_watched_by_its_losses() -> None:
    generator = np.random.default_rng(3)
    table = TableSummary(k=REFERENCE_K)
    table.update({"x": generator.normal(size=3000)})
    watched = watch(known=Reference(1, table, deviation=2.0))

    def part(bias: float) -> Batch:
        truth = generator.normal(scale=2.0, size=500)
        answers = truth + generator.normal(scale=0.2, size=500) + bias
        return Batch(500, {"x": generator.normal(size=500), PREDICTION: answers}, START + np.arange(500), None, truth)

    quiet = feed(watched, *(part(0.0) for _ in range(6)))
    assert triggers(quiet) == []
    assert Cause.PERFORMANCE in {each.cause for each in triggers(feed(watched, *(part(1.5) for _ in range(3))))}


def test_adaptive_windows_grow_with_what_waits_and_shrink_again() -> None:
    watched = watch(Rules(Cut("adaptive", 500)))
    watched.expect(100_000)
    judged = feed(watched, *(batch(1000, seed) for seed in range(4)))
    watched.expect(1000)
    judged += feed(watched, batch(1000, 9))
    assert [each.judgement.rows for each in judged] == [2000, 2000, 500, 500]
    assert set(statuses(judged)) == {"stable"}


def test_a_window_that_is_open_while_what_waits_shrinks_unevenly_ends_and_no_row_counts_twice() -> None:
    watched = watch(Rules(Cut("adaptive", 500)))
    judged, fed = [], 60
    for seed in range(fed):
        watched.expect((fed - seed) * 1000 if seed % 7 else (fed - seed) * 1700)
        judged += feed(watched, batch(1000, seed, at=START + 1000 * seed))
    still_open = sum(each.rows for each in watched.windows.open.values())
    assert sum(each.judgement.rows for each in judged) + still_open == 1000 * fed
    assert watched.windows.open.keys() <= {0}
    ends = [(each.judgement.start, each.judgement.end) for each in judged]
    assert all(before[1] < after[0] for before, after in pairwise(ends))


def test_one_rise_of_the_errors_is_told_once() -> None:
    alone = Rules(Cut("count", 100_000), Policy())
    judged = feed(
        watch(alone), *(batch(500, seed, labelled=True, wrong=0.2 if seed > 3 else 0.0) for seed in range(12))
    )
    assert len(judged) == 1
