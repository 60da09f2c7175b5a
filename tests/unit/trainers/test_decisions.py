"""Small decisions: the learning rate, the best epoch, what an exception means."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest
import torch

from trainers.config import Schedule
from trainers.contract import FACTS_BYTES, MESSAGE_BYTES, ExitCode, encode
from trainers.errors import BadConfig, BadLoss, Stopped, StorageError, account
from trainers.judgement import Judgement
from trainers.plateau import Plateau, plateau_of
from trainers.result import facts_of
from trainers.schedule import learning_rate_factor


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        (Schedule("constant"), {0: 1.0, 5: 1.0, 10: 1.0}),
        (Schedule("linear"), {0: 1.0, 5: 0.5, 10: 0.0, 11: 0.0}),
        (Schedule("cosine"), {0: 1.0, 5: 0.5, 10: 0.0}),
        (Schedule("linear", final_ratio=0.2), {0: 1.0, 5: 0.6, 10: 0.2}),
        (Schedule("cosine", final_ratio=0.2), {0: 1.0, 5: 0.6, 10: 0.2, 11: 0.2}),
        (Schedule("linear", warmup_steps=4), {0: 0.2, 3: 0.8, 4: 1.0, 7: 0.5, 10: 0.0}),
        (Schedule("linear", warmup_steps=10), {0: 1 / 11, 9: 10 / 11, 10: 1.0}),
        (Schedule("linear", warmup_steps=20), {0: 1 / 21, 10: 11 / 21}),
        (Schedule("one_cycle", final_ratio=0.01), {0: 0.04, 3: 1.0, 10: 0.01}),  # it rises for three of eleven
        (Schedule("one_cycle", warmup_steps=5), {0: 0.04, 5: 1.0, 10: 0.0}),
        (Schedule("plateau", warmup_steps=4), {0: 0.2, 4: 1.0, 10: 1.0}),
    ],
)
def test_the_learning_rate_follows_its_schedule(schedule: Schedule, factors: dict[int, float]) -> None:
    """Of a run of eleven updates: the first follows no update, the last ten."""
    told = {step: learning_rate_factor(step, schedule, total_steps=11) for step in factors}
    assert told == pytest.approx(factors)


@pytest.mark.parametrize("total_steps", [2, 10, 11, 1000])
@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_the_last_update_of_a_run_has_the_final_ratio(kind: Literal["linear", "cosine"], total_steps: int) -> None:
    factor = learning_rate_factor(total_steps - 1, Schedule(kind, final_ratio=0.2), total_steps)
    assert factor == pytest.approx(0.2)


def test_a_run_of_one_update_makes_it_at_the_peak() -> None:
    assert learning_rate_factor(0, Schedule("linear"), total_steps=1) == 1.0


def flat(values: list[float], *, mode: Literal["min", "max"] = "min", least: float = 0.0) -> Plateau:
    state = Plateau(mode, factor=0.1, patience=2, least=least)
    for value in values:
        state = state.after_epoch(value)
    return state


def test_a_plateau_lowers_the_rate_after_so_many_epochs_without_improvement() -> None:
    assert flat([3, 2, 1]).ratio == 1.0
    assert flat([3, 1, 2]).ratio == 1.0
    assert flat([3, 1, 1, 2]).ratio == pytest.approx(0.1)  # a tie is no improvement
    assert flat([3, 1, 1, 2, 2]).ratio == pytest.approx(0.1)  # it counts anew
    assert flat([3, 1, 1, 2, 2, 2]).ratio == pytest.approx(0.01)
    assert flat([3, 1, 1, 2, 2, 2], least=0.05).ratio == 0.05
    assert flat([1, 3, 2, float("nan")], mode="max").ratio == pytest.approx(0.1)


def test_a_plateau_survives_a_checkpoint() -> None:
    state = flat([3, 1, 1, 2, 2])
    assert flat([]).resumed(state.to_extra()) == state


def test_other_schedules_have_no_plateau() -> None:
    assert plateau_of(Schedule("cosine"), "min") is None
    assert plateau_of(Schedule("plateau", factor=0.3), "max") == Plateau("max", 0.3, 2, 0.0)


def judged(values: list[float], *, mode: str = "min", patience: int | None = 2) -> Judgement:
    state = Judgement("val_loss", "max" if mode == "max" else "min", patience)
    for epoch, value in enumerate(values):
        state = state.after_epoch(value, step=10 * (epoch + 1))
    return state


def test_the_best_epoch_is_the_lowest_or_the_highest() -> None:
    assert judged([3, 1, 2]).best_step == 20
    assert judged([3, 1, 2], mode="max").best_step == 10


NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("value", [NAN, INFINITY, -INFINITY])
def test_what_is_no_number_is_never_the_best(value: float, mode: str) -> None:
    state = judged([value, 0.5, value], mode=mode)
    assert (state.best, state.best_step) == (0.5, 20)
    assert judged([value, 0.5, 0.1, 0.7], mode=mode, patience=9).best == (0.1 if mode == "min" else 0.7)


def test_patience_ends_a_run_whose_metric_is_never_a_number() -> None:
    state = judged([NAN, NAN])
    assert (state.best, state.best_step) == (None, None)
    assert state.stop_reason == "val_loss has been no finite number for 2 epochs"


def test_patience_counts_epochs_without_improvement() -> None:
    assert judged([3, 1, 2]).stop_reason is None
    assert judged([3, 1, 2, 0.5, 2]).stop_reason is None
    reason = judged([3, 1, 1, 2]).stop_reason  # a tie is no improvement
    assert reason == "val_loss has not improved for 2 epochs: best 1 at step 20"
    assert judged([3, 1, 1, 2], patience=None).stop_reason is None


@pytest.mark.parametrize(("mode", "values", "early"), [("min", [0.5, 0.2], 0.5), ("max", [470.0, 475.0], 470.0)])
def test_a_target_ends_a_run_once_it_is_reached(mode: str, values: list[float], early: float) -> None:
    state = replace(judged([early], mode=mode, patience=None), target=values[-1])
    assert state.stop_reason is None
    state = state.after_epoch(values[-1], 20)
    assert state.stop_reason == f"val_loss has reached {values[-1]:g} at step 20: the target is {values[-1]:g}"
    assert replace(state, target=None).stop_reason is None


def test_judgement_survives_a_checkpoint() -> None:
    state = judged([3, 1]).sealed("c2").after_epoch(2, 30)
    fresh = Judgement("val_loss", "min", 2)
    assert fresh.resumed(state.to_extra(), "c3", 30) == state


def test_a_best_checkpoint_learns_its_own_name() -> None:
    state = judged([3, 1])
    resumed = Judgement("val_loss", "min", 2).resumed(state.to_extra(), "c2", 20)
    assert resumed.best_checkpoint == "c2"


GLOO = "[../gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:37311"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RuntimeError(GLOO), ExitCode.LOST_PEER),
        (torch.distributed.DistBackendError("NCCL error: remote process exited"), ExitCode.LOST_PEER),
        (torch.distributed.DistNetworkError("failed to recv, got 0 bytes"), ExitCode.LOST_PEER),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), ExitCode.OUT_OF_MEMORY),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), ExitCode.OUT_OF_MEMORY),
        (MemoryError(), ExitCode.OUT_OF_MEMORY),
        (BadLoss("the loss became nan"), ExitCode.BAD_LOSS),
        (BadConfig("train.lr", 0, "must be above 0"), ExitCode.BAD_CONFIG),
        (Stopped("stopped by SIGTERM"), ExitCode.STOPPED),
        (ConnectionResetError("connection reset by peer"), ExitCode.APPLICATION),  # the user's own socket
        (RuntimeError("shapes do not fit"), ExitCode.APPLICATION),
        (KeyboardInterrupt(), ExitCode.APPLICATION),
    ],
)
def test_every_end_has_its_exit_code(error: BaseException, code: ExitCode) -> None:
    failed = account(error, step=12)
    assert (failed.code, failed.step) == (code, 12)
    assert failed.secondary == (code == ExitCode.LOST_PEER)
    assert failed.message
    assert "\n" not in failed.message


@pytest.mark.parametrize("text", ["x", "\n", "\N{PILE OF POO}"])
def test_an_account_fits_into_a_message_however_much_an_error_says(text: str) -> None:
    """The host closes a connection that sends more, and with it everything that waits behind."""
    for error in (
        RuntimeError("head " + text * 3_000_000 + " tail"),
        StorageError("head " + text * 3_000_000 + " tail"),
    ):
        failed = account(error, step=1)
        assert len(encode(failed)) < MESSAGE_BYTES
    failed = account(RuntimeError("head " + "x" * 3_000_000 + " tail"), step=1)
    assert failed.traceback.startswith("RuntimeError: head xxx")
    assert failed.traceback.endswith("xxx tail\n")
    assert " characters cut ...]" in failed.traceback
    told = account(StorageError("head " + "x" * 3_000_000 + " tail"), step=1).message
    assert told.startswith("head xxx")
    assert told.endswith("xxx tail")
    assert "[... 2995914 characters cut ...]" in told


def test_a_profile_goes_with_the_result_unless_no_message_could_carry_it() -> None:
    assert facts_of(None, {}) == ({}, None)
    assert facts_of({"rows": 7}, {}) == ({"profile": {"rows": 7}}, None)
    facts, said = facts_of({"x": "x" * FACTS_BYTES}, {"micro_batch": 4})
    assert facts == {"automatic": {"micro_batch": 4}}
    assert said is not None
    assert "in its checkpoint alone: 524343 bytes" in said
