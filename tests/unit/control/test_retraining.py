"""From a trigger to a champion: each decision kept with its reason, each retraining one run."""

from __future__ import annotations

import datetime
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from orchestrator.adapters.memory_observations import MemoryObservationStore
from orchestrator.control.sweeps import StartTrial, Sweeps
from orchestrator.control.wakeups import LocalWakeups
from orchestrator.core.decisions import Standing
from orchestrator.core.money import Prices
from orchestrator.core.records import RunFilter
from orchestrator.core.retraining import Action, Because, Cause, Trigger
from orchestrator.core.runs import Failure, FailureKind, Result, Run
from orchestrator.errors import NotFound, Refused, StorageFailed
from tests.unit.control.retraining_victim import MOMENTS, restarted
from tests.unit.control.watched import DATA, RETRAIN, RUN, Watching
from tests.unit.drift.test_proving import fact, part, right

ROOT = Path(__file__).parents[3]
DAY = 86_400.0


def proof(challenger: float, champion: float) -> dict[str, Any]:
    """Against version 1, of two that are right so often."""
    return fact(part(right(500, champion, 7), right(500, challenger, 7)), champion=1)


@pytest.fixture
async def watching(tmp_path: Path) -> Watching:
    made = Watching(tmp_path)
    await made.begin()
    made.serve(1)
    return made


async def test_drift_becomes_one_run_of_the_monitored_file_on_what_was_seen_live(watching: Watching) -> None:
    record = watching.drift()
    assert (record.standing, record.decision.action) == (Standing.ACCEPTED, Action.RETRAIN)
    watching.passes()
    run = watching.run_of(record)
    assert run.name == "flights"
    assert run.spec["init_from"]["model"] == "flights@1"
    assert run.spec["data"]["label"] == "late"
    assert run.spec["proof"]["champion"] == 1
    table = pq.read_table(Path(run.spec["data"]["source"], "rows.parquet"))
    assert (table.num_rows, table.column_names) == (8, ["distance", "late"])
    told = watching.now(record)
    assert told.standing is Standing.TRAINING
    assert (told.data["rows"], told.data["batches"]) == (8, [1, 1])


async def test_the_same_trigger_told_again_is_the_same_decision_and_run(watching: Watching) -> None:
    record = watching.drift()
    watching.passes()
    assert watching.drift().number == record.number
    other = watching.drift("drift/v1/950")
    assert (other.standing, other.decision.because) == (Standing.CLOSED, Because.IN_PROGRESS)
    watching.passes()
    assert len(watching.plane.board.queue(10)) == 1


async def test_what_is_not_done_is_kept_with_its_reason(watching: Watching) -> None:
    mild = watching.drift(severity=0)
    assert mild.decision.because is Because.TOO_MILD
    assert watching.store.decisions("default", "flights") == [mild]
    assert watching.drift(severity=0) == mild, "once"


async def test_too_little_data_waits_until_there_is_enough(tmp_path: Path) -> None:
    watching = Watching(tmp_path)
    await watching.begin({"minimum_rows": 10})
    watching.serve(1)
    waiting = watching.drift()
    assert (waiting.standing, waiting.decision.because) == (Standing.WAITING, Because.TOO_LITTLE_DATA)
    watching.passes()
    assert watching.now(waiting) == waiting, "nothing is new, and nothing is written"
    watching.serve(2)
    watching.passes()
    (record,) = watching.store.decisions("default", "flights")
    assert (record.number, record.standing) == (waiting.number, Standing.TRAINING)
    assert record.told[:2] == (waiting.decision.words, "retrains: drift (major): distance")


async def test_what_waits_goes_on_in_its_record_whatever_it_waits_for_in_turn(watching: Watching) -> None:
    first = await trained(watching)
    watching.clock.forward(60)
    watching.serve(2)
    waiting = watching.drift("drift/v1/950")
    assert waiting.decision.because is Because.COOLDOWN
    asked = watching.retraining.retrain("default", "flights", by="ada", reason="", key="k")
    watching.clock.forward(3600)
    watching.passes()
    over = watching.now(waiting)
    assert (over.standing, over.decision.because) == (Standing.CLOSED, Because.IN_PROGRESS)
    await watching.train(watching.run_of(asked))
    watching.passes()
    again = watching.drift("drift/v1/950")
    assert (again.number, again.standing, again.decision.because) == (over.number, Standing.WAITING, Because.COOLDOWN)
    watching.clock.forward(3600)
    watching.serve(3)
    watching.passes()
    assert watching.now(again).standing is Standing.TRAINING
    assert first.standing is Standing.KEPT


async def test_what_was_told_in_a_dry_run_is_done_once_the_mode_allows_it(tmp_path: Path) -> None:
    watching = Watching(tmp_path)
    await watching.begin({"mode": "dry-run"})
    watching.serve(1)
    told = watching.drift()
    settings = {**watching.monitor.settings, "retrain": {**watching.monitor.settings["retrain"], "mode": "auto"}}
    watching.store.put_monitor(replace(watching.monitor, settings=settings))
    done = watching.drift()
    assert (done.number, done.standing) == (told.number, Standing.ACCEPTED)


