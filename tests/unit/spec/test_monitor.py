"""The monitor section of a run file: words for what is wrong, and values for what is right."""

from __future__ import annotations

import pytest

from orchestrator.errors import InvalidSpec
from orchestrator.spec import dump, load
from orchestrator.spec.monitor import Monitor

LEAST = {"name": "x", "recipe": "digits_cnn", "train": {"epochs": 1}}
PREPARED = {**LEAST, "recipe": "tabular", "data": {"source": "sklearn://wine"}}


def told(monitor: object, run: dict[str, object] = PREPARED) -> dict[str, str]:
    with pytest.raises(InvalidSpec) as refused:
        load({**run, "monitor": monitor})
    return {each.path: each.message for each in refused.value.problems}


def test_a_whole_monitor_reads_and_dumps() -> None:
    document = {
        "window": {"by": "time", "length": "1h", "late": "5m", "season": "weekday"},
        "detect": {"concept": "adwin", "multivariate": "mmd", "embeddings": ["last_layer"]},
        "judge": {"false_alarms": 0.001, "persistence": 3, "error_shift": 0.05},
        "features": ["height", "colour"],
        "retrain": {
            "mode": "auto",
            "triggers": ["performance", {"drift": "major"}, {"alert": "High"}, {"alert": "Low"}, {"cron": "0 3 * * 1"}],
            "cooldown": "2d",
            "budget": {"runs": 4, "cost": "20 USD"},
            "quiet_hours": ["22:00-06:00"],
            "utc_offset": 2,
            "start": "scratch",
        },
    }
    parsed = Monitor.model_validate(document)
    assert Monitor.model_validate(parsed.model_dump(mode="json")) == parsed
    assert parsed.retrain is not None
    assert [each.kind for each in parsed.retrain.triggers] == ["performance", "drift", "alert", "alert", "cron"]
    assert parsed.window.length == 3600.0


@pytest.mark.parametrize(
    ("monitor", "path", "words"),
    [
        ({"windw": {}}, "monitor.windw", "did you mean window?"),
        ({"window": {"by": "rows"}}, "monitor.window.by", "must be one of"),
        ({"window": {"rows": 100}}, "monitor.window", "no window would ever be judged"),
        ({"detect": {"concept": "ddm"}}, "monitor.detect.concept", "must be one of"),
        ({"judge": {"false_alarms": 0}}, "monitor.judge.false_alarms", "greater than 0"),
        ({"retrain": {"mode": "atuo"}}, "monitor.retrain.mode", "must be one of"),
        ({"retrain": {"triggers": ["drfit"]}}, "monitor.retrain.triggers[0]", "must be drift, performance"),
        ({"retrain": {"triggers": [{"rows": 5, "drift": "minor"}]}}, "monitor.retrain.triggers[0]", "with one of"),
        ({"retrain": {"triggers": [{"cron": "0 3 31 2 *"}]}}, "monitor.retrain.triggers[0].cron", "no month has"),
        ({"retrain": {"triggers": ["drift", {"drift": "major"}]}}, "monitor.retrain", "two triggers of drift"),
        ({"retrain": {"triggers": []}}, "monitor.retrain", "has no triggers"),
        ({"retrain": {"quiet_hours": ["22-6"]}}, "monitor.retrain.quiet_hours[0]", "such as 22:00-06:00"),
        ({"retrain": {"budget": {"cost": 20}}}, "monitor.retrain.budget.cost", "such as 20 USD"),
    ],
)
def test_a_mistake_is_told_with_its_place(monitor: object, path: str, words: str) -> None:
    problems = told(monitor)
    assert words in problems[path]
    assert len(problems) == 1


SMALL = {"metric": "val_accuracy", "mode": "max", "trials": 4, "space": {"train.lr": {"log": [1e-4, 1e-1]}}}
TABLE = {"name": "x", "recipe": "tabular", "train": {"epochs": 3}}


def test_a_small_sweep_of_retraining_is_checked_as_every_search() -> None:
    parsed = load({**TABLE, "monitor": {"retrain": {"search": SMALL}}})
    assert load(dump(parsed)) == parsed


