"""An attempt on a real Ray: from the order to its end, with faults on the way."""

from __future__ import annotations

import os
import signal
from typing import Any

from orchestrator.core import observations as seen
from orchestrator.core.ledger import TimeClass
from orchestrator.core.runs import Budgets, FailureKind, ReasonCode
from tests.integration.cluster.conftest import Stage

DIGITS: dict[str, Any] = {
    "name": "digits",
    "recipe": "digits_cnn",
    "data": {"source": "sklearn://digits", "split": [0.7, 0.15, 0.15]},
    "train": {"epochs": 2, "global_batch": 64, "optimizer": "adamw", "lr": 1e-3},
    "parallelism": {"zero": 2},
    "checkpoint": {"every_steps": 10, "keep": 3},
}
LONG_DIGITS = {**DIGITS, "train": {**DIGITS["train"], "epochs": 1000}}
ONCE = Budgets(application=0, infrastructure=0)

STEPS = """
import time, torch
weight = torch.zeros(2, requires_grad=True)
optimizer = torch.optim.SGD([weight], lr=0.1)
def step():
    (weight.sum() ** 2 + weight.sum()).backward()
    optimizer.step()
    optimizer.zero_grad()
"""


def test_a_two_rank_deepspeed_run_trains_to_its_end(stage: Stage) -> None:
    key = stage.run(DIGITS)
    ended = stage.server.wait_ended(key)
    assert ended.outcome == "succeeded", ended
    assert ended.result is not None
    assert ended.result.metrics["test_accuracy"] > 0.5
    kinds = [each.what.kind for each in stage.server.observations[key] if each.seq]
    assert kinds[:4] == ["placed", "incarnation_started", "ranks_restored", "first_step"]
    numbers = [each.seq for each in stage.server.observations[key] if each.seq]
    assert numbers == list(range(1, len(kinds) + 1))
    assert ended.ledger.ns[TimeClass.TRAINING] > 0


def test_a_killed_rank_is_recovered_in_place(stage: Stage) -> None:
    key = stage.run({**DIGITS, "train": {**DIGITS["train"], "epochs": 8}})
    started = stage.server.wait_heard(key, seen.IncarnationStarted)
    stage.server.wait_heard(key, seen.CheckpointSealed)
    os.kill(started.pids[1], signal.SIGKILL)
    failed = stage.server.wait_heard(key, seen.IncarnationFailed)
    assert (failed.failure.kind, failed.failure.rank, failed.restarting) == (FailureKind.KILLED, 1, True)
    assert stage.server.wait_heard(key, seen.RanksRestored, 2).step > 0
    assert stage.server.wait_heard(key, seen.FirstStep, 2).recovery_s is not None
    ended = stage.server.wait_ended(key)
    assert ended.outcome == "succeeded"
    assert ended.spent.infrastructure == 1


def test_a_running_attempt_is_cancelled(stage: Stage) -> None:
    key = stage.run(LONG_DIGITS)
    stage.server.wait_heard(key, seen.FirstStep)
    stage.server.stop(key, "cancel")
    ended = stage.server.wait_ended(key)
    assert (ended.outcome, ended.reason.code) == ("cancelled", ReasonCode.CANCELLED_BY_USER)


def test_a_starting_attempt_is_cancelled(stage: Stage) -> None:
    key = stage.run_script("import time; time.sleep(600)")
    stage.server.wait_heard(key, seen.Placed)
    stage.server.stop(key, "cancel")
    assert stage.server.wait_ended(key).outcome == "cancelled"


def test_a_preempted_attempt_seals_a_checkpoint_before_it_ends(stage: Stage) -> None:
    key = stage.run({**LONG_DIGITS, "checkpoint": {"every_steps": 1_000_000, "keep": 3}})
    stage.server.wait_heard(key, seen.EpochEnded)
    stage.server.stop(key, "preempt")
    assert stage.server.wait_ended(key).outcome == "preempted"
    assert stage.server.heard(key, seen.CheckpointSealed)


def test_max_duration_ends_an_attempt(stage: Stage) -> None:
    key = stage.run(LONG_DIGITS, remaining_s=4.0)
    ended = stage.server.wait_ended(key)
    assert (ended.outcome, ended.reason.code) == ("deadline", ReasonCode.DEADLINE)


