"""Sweeps on the whole stack: Ray Tune proposes and stops, trials are gangs from the pool, the server keeps the truth."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from orchestrator.core.sweeps import Sweep, TrialState
from tests.integration.stack.conftest import PATIENCE_S, Stack, digits, kind

SPACE = {"train.lr": {"log": [1e-4, 3e-2]}, "train.optimizer": {"choice": ["adamw", "sgd"]}}


def sweep_file(name: str, epochs: int = 3, priority: int = 50, **search: Any) -> dict[str, Any]:
    asked = {"metric": "val_accuracy", "mode": "max", "scheduler": "asha", "trials": 4, "space": SPACE, **search}
    train = {"epochs": epochs, "global_batch": 128, "optimizer": "adamw", "lr": 3e-3}
    return digits(name, train=train, search=asked, priority=priority)


def until(stack: Stack, sweep: str, wanted: Callable[[Sweep], bool]) -> Sweep:
    """The sweep once it is as wanted; it must not end before."""
    deadline = time.monotonic() + 2 * PATIENCE_S
    while not wanted(found := stack.client.sweep(sweep)):
        assert found.ended_at is None, found.reason
        assert time.monotonic() < deadline, found
        time.sleep(0.5)
    return found


def drivers(stack: Stack) -> list[psutil.Process]:
    """Of this stack: other ones on the machine may search, too."""
    children = psutil.Process(stack.pid("agent")).children()
    return [each for each in children if "orchestrator.cluster.search_driver" in each.cmdline()]


def kill_a_rank(stack: Stack, sweep: str) -> None:
    """Of a trial that trains; a trial is short, and may be over before it is hit."""
    while True:
        seen = until(stack, sweep, lambda found: any(each.state is TrialState.RUNNING for each in found.trials))
        living = next(each for each in seen.trials if each.state is TrialState.RUNNING)
        started = stack.until(living.run_id, kind("ranks_started"))
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(started.data["pids"][1]), signal.SIGKILL)
            return


def test_a_sweep_goes_on_after_the_death_of_its_driver_and_of_a_rank_and_repeats_no_trial(stack: Stack) -> None:
    run = stack.client.submit(sweep_file("searched", epochs=6))
    assert run.kind == "sweep"
    before = until(stack, run.id, lambda sweep: any(not each.live for each in sweep.trials))
    (driver,) = drivers(stack)
    driver.kill()
    failed = stack.until(run.id, kind("rank_failed"))
    assert "its trials go on" in failed.message
    kill_a_rank(stack, run.id)
    ended = stack.client.wait(run.id)
    assert ended.state == "SUCCEEDED", ended.reason
    sweep = stack.client.sweep(run.id)
    assert [each.number for each in sweep.trials] == [0, 1, 2, 3]
    assert len(list(stack.client.list(sweep=run.id))) == 4, "a trial was run twice"
    for old in before.trials:
        assert sweep.trials[old.number].run_id == old.run_id
    assert sweep.best is not None
    (version,) = stack.client.models("searched")
    assert (version.run_id, version.checkpoint) == (run.id, sweep.best.checkpoint)
    assert stack.client.facts("searched")["sweep"]["trial"] == sweep.best.number
    assert stack.client.models(sweep.best.run_id) == []
    again = stack.evertrain("sweep", "best", run.id, "--as-run")
    assert "name: searched" in again.stdout
    assert "search" not in again.stdout.split("name: searched")[1]


def population_file(name: str, epochs: int) -> dict[str, Any]:
    """Four trials of one rank each side by side, of which some rates can learn nothing: these go on from the others."""
    start_with = [{"train.lr": rate} for rate in (1e-7, 1e-2, 5e-3, 1e-7)]
    space = {"train.lr": {"log": [1e-7, 3e-2]}}
    asked = sweep_file(name, epochs, algorithm="pbt", scheduler="pbt", space=space, start_with=start_with)
    return asked | {"resources": {"workers": 1, "cpu": 1}}


def changed(sweep: Sweep) -> bool:
    return any(each.generation for each in sweep.trials)


def test_a_population_goes_on_from_its_best_also_after_the_death_of_its_driver(stack: Stack) -> None:
    run = stack.client.submit(population_file("population", 8))
    before = until(stack, run.id, changed)
    (driver,) = drivers(stack)
    driver.kill()
    ended = stack.client.wait(run.id)
    assert ended.state == "SUCCEEDED", ended.reason
    sweep = stack.client.sweep(run.id)
    assert [each.state for each in sweep.trials] == [TrialState.COMPLETED] * 4
    for old in before.trials:
        kept = sweep.trials[old.number].stages[: len(old.stages)]
        assert [(each.start, each.point) for each in kept] == [(each.start, each.point) for each in old.stages]
    runs = list(stack.client.list(sweep=run.id))
    assert len(runs) == sum(each.generation + 1 for each in sweep.trials), "a generation was run twice"
    taker = next(each for each in sweep.trials if each.generation)
    assert taker.reports == 8, "it counts from where the checkpoint was"
    start = taker.stages[-1].start
    (restored,) = [each for each in stack.client.events(taker.run_id) if each.kind == "restored"][:1]
    assert f"from {start}" in restored.message
    first = next(each for each in runs if each.name == f"population-trial-{taker.number}" and each.id != taker.run_id)
    assert "it goes on from trial" in stack.client.get(first.id).reason.message
    told = stack.evertrain("logs", run.id)
    assert "goes on from trial" in told.stdout, "the driver's lines are the sweep's log"
    assert "population-trial" not in stack.evertrain("list").stdout
    assert "population-trial" in stack.evertrain("list", "--all").stdout


def test_a_population_that_is_cancelled_while_a_trial_changes_leaves_nothing_alive(stack: Stack) -> None:
    run = stack.client.submit(population_file("undone", 500))
    until(stack, run.id, changed)
    stack.client.cancel(run.id)
    assert stack.client.wait(run.id).state == "CANCELLED"
    for each in stack.client.list(sweep=run.id):
        assert stack.client.wait(each.id).state == "CANCELLED"
    assert drivers(stack) == []


def test_a_metric_that_nobody_reports_ends_the_sweep_after_the_first_report(stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("from trainers.recipes.digits_cnn import digits_cnn as make_task\n")
    run_file = sweep_file("misspelt", metric="val_acuracy")
    run_file |= {"entrypoint": "mine:make_task", "code": str(tmp_path), "data": {"source": "sklearn://digits"}}
    del run_file["recipe"]
    ended = stack.client.wait(stack.client.submit(run_file).id)
    assert ended.state == "FAILED"
    assert "val_acuracy was not reported" in ended.reason.message
    assert "did you mean val_accuracy?" in ended.reason.message


def test_two_sweeps_share_a_queue_and_a_point_that_cannot_work_is_infeasible(stack: Stack, tmp_path: Path) -> None:
    too_large = {"train.global_batch": {"choice": [128, 4096]}}
    one = stack.client.submit(sweep_file("infeasible", epochs=1, space=too_large, scheduler="fifo"))
    only = stack.client.submit(sweep_file("one-point", epochs=1, space={"model.width": {"choice": [8]}}))
    for run, states in ((one, [TrialState.COMPLETED, TrialState.INFEASIBLE]), (only, [TrialState.COMPLETED])):
        ended = stack.client.wait(run.id)
        assert ended.state == "SUCCEEDED", ended.reason
        trials = stack.client.sweep(run.id).trials
        assert sorted(each.state for each in trials) == states
    refused = next(each for each in stack.client.sweep(one.id).trials if each.state is TrialState.INFEASIBLE)
    assert "train.global_batch" in refused.reason
    assert stack.evertrain("sweep", "export", one.id, "--to", str(tmp_path / "t.csv")).returncode == 0
    assert len((tmp_path / "t.csv").read_text().splitlines()) == 3


def test_a_sweep_that_is_stopped_keeps_its_best_and_one_that_is_cancelled_leaves_no_trial_alive(stack: Stack) -> None:
    kept = stack.client.submit(sweep_file("stopped", epochs=500, scheduler="fifo"))
    until(stack, kept.id, lambda sweep: any(each.curve for each in sweep.trials))
    assert stack.evertrain("sweep", "stop", kept.id, "--reason", "enough").returncode == 0
    ended = stack.client.wait(kept.id)
    assert ended.state == "SUCCEEDED", ended.reason
    assert "enough" in ended.reason.message
    assert ended.result is not None
    assert ended.result.checkpoint is not None
    gone = stack.client.submit(sweep_file("cancelled", epochs=500))
    until(stack, gone.id, lambda sweep: any(each.state is TrialState.RUNNING for each in sweep.trials))
    stack.client.cancel(gone.id)
    assert stack.client.wait(gone.id).state == "CANCELLED"
    for each in stack.client.list(sweep=gone.id):
        assert stack.client.wait(each.id).state == "CANCELLED"
    assert drivers(stack) == []


def test_trials_yield_to_a_run_of_higher_priority_and_go_on_from_their_checkpoints(stack: Stack) -> None:
    run = stack.client.submit(sweep_file("yields", epochs=16, scheduler="fifo", trials=3, priority=20))
    before = until(stack, run.id, ended_and_training)
    whole_cluster = {"workers": 4, "cpu": 1}
    urgent = stack.client.wait(stack.client.submit(digits("urgent", priority=80, resources=whole_cluster)).id)
    assert urgent.state == "SUCCEEDED", urgent.reason
    ended = stack.client.wait(run.id)
    assert ended.state == "SUCCEEDED", ended.reason
    sweep = stack.client.sweep(run.id)
    assert [(each.state, each.reports) for each in sweep.trials] == [(TrialState.COMPLETED, 16)] * 3
    assert len(list(stack.client.list(sweep=run.id))) == 3
    over = [each for each in before.trials if not each.live]
    assert [sweep.trials[each.number].ended_at for each in over] == [each.ended_at for each in over], (
        "no trial ran twice"
    )
    told = [list(stack.client.events(each.run_id)) for each in sweep.trials]
    yielded = [events for events in told if any("makes room for urgent" in each.message for each in events)]
    assert yielded
    for events in yielded:
        assert [each.data["reason"] for each in events if each.kind == "queued"] == ["preempted"]
        kinds = [each.kind for each in events]
        resumed = [each for each in events if each.kind == "restored"][-1].data["step"]
        assert (resumed > 0) == ("epoch" in kinds[: kinds.index("stopping")]), "only what had trained has a checkpoint"
        assert sorted({each.data["epoch"] for each in events if each.kind == "epoch"}) == list(range(16))


def ended_and_training(sweep: Sweep) -> bool:
    trains = any(each.state is TrialState.RUNNING and each.curve for each in sweep.trials)
    return trains and any(not each.live for each in sweep.trials)


def test_cmaes_with_median_and_a_warm_start_by_it_watched_on_a_terminal(stack: Stack) -> None:
    space = {"train.lr": {"log": [1e-4, 3e-2]}, "model.dropout": {"uniform": [0.0, 0.5]}}
    alone = {"resources": {"workers": 1, "cpu": 1}}
    first = sweep_file("evolved", epochs=3, algorithm="cmaes", scheduler={"type": "median", "grace": 1}, space=space)
    run = stack.client.submit(first | alone)
    screen = on_a_terminal(stack, "watch", run.id)
    assert stack.client.get(run.id).state == "SUCCEEDED", stack.client.get(run.id).reason
    for words in ("TRIAL", "VAL_ACCURACY", "running", "/4", "best val_accuracy"):
        assert words in screen
    assert "\x1b[" in screen, "it draws over itself"
    searched = stack.client.sweep(run.id)
    assert [each.number for each in searched.trials if each.curve] == [0, 1, 2, 3]
    again = sweep_file(
        "warmed", epochs=1, algorithm="tpe", scheduler="fifo", space=space, trials=2, warm_start="evolved"
    )
    warmed = stack.client.wait(stack.client.submit(again | alone).id)
    assert warmed.state == "SUCCEEDED", warmed.reason
    assert stack.client.get(warmed.id).spec["search"]["warm_start"] == run.id
    assert len(stack.client.sweep(warmed.id).trials) == 2


def on_a_terminal(stack: Stack, *words: str) -> str:
    """All that a command writes to a terminal of 200 columns."""
    screen, keyboard = pty.openpty()
    fcntl.ioctl(keyboard, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 200, 0, 0))
    command = [sys.executable, "-m", "orchestrator.cli.app", *words]
    env = {**stack.env, "TERM": "xterm-256color", "COLUMNS": "200"}  # which counts before the terminal's own width
    process = subprocess.Popen(command, env=env, stdin=keyboard, stdout=keyboard, stderr=keyboard)
    os.close(keyboard)
    shown = bytearray()
    with contextlib.suppress(OSError):  # the other side has closed it
        while data := os.read(screen, 65536):
            shown += data
    os.close(screen)
    assert process.wait(PATIENCE_S) == 0, shown.decode(errors="replace")
    return shown.decode(errors="replace")


def test_pb2_proposes_rates_and_its_generations_are_told(stack: Stack, tmp_path: Path) -> None:
    asked = population_file("bandits", 8)
    asked["search"] |= {"algorithm": "pb2", "scheduler": "pb2"}
    run = stack.client.submit(asked)
    ended = stack.client.wait(run.id)
    assert ended.state == "SUCCEEDED", ended.reason
    sweep = stack.client.sweep(run.id)
    assert [each.state for each in sweep.trials] == [TrialState.COMPLETED] * 4
    taker = next(each for each in sweep.trials if each.generation)
    assert taker.parent is not None
    assert f"from trial {taker.parent} at report" in stack.evertrain("sweep", "describe", run.id).stdout.replace(
        "\n", " "
    )
    assert stack.evertrain("sweep", "describe", run.id, "--html", str(tmp_path / "p.html")).returncode == 0
    assert f"from trial {taker.parent} at report" in (tmp_path / "p.html").read_text()


NO_NUMBER = """
from trainers.recipes.digits_cnn import digits_cnn