async def test_what_waits_of_a_version_that_serves_no_longer_is_closed(tmp_path: Path) -> None:
    watching = Watching(tmp_path)
    await watching.begin({"minimum_rows": 10})
    watching.serve(1)
    trigger = Trigger(Cause.DRIFT, "drift/v1/900", watching.clock.now(), "drift (major): distance", 3, version=1)
    waiting = watching.retraining.triggered(watching.monitor, trigger)
    await watching.train(watching.plane.submit("flights", recipe="tabular"))
    watching.store.move_alias("default", "flights", "champion", 2, at=1.0, by="ada", reason="by hand")
    watching.passes()
    assert watching.now(waiting).standing is Standing.CLOSED
    assert watching.now(waiting).told[-1] == "it was seen of version 1, and version 2 serves by now"


async def test_what_has_changed_is_learned_from_what_came_since_and_needs_enough_of_that(tmp_path: Path) -> None:
    watching = Watching(tmp_path)
    await watching.begin({"minimum_rows": 10})
    for seq in range(1, 5):
        watching.serve(seq)
    watching.clock.forward(60)
    waiting = watching.drift()
    assert waiting.decision.because is Because.TOO_LITTLE_DATA, "32 rows are of the world of before"
    watching.clock.forward(1)
    watching.serve(5)
    watching.serve(6)
    watching.passes()
    record = watching.store.decisions("default", "flights")[0]
    assert (record.data["rows"], record.data["batches"]) == (16, [5, 6])


async def test_the_newest_rows_are_learned_from_where_the_run_file_says_how_many(tmp_path: Path) -> None:
    watching = Watching(tmp_path)
    await watching.begin({"newest_rows": 20})
    for seq in range(1, 6):
        watching.serve(seq)
    watching.keep(9, "labels", 4, 1, **{"(request)": list("abcd"), "(label)": [0, 1, 0, 1]})
    record = watching.retraining.retrain("default", "flights", by="ada", reason="", key="1")
    watching.passes()
    data = watching.now(record).data
    assert (data["rows"], data["batches"]) == (24, [3, 5]), "whole batches that hold 20 rows, of which labels are none"


async def test_a_person_approves_what_asks_and_the_data_are_those_of_then(tmp_path: Path) -> None:
    watching = Watching(tmp_path)
    await watching.begin({"mode": "approve"})
    watching.serve(1)
    asked = watching.drift()
    assert asked.standing is Standing.ASKED
    watching.passes()
    assert watching.plane.board.queue(10) == []
    watching.serve(2)
    approved = watching.retraining.approve("default", "flights", asked.number, by="ada")
    assert watching.retraining.approve("default", "flights", asked.number, by="bob") == approved
    watching.passes()
    assert watching.now(asked).data["rows"] == 16
    assert watching.now(asked).by == "ada"
    with pytest.raises(Refused, match="training"):
        watching.retraining.reject("default", "flights", asked.number, by="bob", reason="")


async def test_what_a_person_rejects_is_not_asked_again_and_another_trigger_is(tmp_path: Path) -> None:
    watching = Watching(tmp_path)
    await watching.begin({"mode": "approve"})
    watching.serve(1)
    asked = watching.drift()
    rejected = watching.retraining.reject("default", "flights", asked.number, by="ada", reason="a holiday")
    assert rejected.told[-1] == "rejected by ada: a holiday"
    watching.clock.forward(60)
    assert watching.drift() == rejected
    watching.serve(2)
    assert watching.drift("drift/v1/950").standing is Standing.ASKED
    with pytest.raises(NotFound):
        watching.retraining.approve("default", "flights", 99, by="ada")


async def test_a_dry_run_tells_and_does_nothing(tmp_path: Path) -> None:
    watching = Watching(tmp_path)
    await watching.begin({"mode": "dry-run"})
    watching.serve(1)
    told = watching.drift()
    assert (told.standing, told.decision.action) == (Standing.CLOSED, Action.TELL)
    watching.passes()
    assert watching.plane.board.queue(10) == []


async def test_a_person_may_ask_at_any_time_and_once_for_each_key(watching: Watching) -> None:
    asked = watching.retraining.retrain("default", "flights", by="ada", reason="new sensors", key="k")
    assert asked.trigger.words == "ada asked for it: new sensors"
    assert watching.retraining.retrain("default", "flights", by="ada", reason="new sensors", key="k") == asked
    watching.passes()
    await watching.train(watching.run_of(asked))
    watching.passes()
    watching.clock.forward(60)
    again = watching.retraining.retrain("default", "flights", by="ada", reason="new sensors", key="k")
    assert (again.number, again.standing) == (asked.number, Standing.KEPT), "also once it is over"
    with pytest.raises(NotFound):
        watching.retraining.retrain("default", "nobody", by="ada", reason="", key="k")