def test_a_rank_that_raises_is_told_with_its_traceback_and_tried_again(stage: Stage) -> None:
    key = stage.run_script(
        """
        import os, time
        if os.environ["RANK"] == "1":
            raise ZeroDivisionError("of the test")
        time.sleep(600)
        """,
        budgets=Budgets(application=3),
    )
    ended = stage.server.wait_ended(key)
    assert ended.failure is not None
    assert (ended.outcome, ended.failure.kind, ended.failure.rank) == ("failed", FailureKind.APPLICATION, 1)
    assert "ZeroDivisionError: of the test" in ended.failure.traceback
    assert ended.reason.code == ReasonCode.REPEATED_FAILURE
    assert ended.spent.application == 1


def test_an_exception_that_quotes_a_secret_does_not_tell_it(stage: Stage) -> None:
    key = stage.run_script(
        "import os\nraise ValueError('refused: ' + os.environ['API_KEY'])",
        secrets={"API_KEY": "s3cr3t-of-the-test"},
        budgets=ONCE,
    )
    ended = stage.server.wait_ended(key)
    assert ended.failure is not None
    assert "refused: ***" in ended.failure.message
    assert "refused: ***" in ended.failure.traceback
    assert "s3cr3t" not in repr(stage.server.observations[key])


def test_a_syntax_error_ends_the_attempt_at_once(stage: Stage) -> None:
    key = stage.run_script("def broken(:\n")
    ended = stage.server.wait_ended(key)
    assert ended.failure is not None
    assert (ended.outcome, ended.failure.kind) == ("failed", FailureKind.CONFIG)
    assert "script.py:1" in ended.failure.message


def test_a_rank_that_exits_with_0_too_early_is_the_cause(stage: Stage) -> None:
    key = stage.run_script(
        """
        import os, sys, torch, torch.distributed as dist
        dist.init_process_group("gloo")
        if dist.get_rank() == 1:
            os._exit(0)
        dist.barrier()
        """,
        budgets=ONCE,
    )
    ended = stage.server.wait_ended(key)
    assert ended.failure is not None
    assert (ended.failure.kind, ended.failure.rank) == (FailureKind.EXITED_EARLY, 1)


def test_a_rank_that_uses_more_memory_than_it_asked_for_is_ended_with_evidence(stage: Stage) -> None:
    key = stage.run_script(
        """
        import os, time
        hoard = bytearray(os.urandom(1)) * (600 * 2**20) if os.environ["RANK"] == "0" else None
        time.sleep(600)
        """,
        {"resources": {"memory": 400 * 2**20}},
        budgets=ONCE,
    )
    ended = stage.server.wait_ended(key)
    assert ended.failure is not None
    assert (ended.failure.kind, ended.failure.rank) == (FailureKind.OUT_OF_MEMORY, 0)
    assert "of 0.39 GiB allowed" in ended.failure.message


def test_a_rank_that_gives_no_sign_of_life_never_started(stage: Stage) -> None:
    key = stage.run_script("import time; time.sleep(600)", {"start_timeout": 0.001}, budgets=ONCE)
    ended = stage.server.wait_ended(key)
    assert ended.failure is not None
    assert ended.failure.kind == FailureKind.NEVER_STARTED


def test_a_rank_without_progress_is_hung_and_its_stack_is_told(stage: Stage) -> None:
    key = stage.run_script(
        STEPS + "step()\ndef stuck_here():\n    time.sleep(600)\nstuck_here()\n", {"hang_timeout": 2.0}, budgets=ONCE
    )
    ended = stage.server.wait_ended(key)
    assert ended.failure is not None
    assert ended.failure.kind == FailureKind.HUNG
    assert "stuck_here" in ended.failure.traceback
    assert ended.ledger.ns[TimeClass.HUNG] > 0
    assert "stuck_here" in stage.server.text(key)


def test_scripts_get_environment_and_arguments_and_secrets_do_not_reach_the_log(stage: Stage) -> None:
    key = stage.run_script(
        """
        import os, sys
        print("args", sys.argv[1:], "colour", os.environ["COLOUR"], "key", os.environ["API_KEY"], flush=True)
        print("ray", [name for name in os.environ if name.startswith("RAY")], file=sys.stderr)
        """,
        {"args": ["--depth", "3"], "env": {"COLOUR": "blue"}},
        secrets={"API_KEY": "s3cr3t-of-the-test"},
    )
    assert stage.server.wait_ended(key).outcome == "succeeded"
    stage.server.wait("both ranks' lines", lambda: len(stage.server.lines.get(key, ())) >= 4)
    text = stage.server.text(key)
    assert "args ['--depth', '3'] colour blue key ***" in text
    assert "s3cr3t" not in text
    assert "ray []" in text
    assert {line.rank for line in stage.server.lines[key]} == {0, 1}