def make_task(settings):
    task = digits_cnn(settings)
    if settings.train.lr > 0.0035:
        measure = task.measure
        def broken(model, batch):
            told = measure(model, batch)
            return {**told, "accuracy": told["accuracy"] * float("nan")}
        task.measure = broken
    return task
"""


def test_a_trial_whose_metric_is_no_number_is_infeasible_after_its_first_report_and_the_sweep_goes_on(
    stack: Stack, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(NO_NUMBER)
    asked = sweep_file("no-number", algorithm="grid", space={"train.lr": {"choice": [3e-3, 4e-3]}}, epochs=200)
    asked |= {"entrypoint": "mine:make_task", "code": str(tmp_path), "data": {"source": "sklearn://digits"}}
    del asked["recipe"]
    asked["search"] |= {"scheduler": "fifo", "stop": {"max_duration": "2m"}}
    run = stack.client.submit(asked)
    sweep = until(stack, run.id, lambda found: any(each.state is TrialState.INFEASIBLE for each in found.trials))
    broken = next(each for each in sweep.trials if each.state is TrialState.INFEASIBLE)
    assert broken.point["train.lr"] == 4e-3
    assert "val_accuracy was nan at report 1" in broken.reason
    assert broken.curve == ()
    other = until(stack, run.id, lambda found: any(each.reports > 5 for each in found.trials))
    assert other.best is not None
    assert other.best.number != broken.number
    stack.client.cancel(run.id)
