"""What people and programs are shown, word for word."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from orchestrator.cli import render
from orchestrator.core.ledger import Ledger, TimeClass
from orchestrator.core.observations import Progress
from orchestrator.core.records import Checkpoint, LogLine
from orchestrator.core.runs import Event, Failure, FailureKind, Reason, ReasonCode
from orchestrator.protocol.convert import RunView

NOW = 1_000_100.0


def run_view(**changes: Any) -> RunView:
    values: dict[str, Any] = {
        "id": "run-1", "project": "default", "name": "digits", "state": "RUNNING",
        "reason": Reason(ReasonCode.TRAINING, "incarnation 1 trains"), "liveness": "alive", "queue": "default",
        "priority": 50, "submitted_by": "ann", "submitted_at": NOW - 95, "state_since_at": NOW - 5, "version": 3,
        "furthest_step": 12,
    }  # fmt: skip
    return RunView(**{**values, **changes})


def progress(**changes: Any) -> Progress:
    values: dict[str, Any] = {
        "run_id": "run-1", "attempt": 1, "incarnation": 1, "phase": "training", "at": NOW, "step": 30, "epoch": 2,
        "total_steps": 180, "total_epochs": 20, "loss": 0.25, "samples_per_s": 1234.4, "step_s": 0.1,
        "metrics": {"val_accuracy": 0.97, "train_loss": 0.3},
    }  # fmt: skip
    return Progress(**{**values, **changes})


def text_of(renderable: Any) -> str:
    console = Console(width=160, markup=False, highlight=False, force_terminal=False)
    with console.capture() as capture:
        console.print(renderable)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def test_a_listing_shows_state_age_step_and_reason() -> None:
    assert text_of(render.runs_table([run_view()], NOW)).splitlines() == [
        "NAME     ID      STATE       AGE   STEP   REASON",
        "──────────────────────────────────────────────────────────────",
        "digits   run-1   RUNNING   1m35s     12   incarnation 1 trains",
    ]


def test_json_and_yaml_say_the_same_with_the_run_file_as_data() -> None:
    run = run_view(spec_json='{"name": "digits"}', ledger=Ledger({TimeClass.TRAINING: 5}))
    document = json.loads(render.as_json(run))
    assert document == yaml.safe_load(render.as_yaml(run))
    assert document["spec"] == {"name": "digits"}
    assert document["reason"] == {"code": "training", "message": "incarnation 1 trains"}
    assert document["ledger"] == {"ns": {"training": 5}}
    assert "spec_json" not in document


def test_json_has_no_word_for_what_is_no_number() -> None:
    text = render.as_json({"metrics": {"loss": math.nan, "best": [math.inf, 0.5]}})
    assert json.loads(text, parse_constant=pytest.fail) == {"metrics": {"loss": None, "best": [None, 0.5]}}


def test_progress_names_phase_epoch_step_speed_loss_validation_and_eta() -> None:
    assert render.progress_line(progress(), NOW + 5) == (
        "training  epoch 3/20  step 30/180  1234 samples/s  loss 0.2500  val_accuracy 0.9700  ETA 10s"
    )


def test_an_eta_is_only_given_where_the_end_is_known() -> None:
    assert "ETA" not in render.progress_line(progress(total_steps=None, total_epochs=None), NOW)


def test_silence_is_said() -> None:
    assert render.progress_line(progress(silent_s=95.0), NOW).endswith("no progress for 1m35s")


def test_before_there_is_a_rank_progress_is_what_is_done_for_it() -> None:
    phase = "preparing data: checking every row, 3 of 12 pieces"
    assert render.progress_line(progress(incarnation=0, phase=phase), NOW) == phase


def test_the_goodput_line_accounts_for_all_worker_time() -> None:
    ledger = Ledger({TimeClass.TRAINING: 75 * 10**9, TimeClass.STARTING: 20 * 10**9, TimeClass.IDLE: 5 * 10**9})
    assert str(render.goodput_line(ledger)) == (
        "goodput 75.0%: 75.0 of 100.0 worker-seconds trained; the rest: starting 20.0, idle 5.0"
    )
    assert str(render.goodput_line(Ledger())) == "goodput: no worker time yet"


@given(st.dictionaries(st.sampled_from(TimeClass), st.integers(1, 10**15), min_size=1))
def test_shown_parts_of_the_ledger_add_up_to_the_shown_whole(ns: dict[TimeClass, int]) -> None:
    rows = [line.split() for line in text_of(render.ledger_table(Ledger(ns))).splitlines() if line.endswith("%")]
    parts = {row[0]: (float(row[1]), float(row[2])) for row in rows}
    seconds, share = parts.pop("total")
    assert sum(part for part, _ in parts.values()) == pytest.approx(seconds, abs=1e-6)
    assert sum(part for _, part in parts.values()) == pytest.approx(share, abs=1e-6)
    assert share == pytest.approx(100.0)
    assert seconds == pytest.approx(sum(ns.values()) / 1e9, abs=0.001)
    for name, (shown, _) in parts.items():
        assert shown == pytest.approx(ns[TimeClass(name)] / 1e9, abs=0.0011)


def test_a_description_shows_both_ends_of_a_long_history_and_its_document_all_of_it() -> None:
    events = [Event("run-1", seq, NOW, "epoch", f"epoch-{seq}.") for seq in range(1, 1001)]
    told = render.Description(run_view(), events, [], [])
    shown = text_of(render.description(told, NOW))
    assert [seq for seq in range(1, 1001) if f"epoch-{seq}." in shown] == [*range(1, 21), *range(821, 1001)]
    assert "800 more events" in shown
    assert len(told.document()["events"]) == 1000
    whole = text_of(render.description(render.Description(run_view(), events[:200], [], []), NOW))
    assert "more events" not in whole
    assert "epoch-21." in whole


def test_a_description_tells_the_whole_story() -> None:
    failure = Failure(
        FailureKind.APPLICATION, "ValueError: no", rank=1, host="a", step=7, traceback="Traceback\n  line\nValueError"
    )
    told = render.Description(
        run_view(state="FAILED", failure=failure, ended_at=NOW, ledger=Ledger({TimeClass.TRAINING: 10**9})),
        [Event("run-1", 1, NOW - 95, "submitted", "submitted by ann"), Event("run-1", 2, NOW, "ended", "gave up")],
        [Checkpoint("run-1", 1, 1, 5, "/seal", 2048, {"val_loss": 0.5}, True, NOW - 10)],
        [],
    )
    shown = text_of(render.description(told, NOW))
    for words in (
        "digits (run-1)",
        "FAILED",
        "application at step 7: rank 1 on a",
        "  ValueError",
        "submitted by ann",
        "gave up",
    ):
        assert words in shown
    for words in ("/seal", "2.0 KiB", "val_loss 0.5", "goodput 100.0%", "1m35s after submission"):
        assert words in shown
    document = told.document()
    assert [each["message"] for each in document["events"]] == ["submitted by ann", "gave up"]
    assert document["failure"]["traceback"].startswith("Traceback")


def test_only_the_last_best_checkpoint_is_called_best() -> None:
    sealed = [
        Checkpoint("r", 1, 1, step, f"/s{step}", 1, {}, best, NOW)
        for step, best in ((30, False), (20, True), (10, True))
    ]
    lines = text_of(render.checkpoints_table(sealed, NOW)).splitlines()[2:]
    assert [("best" in line) for line in lines] == [False, True, False]


def test_log_lines_cannot_steer_the_terminal() -> None:
    line = LogLine("run-1", 2, 1, 3, NOW, "\x1b[2Jhello\r\x07\tthere", "host", 1)
    assert render.log_line(line, attempts=True).endswith(" 2.1 rank 3 | [2Jhello\tthere")
    assert render.log_line(line, attempts=False).endswith(" rank 3 | [2Jhello\tthere")


def test_brackets_of_users_are_no_markup() -> None:
    assert "[red]x[/red]" in text_of(render.run_line(run_view(name="[red]x[/red]")))


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.04, "0.0s"), (9.94, "9.9s"), (59.9, "59s"), (61, "1m01s"), (3661, "1h01m"), (90000, "1d01h")],
)
def test_durations_are_short(seconds: float, shown: str) -> None:
    assert render.duration(seconds) == shown


@pytest.mark.parametrize(("number", "shown"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (3 * 2**40, "3.0 TiB")])
def test_sizes_are_short(number: int, shown: str) -> None:
    assert render.size(number) == shown