async def test_an_alert_retrains_the_models_that_name_it_and_a_storm_is_one_occasion(tmp_path: Path) -> None:
    watching = Watching(tmp_path)
    await watching.begin({"triggers": [{"alert": "ModelErrorHigh"}]})
    watching.serve(1)
    assert watching.retraining.alert("DiskFull", {}, 1000.0) == []
    assert watching.retraining.alert("ModelErrorHigh", {"model": "other"}, 1000.0) == []
    storm = [
        watching.retraining.alert("ModelErrorHigh", {"instance": f"host-{each}"}, 1000.0 + each) for each in range(50)
    ]
    assert {each.number for (each,) in storm} == {1}
    watching.passes()
    assert watching.now(storm[0][0]).standing is Standing.TRAINING


async def test_the_schedule_and_the_amount_of_data_ask_by_themselves(tmp_path: Path) -> None:
    watching = Watching(tmp_path)
    await watching.begin({"triggers": [{"cron": "0 3 * * *"}, {"rows": 12}], "cooldown": "1m"})
    watching.serve(1)
    watching.passes()
    assert watching.store.decisions("default", "flights") == []
    watching.serve(2)
    watching.passes()
    (by_rows,) = watching.store.decisions("default", "flights")
    assert by_rows.decision.words == "retrains: 16 new rows, 12 were asked for"
    await watching.train(watching.run_of(by_rows))
    watching.passes()
    at_three = datetime.datetime(1970, 1, 1, 3, 0, 1, tzinfo=datetime.UTC).timestamp()
    watching.clock.forward(at_three - watching.clock.now())
    watching.serve(3)
    watching.passes()
    newest = watching.store.decisions("default", "flights")[0]
    assert "scheduled for 1970-01-01 03:00" in newest.decision.words
    assert newest.standing is Standing.TRAINING
    watching.passes()
    assert len(watching.store.decisions("default", "flights")) == 2


@pytest.mark.parametrize(("profile", "kind"), [({"label": {"deviation": 2.0}}, "double"), ({}, "int64")])
async def test_whole_numbers_are_classes_only_of_a_model_that_tells_classes_apart(
    watching: Watching, profile: dict[str, Any], kind: str
) -> None:
    watching.store.put_fact("default", "flights", 1, "profile", profile)
    watching.serve(2, **{"(label)": [1.0, 2.0] * 4})
    record = watching.drift()
    watching.passes()
    rows = pq.read_table(Path(watching.run_of(record).spec["data"]["source"], "rows.parquet"))
    assert str(rows.schema.field("late").type) == kind


async def test_rows_after_a_journal_that_was_lost_are_new(tmp_path: Path) -> None:
    watching = Watching(tmp_path)
    await watching.begin({"triggers": [{"rows": 12}], "cooldown": "1m"})
    for seq in range(1, 6):
        watching.serve(seq)
    watching.clock.forward(DAY)
    watching.passes()
    (first,) = watching.store.decisions("default", "flights")
    await watching.train(watching.run_of(first))
    watching.passes()
    watching.clock.forward(DAY)
    empty = Watching(tmp_path, watching.store, MemoryObservationStore(), watching.clock)
    for seq in range(6, 8):
        empty.serve(seq)
    empty.passes()
    assert empty.store.decisions("default", "flights")[0].decision.words == "retrains: 16 new rows, 12 were asked for"


@pytest.mark.parametrize(("mode", "standing"), [("approve", Standing.REJECTED), ("dry-run", Standing.CLOSED)])
async def test_a_scheduled_retraining_that_was_rejected_or_only_told_does_not_end_the_schedule(
    tmp_path: Path, mode: str, standing: Standing
) -> None:
    watching = Watching(tmp_path)
    await watching.begin({"triggers": [{"cron": "0 3 * * *"}], "mode": mode})
    watching.serve(1)
    for day in (1, 2, 3):
        watching.clock.forward(DAY)
        watching.passes()
        newest = watching.store.decisions("default", "flights")[0]
        if newest.standing is Standing.ASKED:
            watching.retraining.reject("default", "flights", newest.number, by="ada", reason="not today")
            watching.passes()
        assert (newest.number, watching.now(newest).standing) == (day, standing)


async def test_rows_whose_retraining_was_rejected_ask_again_when_they_have_doubled(tmp_path: Path) -> None:
    watching = Watching(tmp_path)
    await watching.begin({"triggers": [{"rows": 8}], "mode": "approve"})
    asked = []
    for seq in range(1, 5):  # 8, 16, 24 and 32 rows
        watching.serve(seq)
        watching.clock.forward(60)
        watching.passes()
        for each in watching.store.decisions("default", "flights"):
            if each.standing is Standing.ASKED:
                asked.append(seq)
                watching.retraining.reject("default", "flights", each.number, by="ada", reason="not yet")
    assert asked == [1, 2, 4]


async def test_rows_of_before_the_change_that_come_late_are_not_learned(watching: Watching) -> None:
    watching.clock.forward(60)
    changed_at = watching.clock.now()
    watching.clock.forward(60)
    watching.serve(2, **{"(time)": [changed_at - 1] * 4 + [changed_at + 1] * 4})
    trigger = Trigger(Cause.DRIFT, "drift/v1/950", changed_at, "drift (major): distance", 3)
    record = watching.retraining.triggered(watching.monitor, trigger)
    watching.passes()
    assert (watching.now(record).data["rows"], watching.now(record).data["batches"]) == (4, [2, 2])