@pytest.mark.parametrize(
    ("search", "path", "words"),
    [
        ({"metric": "val_acuracy"}, "metric", "did you mean val_accuracy?"),
        ({"trails": 3}, "trails", "did you mean trials?"),
        ({"space": {"train.lr": {"log": [0, 1]}}}, "space.train.lr", "must begin above 0"),
        ({"space": {"train.lr": {"uniform": [-1, 1]}}}, "space.train.lr", "greater than 0"),
        ({"scheduler": {"type": "asha", "max_steps": 9}}, "scheduler.max_steps", "train.epochs is 3"),
        ({"space": {"data.source": {"choice": ["a", "b"]}}}, "space.data.source", "seen live"),
        ({"space": {"init_from.file": {"choice": ["/a"]}}}, "space.init_from.file", "start says"),
        ({"space": {"model.width": {"choice": [8, 16]}}}, "space.model.width", "Use scratch"),
    ],
)
def test_a_mistake_in_a_small_sweep_is_told_with_its_place(search: dict[str, object], path: str, words: str) -> None:
    with pytest.raises(InvalidSpec) as refused:
        load({**TABLE, "monitor": {"retrain": {"search": SMALL | search}}})
    problems = {each.path: each.message for each in refused.value.problems}
    assert words in problems[f"monitor.retrain.search.{path}"]


def test_shapes_may_be_searched_where_a_retraining_starts_from_scratch() -> None:
    wide = {**SMALL, "space": {"model.width": {"choice": [8, 16]}, "model.dropout": {"uniform": [0, 0.5]}}}
    assert load({**TABLE, "monitor": {"retrain": {"start": "scratch", "search": wide}}}).monitor is not None


def test_a_monitor_needs_the_profile_that_prepared_data_leave() -> None:
    assert "where they are prepared" in told({}, LEAST)["monitor"]
    assert load({**LEAST, "data": {"clean": {"duplicates": "drop"}}, "monitor": {}}).monitor is not None
    assert load({**PREPARED, "monitor": {}}).monitor is not None
    with pytest.raises(InvalidSpec, match="a script leaves no profile"):
        load({"name": "x", "script": "train.py", "monitor": {}})


def test_a_model_of_images_is_watched_and_recalled_and_not_retrained_on_what_images_look_like() -> None:
    images = {**LEAST, "data": {"clean": {"duplicates": "drop"}}}
    with pytest.raises(InvalidSpec) as refused:
        load({**images, "monitor": {"retrain": {}}})
    (problem,) = refused.value.problems
    assert problem.path == "monitor.retrain"
    assert "leave it out to watch only: digits_cnn learns from images" in problem.message
    assert "submit a run of its name on new images" in problem.message
    assert load({**images, "monitor": {"retrain": {"recall": {}}}}).monitor is not None


@pytest.mark.parametrize(
    ("data", "retrain", "path", "words"),
    [
        ({"split": [1, 0, 0]}, {}, "data.split", "holds no rows out that a challenger could be proven on"),
        (
            {},
            {"newest_rows": 500},
            "monitor.retrain.newest_rows",
            "are too few: of 500 rows about 75 would be held out",
        ),
    ],
)
def test_a_retraining_whose_proof_would_always_lack_rows_is_refused(
    data: dict[str, object], retrain: object, path: str, words: str
) -> None:
    run = {"name": "x", "recipe": "tabular", "train": {"epochs": 1}, "data": data, "monitor": {"retrain": retrain}}
    with pytest.raises(InvalidSpec) as refused:
        load(run)
    assert words in {each.path: each.message for each in refused.value.problems}[path]
    assert load({**run, "recipe": None, "entrypoint": "a:b"}).monitor is not None, "its own code holds rows out"


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ({"script": "train.py"}, "a script's model"),
        ({"recipe": "recommender", "train": {"epochs": 1}}, "recommender keeps"),
    ],
)
def test_what_can_never_be_proven_is_refused_by_name(target: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidSpec) as refused:
        load({"name": "x", **target, "monitor": {"promote": {"margin": 0.01}}})
    assert words in {each.path: each.message for each in refused.value.problems}["monitor.promote"]


@pytest.mark.parametrize(
    ("window", "words"),
    [
        ({"season": "hour"}, "by: time, with an hour or a whole part"),
        ({"season": "hour_of_week", "by": "time", "length": "2h"}, "with an hour"),
        ({"season": "weekday", "by": "time", "length": "7h"}, "with a day or a whole part"),
        ({"season": "weekday", "by": "count"}, "by: time"),
    ],
)
def test_a_window_that_lies_in_two_seasons_is_refused(window: object, words: str) -> None:
    assert words in told({"window": window})["monitor.window"]


def test_seasons_begin_when_windows_do_where_people_are() -> None:
    window = {"season": "weekday", "by": "time", "length": "1d"}
    assert load({**PREPARED, "monitor": {"window": window}}).monitor is not None
    assert "choose shorter windows" in told({"window": window, "retrain": {"utc_offset": 2}})["monitor"]
    assert load({**PREPARED, "monitor": {
        "window": {**window, "length": "2h"}, "retrain": {"utc_offset": 2},
    }}).monitor is not None  # fmt: skip
