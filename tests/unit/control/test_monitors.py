"""The judging loop on the in-memory stores: what was observed counts once, whatever is killed or wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from orchestrator.adapters.memory_observations import MemoryObservationStore
from orchestrator.control.monitors import Monitors
from orchestrator.control.wakeups import LocalWakeups
from orchestrator.core.monitors import Judgement, Monitor
from orchestrator.core.records import ModelVersion
from orchestrator.core.retraining import Cause, Trigger
from orchestrator.core.runs import Run
from orchestrator.drift.batches import write_batch
from orchestrator.errors import NotFound, Refused, Unavailable
from orchestrator.ports import Change, Observed
from orchestrator.store.memory import MemoryStore
from tests.builders import submission
from tests.unit.control.plane import HandClock
from tests.unit.control.profiles import PROFILE
from tests.unit.drift.streams import columns

SETTINGS = {"window": {"by": "count", "rows": 500, "length": 3600.0}}


class Fleet:
    """Monitors over stores that outlive them, and replicas that speak."""

    def __init__(self, facts: Mapping[str, Any] | None = None, model: str = "digits") -> None:
        self.store, self.observations, self.clock = MemoryStore(), MemoryObservationStore(), HandClock(1e6)
        self.told: list[Trigger] = []
        self.seq = 0
        self.register(model, {"profile": PROFILE} if facts is None else facts)
        self.monitors = self.start()

    def start(self) -> Monitors:
        """A server that starts."""
        return Monitors(
            store=self.store,
            observations=self.observations,
            clock=self.clock,
            wakeups=LocalWakeups(),
            triggered=self.hear,
        )

    def hear(self, monitor: Monitor, trigger: Trigger) -> None:
        self.told.append(trigger)

    def register(self, model: str = "digits", facts: Mapping[str, Any] | None = None, **settings: Any) -> Run:
        number = len(self.store.models("*"))
        (made,) = self.store.submit([submission(run_id=f"run-{number:010d}")])
        run = made.run
        version = ModelVersion("default", model, 0, run.id, "/seal", {}, 1.0)
        draft = Monitor("default", model, {**SETTINGS, **settings}, run.id, 0, self.clock.now())
        facts = {"profile": PROFILE} if facts is None else facts
        (changed,) = self.store.apply([Change(run, model=version, facts=facts, monitor=draft)])
        assert changed is not None
        return changed

    def say(self, rows: int = 500, *, model: str = "digits", version: int = 1, **moved: Any) -> None:
        self.seq += 1
        self.clock.forward(float(rows))
        made = columns(rows, self.seq, **moved)
        made["(time)"] = self.clock.now() - rows + np.arange(rows)
        self.keep(Observed(0, self.clock.now(), "pod", self.seq, "rows", version, rows, write_batch(made)), model)

    def keep(self, batch: Observed, model: str = "digits") -> None:
        self.observations.append("default", model, [batch])

    def judge(self) -> None:
        while self.monitors.one_pass():
            pass

    def judged(self, model: str = "digits") -> list[Judgement]:
        """Oldest first."""
        return list(reversed(self.store.judgements("default", model)))

    def statuses(self, model: str = "digits") -> list[str]:
        return [each.status for each in self.judged(model)]


@pytest.fixture
def fleet() -> Fleet:
    return Fleet()


def test_what_replicas_say_is_judged_and_drift_is_told(fleet: Fleet) -> None:
    for shift in (0.0, 0.0, 1.0, 1.0):
        fleet.say(shift=shift)
    fleet.judge()
    assert fleet.statuses() == ["stable", "stable", "suspected", "drift"]
    assert [each.cause for each in fleet.told] == [Cause.DRIFT]
    seen = fleet.monitors.get("default", "digits")
    assert (seen.status, seen.reference, seen.figures.rows, seen.figures.judged) == ("drift", 1, 2000, 4)
    assert seen.figures.labels == 2000
    assert "height: median" in seen.words
    assert seen.pictures[0].feature == "height"
    assert sum(seen.pictures[0].reference) == pytest.approx(1.0, abs=0.03)


def test_nothing_that_was_judged_is_judged_again_after_a_restart(fleet: Fleet) -> None:
    for _ in range(3):
        fleet.say(700)
        fleet.monitors.one_pass()
        fleet.monitors = fleet.start()
    fleet.judge()
    assert [each.rows for each in fleet.judged()] == [500] * 4
    fleet.say(400)
    fleet.judge()
    assert [each.rows for each in fleet.judged()] == [500] * 5
    assert fleet.monitors.get("default", "digits").figures.rows == 2500


@pytest.mark.parametrize("written", [False, True])
def test_a_death_around_the_writing_of_judgements_repeats_and_loses_nothing(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, written: bool
) -> None:
    fleet.say(1100)
    fleet.monitors.one_pass()
    record = fleet.store.record_judgements

    def dies(monitor: Monitor, judgements: Sequence[Judgement]) -> Monitor | None:
        if written:
            record(monitor, judgements)
        raise KeyboardInterrupt("killed")

    monkeypatch.setattr(fleet.store, "record_judgements", dies)
    fleet.say(900, shift=1.0)
    with pytest.raises(KeyboardInterrupt):
        fleet.monitors.one_pass()
    monkeypatch.undo()
    fleet.monitors = fleet.start()
    fleet.judge()
    assert [each.rows for each in fleet.judged()] == [500] * 4
    assert [each.number for each in fleet.judged()] == [1, 2, 3, 4]
    assert len({each.key for each in fleet.told}) == 1


def test_a_trigger_outlives_the_death_of_whoever_should_have_heard_it(fleet: Fleet) -> None:
    deaf = True

    def hear(monitor: Monitor, trigger: Trigger) -> None:
        if deaf:
            raise Unavailable("no answer")
        fleet.told.append(trigger)

    fleet.hear = hear  # type: ignore[method-assign]
    fleet.monitors = fleet.start()
    for _ in range(3):
        fleet.say(shift=1.0)
    fleet.judge()
    fleet.monitors.one_pass()
    assert fleet.told == []
    deaf = False
    fleet.monitors = fleet.start()
    fleet.monitors.one_pass()
    assert {each.cause for each in fleet.told} == {Cause.DRIFT}
    told = len(fleet.told)
    fleet.monitors = fleet.start()
    fleet.monitors.one_pass()
    assert len(fleet.told) == told
    assert fleet.statuses() == ["suspected", "drift", "drift"]


def test_a_paused_monitor_judges_nothing_and_goes_on_where_it_stopped(fleet: Fleet) -> None:
    fleet.say(600)
    fleet.judge()
    paused = fleet.monitors.pause("default", "digits", by="ada", reason="maintenance")
    assert (paused.status, paused.words) == ("paused", "paused by ada: maintenance")
    fleet.say(600)
    fleet.judge()
    assert len(fleet.judged()) == 1
    again = fleet.monitors.pause("default", "digits", by="bob")
    assert again.words == "paused by ada: maintenance"
    assert fleet.monitors.resume("default", "digits").status == "stable"
    fleet.judge()
    assert [each.rows for each in fleet.judged()] == [500, 500]


def test_a_pause_that_comes_while_a_window_is_judged_wins(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    read = fleet.observations.read

    def read_late(*key: str, **where: int) -> list[Observed]:
        fleet.monitors.pause("default", "digits", by="ada")
        return read(*key, **where)

    monkeypatch.setattr(fleet.observations, "read", read_late)
    fleet.say()
    fleet.monitors.one_pass()
    monkeypatch.undo()
    assert fleet.judged() == []
    fleet.monitors.resume("default", "digits")
    fleet.judge()
    assert fleet.statuses() == ["stable"]


def test_when_another_version_serves_live_data_are_judged_against_that_one(fleet: Fleet) -> None:
    for _ in range(3):
        fleet.say(shift=1.0)
    fleet.judge()
    fleet.register()
    fleet.say(shift=1.0)
    fleet.judge()
    assert fleet.statuses()[-1] == "drift"
    assert fleet.monitors.get("default", "digits").reference == 1
    fleet.store.move_alias("default", "digits", "champion", 2, at=2.0, by="ada", reason="better")
    fleet.judge()
    fleet.say(200, version=1)
    fleet.say(version=2)
    fleet.judge()
    seen = fleet.monitors.get("default", "digits")
    assert (seen.reference, seen.status) == (2, "stable")
    assert (seen.figures.other_versions, seen.figures.judged) == (200, 1)


def test_a_version_without_a_profile_leaves_its_monitor_blind_in_words() -> None:
    fleet = Fleet(facts={})
    fleet.judge()
    fleet.say()
    fleet.judge()
    (judged,) = fleet.judged()
    assert (judged.status, judged.words) == (
        "blind",
        "blind: version 1 has no profile that live data could be judged against",
    )
    fleet.store.put_fact("default", "digits", 1, "profile", {"format": 1})
    fleet.monitors = fleet.start()
    fleet.judge()
    assert "format 1, 2 is needed" in fleet.judged()[-1].words
    fleet.store.put_fact("default", "digits", 1, "profile", PROFILE)
    fleet.monitors.pause("default", "digits", by="ada")
    fleet.monitors.resume("default", "digits")
    fleet.say()
    fleet.judge()
    assert fleet.statuses()[-1] == "stable"


def test_silence_is_blindness_and_told_once(fleet: Fleet) -> None:
    fleet.judge()
    fleet.clock.forward(3601)
    fleet.judge()
    fleet.monitors = fleet.start()
    fleet.clock.forward(3601)
    fleet.judge()
    assert fleet.statuses() == ["blind"]
    fleet.say()
    fleet.judge()
    assert fleet.statuses() == ["blind", "stable"]


def test_a_batch_that_cannot_be_read_is_counted_and_passed(fleet: Fleet) -> None:
    fleet.keep(Observed(0, fleet.clock.now(), "pod", 99, "rows", 1, 5, b"no Arrow"))
    fleet.keep(Observed(0, fleet.clock.now(), "pod", 100, "sketch", 1, 5, b"no summary"))
    fleet.say()
    fleet.judge()
    assert fleet.statuses() == ["stable"]
    assert fleet.monitors.get("default", "digits").figures.malformed == 2


def test_a_batch_that_is_sent_twice_counts_once(fleet: Fleet) -> None:
    fleet.say(300)
    fleet.keep(fleet.observations.read("default", "digits", after=0)[0])
    fleet.say(300)
    fleet.judge()
    assert fleet.monitors.get("default", "digits").figures.rows == 600


def test_a_journal_that_was_lost_is_told_once_and_what_comes_after_it_is_judged(fleet: Fleet) -> None:
    for _ in range(3):
        fleet.say()
    fleet.judge()
    fleet.observations = MemoryObservationStore()
    fleet.seq = 100
    fleet.monitors = fleet.start()
    fleet.judge()
    assert fleet.statuses() == ["stable"] * 3 + ["blind"]
    assert "ends with batch 0, and 3 were judged" in fleet.judged()[-1].words
    fleet.monitors = fleet.start()
    fleet.say()
    fleet.judge()
    assert fleet.statuses() == ["stable"] * 3 + ["blind", "stable"]


def test_labels_that_come_days_later_are_joined_across_a_restart(fleet: Fleet) -> None:
    made = columns(500, 1)
    labels, requests = made.pop("(label)"), [f"r{place}" for place in range(500)]
    rows, later = write_batch({**made, "(request)": requests}), write_batch({"(request)": requests, "(label)": labels})
    fleet.keep(Observed(0, fleet.clock.now(), "pod", 1, "rows", 1, 500, rows))
    fleet.judge()
    fleet.monitors = fleet.start()
    fleet.clock.forward(3 * 86400)
    unknown = write_batch({"(request)": ["stranger"], "(label)": ["cat"]})
    for seq, data in enumerate((later, unknown), 2):
        fleet.keep(Observed(0, fleet.clock.now(), "pod", seq, "labels", 1, 0, data))
    fleet.monitors.one_pass()
    figures = fleet.monitors.get("default", "digits").figures
    assert (figures.labels, figures.unknown_labels) == (500, 1)


def test_what_is_wrong_with_one_monitor_stops_that_one_in_words_and_no_other(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.register("wine")
    read = fleet.observations.read

    def broken(project: str, model: str, **where: int) -> list[Observed]:
        if model == "digits":
            raise ZeroDivisionError("a bug")
        return read(project, model, **where)

    monkeypatch.setattr(fleet.observations, "read", broken)
    fleet.say(model="wine")
    fleet.judge()
    assert fleet.statuses("wine") == ["stable"]
    assert "ZeroDivisionError('a bug'); `evertrain monitor resume digits`" in fleet.monitors.get("*", "digits").paused
    monkeypatch.undo()
    fleet.say()
    fleet.monitors.resume("default", "digits")
    fleet.judge()
    assert fleet.statuses() == ["stable"]


def test_a_file_that_asks_for_other_windows_begins_anew_and_goes_on(fleet: Fleet) -> None:
    fleet.say(700)
    fleet.judge()
    fleet.register(window={"by": "count", "rows": 200, "minimum": 100})
    fleet.say(400)
    fleet.judge()
    assert [each.rows for each in fleet.judged()] == [500, 200, 200]


def test_a_monitor_that_nobody_has_is_not_found(fleet: Fleet) -> None:
    for ask in (fleet.monitors.get, fleet.monitors.resume):
        with pytest.raises(NotFound, match="monitor list"):
            ask("default", "nobody")
    fleet.store.put_monitor(Monitor("other", "digits", SETTINGS, "run", 1, 1.0))
    with pytest.raises(Refused, match="--project"):
        fleet.monitors.get("*", "digits")


def test_a_season_is_learned_across_restarts_and_is_what_pictures_show(fleet: Fleet) -> None:
    fleet.register(window={"by": "time", "length": 3600.0, "season": "hour"})
    for _ in range(4):
        fleet.say(500, shift=2.0)
        fleet.judge()
        fleet.clock.forward(3600.0)
        fleet.judge()
        fleet.monitors = fleet.start()
        fleet.clock.forward(86_400.0 - 4_100.0)
    judged = [each for each in fleet.judged() if each.status != "blind"]
    assert [each.status for each in judged] == ["suspected", "drift", "stable", "stable"]
    assert "against the training profile, for of this hour of the day 500 of 1,000 rows are known" in judged[1].words
    assert "against the same hour of the day before: 1,000 rows of 2 days" in judged[2].words
    (height,) = [each for each in fleet.monitors.get("default", "digits").pictures if each.feature == "height"]
    assert sum(abs(ours - theirs) for ours, theirs in zip(height.reference, height.current, strict=True)) < 0.5