async def test_a_monitor_that_cannot_be_read_keeps_no_other_from_its_retraining(
    watching: Watching, caplog: pytest.LogCaptureFixture
) -> None:
    record = watching.drift()
    later = {"retrain": {"mode": "of later days"}}
    watching.store.put_monitor(replace(watching.monitor, model="aaa", settings=later, revision=0))
    watching.passes()
    assert watching.now(record).standing is Standing.TRAINING
    assert watching.retraining.alert("ModelErrorHigh", {}, 1000.0) == []
    (said,) = [each.getMessage() for each in caplog.records if "aaa" in each.getMessage()]
    assert "monitor.retrain.mode" in said


async def test_a_journal_that_cannot_be_read_keeps_no_other_from_its_retraining(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    watching = Watching(tmp_path)
    await watching.begin({"triggers": [{"drift": "minor"}, {"rows": 100}]})
    watching.serve(1)
    record = watching.drift()

    def unreadable(*args: Any, **kwargs: Any) -> int:
        raise StorageFailed("the journal of flights cannot be read")

    monkeypatch.setattr(watching.observations, "rows", unreadable)
    watching.passes()
    assert watching.now(record).standing is Standing.TRAINING
    assert caplog.text.count("the journal of flights cannot be read") == 1


class Heard(LocalWakeups):
    def __init__(self) -> None:
        super().__init__()
        self.topics: list[str] = []

    def notify(self, topic: str) -> None:
        self.topics.append(topic)


@pytest.mark.parametrize("retrain", [{"minimum_rows": 100}, {"mode": "dry-run"}, {"quiet_hours": ["00:00-00:00"]}])
async def test_what_is_due_and_cannot_be_done_wakes_nobody_again(tmp_path: Path, retrain: dict[str, Any]) -> None:
    watching = Watching(tmp_path)
    await watching.begin({"triggers": [{"cron": "0 3 * * *"}, {"rows": 8}], **retrain})
    watching.serve(1)
    watching.clock.forward(DAY)
    heard = watching.retraining._wakeups = Heard()
    watching.passes()
    told, decided = len(heard.topics), watching.store.decisions("default", "flights")
    assert len(decided) == 2
    watching.passes()
    assert (len(heard.topics), watching.store.decisions("default", "flights")) == (told, decided)


async def test_a_retraining_that_fails_is_told_and_cools_down_before_what_still_drifts_is_tried_again(
    watching: Watching,
) -> None:
    record = watching.drift()
    watching.passes()
    failure = Failure(FailureKind.APPLICATION, "rank 0 failed: nothing to learn")
    await watching.train(watching.run_of(record), "failed", failure=failure)
    watching.passes()
    assert watching.now(record).standing is Standing.FAILED
    assert watching.drift().number == record.number, "told late"
    watching.clock.forward(60)
    watching.serve(2)
    again = watching.drift()
    assert (again.standing, again.decision.because) == (Standing.WAITING, Because.COOLDOWN)
    watching.clock.forward(3600)
    watching.passes()
    newest = watching.store.decisions("default", "flights")[0]
    assert (newest.standing, newest.trigger.key) == (Standing.TRAINING, "drift/v1/900/2")


async def test_rows_without_a_label_are_nothing_to_learn_from(tmp_path: Path) -> None:
    watching = Watching(tmp_path)
    await watching.begin()
    watching.keep(1, "rows", 8, 1, distance=[1.0] * 8)
    record = watching.retraining.retrain("default", "flights", by="ada", reason="", key="k")
    watching.passes()
    assert watching.now(record).standing is Standing.FAILED
    assert "none of 8 observed rows of model flights has a label" in watching.now(record).told[-1]


async def test_the_least_number_of_rows_is_of_those_with_a_label_and_late_ones_are_waited_for(
    watching: Watching,
) -> None:
    requests = [f"r{each}" for each in range(8)]
    watching.clock.forward(60)
    record = watching.drift()  # since then only rows without a label came
    watching.clock.forward(1)
    watching.keep(2, "rows", 8, 1, **{"distance": [1.0] * 8, "(request)": requests})
    watching.passes()
    waiting = watching.now(record)
    assert (waiting.standing, waiting.decision.because) == (Standing.WAITING, Because.TOO_LITTLE_DATA)
    watching.passes()
    assert watching.now(record) == waiting, "not before its time"
    watching.keep(3, "labels", 4, 0, **{"(request)": requests[:4], "(label)": [0, 1, 0, 1]})
    watching.clock.forward(600)
    watching.passes()
    done = watching.now(record)
    assert (done.number, done.standing, done.data["rows"]) == (record.number, Standing.TRAINING, 4)
    assert "none of 8 observed rows of model flights has a label, at least 4 are needed" in done.told[-3]


async def test_what_a_person_let_begin_without_enough_labels_fails_in_words(tmp_path: Path) -> None:
    watching = Watching(tmp_path)
    await watching.begin({"mode": "approve"})
    watching.serve(1, 5, **{"(label)": [0, 1, None, None, None]})
    asked = watching.drift()
    watching.retraining.approve("default", "flights", asked.number, by="ada")
    watching.passes()
    assert watching.now(asked).standing is Standing.FAILED
    assert "only 2 of 5 observed rows of model flights are labelled, at least 4" in watching.now(asked).told[-1]


TABLE: dict[str, Any] = {"recipe": "tabular", "entrypoint": None, "data": DATA | {"split": [0.6, 0.2, 0.2]}}
OF_FEW: dict[str, Any] = {"promote": {"minimum": 20}}  # 100 rows hold 20 out


async def test_what_could_not_be_proven_waits_for_rows_before_anybody_is_asked(tmp_path: Path) -> None:
    watching = Watching(tmp_path)
    await watching.begin({"mode": "approve"}, monitor=OF_FEW, **TABLE)
    watching.serve(1, 60)
    waiting = watching.drift()
    assert (waiting.standing, waiting.decision.because) == (Standing.WAITING, Because.TOO_LITTLE_DATA)
    assert waiting.decision.words == (
        "of 60 rows about 12 would be held out for the proof (data.split), which needs 20 (monitor.promote.minimum): "
        "100 rows are needed"
    )
    watching.passes()
    assert watching.now(waiting) == waiting
    watching.serve(2, 40)
    watching.passes()
    assert watching.now(waiting).standing is Standing.ASKED


async def test_rows_for_the_proof_are_such_with_a_label_before_anything_is_trained(tmp_path: Path) -> None:
    watching = Watching(tmp_path)
    await watching.begin(monitor=OF_FEW, **TABLE)
    watching.serve(1, 100, **{"(label)": [0, 1] * 40 + [None] * 20})
    record = watching.drift()
    watching.passes()
    waiting = watching.now(record)
    assert (waiting.standing, waiting.decision.because) == (Standing.WAITING, Because.TOO_LITTLE_DATA)
    assert "only 80 of 100 observed rows of model flights are labelled, at least 100 are needed" in waiting.told[-1]
    assert "(of so many 20 are held out for the proof)" in waiting.told[-1]
    assert watching.plane.board.queue(10) == []
    watching.serve(2, 20)
    watching.clock.forward(600)
    watching.passes()
    assert watching.now(record).standing is Standing.TRAINING


async def test_who_asks_for_it_is_told_that_nothing_could_be_proven(tmp_path: Path) -> None:
    watching = Watching(tmp_path)
    await watching.begin(monitor=OF_FEW, **TABLE)
    watching.serve(1, 100, **{"(label)": [0, 1] * 30 + [None] * 40})
    asked = watching.retraining.retrain("default", "flights", by="ada", reason="", key="k")
    assert asked.decision.words == "retrains: ada asked for it", "100 rows may yet have labels"
    watching.passes()
    told = watching.now(asked).told[-1]
    assert "on 60 labelled rows; what it makes could only be promoted by hand: of 60 rows about 12" in told
    assert watching.now(asked).standing is Standing.TRAINING


async def test_against_a_champion_of_few_rows_nothing_is_trained_until_its_proof_is_eased(tmp_path: Path) -> None:
    watching = Watching(tmp_path)
    await watching.begin(**TABLE)
    watching.store.put_fact("default", "flights", 1, "profile", {"predictions": {"rows": 85}})
    watching.serve(1, 500)
    refused = watching.drift()
    assert (refused.standing, refused.decision.because) == (Standing.CLOSED, Because.UNPROVABLE)
    eased = watching.plane.submit("flights", **{**RUN, **TABLE}, monitor={"retrain": RETRAIN, **OF_FEW})
    watching.store.put_monitor(replace(watching.monitor, run=eased.id))
    watching.serve(2, 100)
    assert watching.drift().standing is Standing.ACCEPTED


async def test_a_model_of_images_is_not_retrained_on_what_live_ones_look_like(watching: Watching) -> None:
    watching.store.put_fact("default", "flights", 1, "profile", {"looks": ["brightness", "contrast"]})
    for record in (watching.drift(), watching.retraining.retrain("default", "flights", by="ada", reason="", key="k")):
        assert (record.standing, record.decision.because) == (Standing.CLOSED, Because.UNLEARNABLE)
        assert "of live images only what they look like is kept" in record.decision.words
    watching.passes()
    assert watching.plane.board.queue(10) == []


async def test_rows_of_a_retraining_that_failed_were_not_learned(tmp_path: Path) -> None:
    watching = Watching(tmp_path)
    await watching.begin({"cooldown": None, "minimum_rows": 8})
    watching.serve(1)
    record = watching.retraining.retrain("default", "flights", by="ada", reason="", key="k")
    watching.passes()
    await watching.train(watching.run_of(record), "failed", failure=Failure(FailureKind.APPLICATION, "a bad disk"))
    watching.passes()
    assert watching.now(record).standing is Standing.FAILED
    trigger = Trigger(Cause.PERFORMANCE, "performance/v1/1", 0.0, "worse: accuracy")
    assert watching.retraining.triggered(watching.monitor, trigger).standing is Standing.ACCEPTED


async def test_what_nobody_foresaw_ends_one_retraining_in_words(
    watching: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = watching.drift()

    def broken(*args: Any, **kwargs: Any) -> Any:
        raise TypeError("no such thing")

    monkeypatch.setattr(watching.retraining._snapshots, "take", broken)
    watching.passes()
    assert watching.now(record).standing is Standing.FAILED
    assert "TypeError('no such thing')" in watching.now(record).told[-1]


async def test_the_costs_of_earlier_retrainings_are_expected_of_the_next(tmp_path: Path) -> None:
    watching = Watching(tmp_path, prices=Prices(cpu_hour=3600.0))
    run = await watching.begin({"budget": {"cost": "1 USD"}, "cooldown": None})
    assert watching.plane.run(run).terminal
    watching.serve(1)
    first = watching.drift()
    watching.passes()
    assert watching.now(first).standing is Standing.TRAINING, "nothing was spent yet"
    watching.plane.loop.one_pass()
    watching.clock.forward(30)
    await watching.train(watching.run_of(first))
    watching.passes()
    assert watching.now(first).cost > 1
    watching.serve(2)
    second = watching.drift("drift/v1/950")
    assert (second.standing, second.decision.because) == (Standing.WAITING, Because.BUDGET_SPENT)


# ---- what a retraining made ------------------------------------------------------------------------------------------


async def trained(watching: Watching, **facts: Any) -> Any:
    record = watching.drift()
    watching.passes()
    await watching.train(watching.run_of(record), facts=facts)
    watching.passes(1)
    return watching.now(record)


async def test_a_challenger_that_is_proven_becomes_champion_with_its_report(watching: Watching) -> None:
    record = await trained(watching, proof=proof(challenger=0.9, champion=0.6))
    assert record.standing is Standing.PROBATION
    assert (record.version, record.proven.rows > 0) == (2, True)
    (champion,) = [each for each in watching.store.models("default", "flights") if "champion" in each.aliases]
    assert champion.version == 2
    move = watching.store.alias_history("default", "flights", "champion")[0]
    assert (move.by, move.before) == ("retraining", 1)
    fact = watching.store.facts("default", "flights", 2)["retraining"]
    assert (fact["decision"], fact["data"]["rows"], fact["judgement"]["promote"]) == (record.number, 8, True)


async def test_a_challenger_equal_to_the_champion_stays_one(watching: Watching) -> None:
    record = await trained(watching, proof=proof(challenger=0.6, champion=0.6))
    assert record.standing is Standing.KEPT
    assert "there is no gain" in record.told[-1]
    assert watching.store.standing("default", "champion") == {"flights": 1}


async def test_a_challenger_that_was_compared_with_nothing_stays_one(watching: Watching) -> None:
    record = await trained(watching)
    assert record.standing is Standing.KEPT
    assert "nothing is proven" in record.told[-1]


async def test_a_challenger_that_was_overtaken_stays_one(watching: Watching) -> None:
    record = watching.drift()
    watching.passes()
    other = await watching.train(watching.plane.submit("flights", recipe="tabular"))
    watching.store.move_alias("default", "flights", "champion", 2, at=1.0, by="ada", reason="by hand")
    assert other.terminal
    await watching.train(watching.run_of(record), facts={"proof": proof(challenger=0.9, champion=0.6)})
    watching.passes(1)
    assert watching.now(record).standing is Standing.KEPT
    assert watching.store.standing("default", "champion") == {"flights": 2}


async def test_a_champion_that_does_worse_live_is_taken_back(watching: Watching) -> None:
    record = await trained(watching, proof=proof(challenger=0.9, champion=0.6))
    for seq in range(2, 6):
        watching.serve(seq, 100, version=2, **{"(prediction)": ["0"] * 100})
    watching.passes(1)
    taken = watching.now(record)
    assert taken.standing is Standing.ROLLED_BACK, taken.told
    assert watching.store.standing("default", "champion") == {"flights": 1}
    assert "error rate 0.5 on 400 labelled rows" in taken.told[-1]


async def test_late_labels_and_another_versions_answers_count_as_they_should_in_probation(watching: Watching) -> None:
    record = await trained(watching, proof=proof(challenger=0.9, champion=0.6))
    watching.serve(2, 100, version=1, **{"(prediction)": ["7"] * 100})
    watching.serve(3, 100, version=2, **{"(prediction)": [each % 2 for each in range(100)]})
    requests = [f"r{each}" for each in range(100)]
    watching.keep(4, "rows", 100, 2, **{"distance": [1.0] * 100, "(request)": requests, "(prediction)": ["1"] * 100})
    watching.keep(5, "labels", 100, 0, **{"(request)": requests, "(label)": ["1"] * 100})
    watching.passes(1)
    assert watching.now(record).standing is Standing.PROBATION
    watching.clock.forward(DAY)
    watching.passes(1)
    over = watching.now(record)
    assert over.standing is Standing.PROMOTED
    assert "error rate 0 on 200 labelled rows" in over.told[-1]


async def test_a_champion_that_the_next_retraining_supersedes_was_not_taken_back(watching: Watching) -> None:
    first = await trained(watching, proof=proof(challenger=0.9, champion=0.6))
    await watching.train(watching.plane.submit("flights", recipe="tabular"))
    watching.store.move_alias("default", "flights", "champion", 3, at=2.0, by="retraining", reason="decision 2")
    watching.passes(1)
    superseded = watching.now(first)
    assert superseded.standing is Standing.PROMOTED
    assert superseded.told[-1] == "its probation ends: retraining made version 3 champion (decision 2)"


async def test_a_champion_that_was_taken_back_before_that_could_be_noted_is_told_so(watching: Watching) -> None:
    first = await trained(watching, proof=proof(challenger=0.9, champion=0.6))
    watching.promotions.roll_back("default", "flights", by="retraining", reason="falls short")
    watching.passes(1)
    assert watching.now(first).standing is Standing.ROLLED_BACK


async def test_a_champion_is_still_watched_where_the_journal_was_lost(watching: Watching) -> None:
    record = await trained(watching, proof=proof(challenger=0.9, champion=0.6))
    empty = Watching(watching.root, watching.store, MemoryObservationStore(), watching.clock)
    empty.passes(1)
    empty.serve(2, 400, version=2, **{"(prediction)": ["0"] * 400})
    empty.passes(1)
    assert empty.now(record).standing is Standing.ROLLED_BACK


async def test_labels_with_their_answers_beside_them_count_for_the_version_that_gave_them(watching: Watching) -> None:
    record = await trained(watching, proof=proof(challenger=0.9, champion=0.6))
    requests = [f"r{each}" for each in range(100)]
    for seq, version, answer in ((2, 2, 1234567.0), (3, 1, 7.0)):
        joined = {"(request)": requests, "(prediction)": [answer] * 100, "(label)": ["1234567"] * 100}
        watching.keep(seq, "labels", 100, version, **joined)
    watching.clock.forward(DAY)
    watching.passes(1)
    assert "error rate 0 on 100 labelled rows" in watching.now(record).told[-1]


async def test_a_challenger_that_was_proven_by_another_metric_says_that_it_is_not_watched(watching: Watching) -> None:
    error = {"champion": right(500, 0.6, 7), "challenger": right(500, 0.3, 8)}
    found = part(error["champion"], error["challenger"])
    found["values"] = {"error": found["values"]["accuracy"]}
    record = await trained(watching, proof=fact(found, found, modes={"error": "min"}, champion=1))
    assert record.standing is Standing.PROBATION, record.told
    assert "its live performance is not watched" in record.told[-1]
    watching.clock.forward(DAY)
    watching.passes(1)
    assert "its live performance is not watched" in watching.now(record).told[-1]


async def test_a_promotion_that_somebody_takes_back_by_hand_ends_its_probation(watching: Watching) -> None:
    record = await trained(watching, proof=proof(challenger=0.9, champion=0.6))
    watching.promotions.roll_back("default", "flights", by="ada", reason="complaints")
    watching.passes(1)
    assert watching.now(record).standing is Standing.PROMOTED
    assert "ada made version 1 champion" in watching.now(record).told[-1]


# ---- as a small sweep ------------------------------------------------------------------------------------------------

SMALL: dict[str, Any] = {
    "metric": "val_accuracy",
    "mode": "max",
    "trials": 3,
    "stop": {"target": 0.9},
    "space": {"train.lr": {"log": [1e-4, 1e-1]}},
}


class Searching(Watching):
    """Whose retrainings are sweeps of one trial each."""

    async def searched(self, record: Any, trial_outcome: str = "succeeded", **facts: Any) -> Run:
        """Let the sweep of a decision run one trial and end; the trial."""
        sweep = self.run_of(record)
        self.plane.loop.one_pass()
        wish = StartTrial(sweep.id, 1, 0, 0, {"train.lr": 0.01}, "driver")
        trial = Sweeps(self.plane.fleet, self.plane.commands).start_trial("default", wish)
        self.plane.loop.one_pass()
        self.clock.forward(30)
        await self.train(trial, trial_outcome, **({"facts": facts} if facts else {}))
        seal = "/runs/t/attempt-0001/incarnation-0001/step-000000000010" if trial_outcome != "succeeded" else None
        best = {"sweep": sweep.id, "trial": 0, "run": trial.id, "point": {"train.lr": 0.01}}
        result = {"result": Result(1, {}, seal)} if seal else {}
        await self.train(sweep, facts={"sweep": best}, **result)
        self.passes(1)
        return self.plane.run(trial)


@pytest.fixture
async def searching(tmp_path: Path) -> Searching:
    made = Searching(tmp_path, prices=Prices(cpu_hour=3600.0))
    await made.begin({"search": SMALL, "priority": 20})
    made.serve(1)
    return made


async def test_a_small_sweep_is_one_decision_and_its_best_trial_the_challenger(searching: Searching) -> None:
    record = searching.drift()
    searching.passes()
    sweep = searching.run_of(record)
    assert (sweep.kind, sweep.priority, sweep.spec["search"]["trials"]) == ("sweep", 20, 3)
    assert searching.now(record).told[-1] == f"sweep {sweep.id} tries points on 8 labelled rows"
    searching.passes()
    assert len(searching.plane.board.queue(10)) == 1, "once"
    trial = await searching.searched(record, proof=proof(challenger=0.9, champion=0.6))
    assert trial.spec["proof"] == sweep.spec["proof"], "each trial compares itself with the champion of the sweep"
    assert (trial.priority, trial.spec["monitor"]["retrain"]["search"]) == (20, None)
    over = searching.now(record)
    assert (over.standing, over.version) == (Standing.PROBATION, 2), over.told
    assert over.cost == pytest.approx(2 * 30, rel=0.01), "the sweep's own is that of its trials"
    assert searching.monitor.run != sweep.id, "a retraining changes nothing of the monitor"


async def test_a_best_trial_that_was_ended_early_is_measured_by_one_run_more(searching: Searching) -> None:
    record = searching.drift()
    searching.passes()
    await searching.searched(record, "cancelled")
    going_on = searching.now(record)
    measuring = searching.run_of(record)
    assert (going_on.standing, measuring.kind) == (Standing.TRAINING, "run"), going_on.told
    assert (measuring.spec["train"]["steps"], measuring.spec["init_from"]["resume"]) == (10, True)
    assert (measuring.spec["train"]["lr"], measuring.spec["proof"]["champion"]) == (0.01, 1)
    sweep_ended = replace(going_on, run=str(going_on.told[-1].split()[1]), cost=0.0)
    again = searching.retraining._challengers.follow(sweep_ended)
    assert again is not None
    assert again.run == measuring.id, "a server that was killed before it could note the run finds the same one"
    await searching.train(measuring, facts={"proof": proof(challenger=0.9, champion=0.6)})
    searching.passes(1)
    over = searching.now(record)
    assert (over.standing, over.version) == (Standing.PROBATION, 3), over.told


async def test_a_sweep_whose_trials_all_failed_is_a_retraining_that_failed(searching: Searching) -> None:
    record = searching.drift()
    searching.passes()
    failure = Failure(FailureKind.APPLICATION, "none of 3 trials reported val_accuracy")
    await searching.train(searching.run_of(record), "failed", failure=failure)
    searching.passes(1)
    assert searching.now(record).standing is Standing.FAILED


async def test_a_first_small_sweep_is_expected_to_cost_as_many_runs_as_it_has_trials(tmp_path: Path) -> None:
    watching = Watching(tmp_path, prices=Prices(cpu_hour=3600.0))
    submitted = watching.plane.submit(
        "flights", monitor={"retrain": {**RETRAIN, "search": SMALL, "budget": {"cost": "5 USD"}}}, **RUN
    )
    await watching.train(watching.plane.submit("warm-up"))
    watching.plane.loop.one_pass()
    watching.clock.forward(1)
    await watching.train(submitted)
    watching.serve(1)
    waiting = watching.drift()
    assert waiting.decision.because is Because.BUDGET_SPENT
    assert "a retraining costs about 6.0" in waiting.decision.words


async def test_a_retraining_of_a_sweeps_file_begins_at_the_point_of_its_own_version_also_after_another_champion(
    tmp_path: Path,
) -> None:
    watching = Watching(tmp_path)
    sweep = watching.plane.submit("flights", search=SMALL, monitor={"retrain": {**RETRAIN, "cooldown": None}}, **RUN)
    await watching.train(sweep, facts={"sweep": {"point": {"train.lr": 0.02}}})
    for turn in (1, 2):
        watching.serve(turn)
        record = watching.drift(f"drift/v1/{turn}")
        watching.passes()
        run = watching.run_of(record)
        assert (run.kind, run.spec["train"]["lr"]) == ("run", 0.02)
        await watching.train(run, facts={"proof": proof(challenger=0.9, champion=0.6)})
        watching.passes(1)
        assert watching.now(record).version == turn + 1
        watching.clock.forward(60)


# ---- crashes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", MOMENTS)
async def test_a_server_that_is_killed_anywhere_between_trigger_and_submission_leaves_exactly_one_run(
    moment: str, tmp_path: Path
) -> None:
    watching = restarted(tmp_path)
    base = await watching.begin()
    watching.serve(1)
    watching.store.close()
    command = [sys.executable, "-m", "tests.unit.control.retraining_victim", str(tmp_path), moment]
    victim = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert victim.returncode == -signal.SIGKILL, victim.stderr

    watching = restarted(tmp_path)
    watching.serve(2)  # what comes meanwhile is not of this retraining
    told = watching.drift()  # told again, for nobody had noted that it was told
    watching.passes(3)
    runs = [each.id for each in watching.store.runs(RunFilter("default")).runs if each.id != base.id]
    record = watching.now(told)
    assert runs == [record.run]
    assert (record.number, record.standing, record.data["rows"]) == (1, Standing.TRAINING, 8)
    assert len(watching.store.decisions("default", "flights")) == 1
    watching.store.close()
