"""Runs on the whole stack: server, Ray, agent, zygotes, DeepSpeed ranks."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from orchestrator.errors import Conflict, Refused
from tests.integration.stack.conftest import Stack, digits, kind, long_digits

FAILING_SCRIPTS = {
    "raises": ("raise ValueError('no such luck')", "ValueError: no such luck"),
    "syntax-error": ("def broken(:\n", "syntax error: invalid syntax"),
    "exits-early": (
        "import os, sys, time\nif os.environ['RANK'] == '1': sys.exit(0)\ntime.sleep(600)\n",
        "exited with 0 while other ranks",
    ),
}


def test_a_run_ends_with_a_model_a_verified_checkpoint_and_an_exact_ledger(stack: Stack) -> None:
    run = stack.client.wait(stack.client.submit(digits("happy")).id)
    assert run.state == "SUCCEEDED", run.reason
    assert run.result is not None
    assert run.result.metrics["test_accuracy"] > 0.5
    assert [each.run_id for each in stack.client.models("happy")] == [run.id]
    assert stack.evertrain("checkpoint", "verify", run.id).returncode == 0
    audited = stack.evertrain("checkpoint", "audit", run.id)
    assert audited.returncode == 0
    assert "ended epochs saw every sample once" in audited.stdout
    wall_s = (run.ended_at or 0.0) - run.submitted_at
    assert run.ledger.total_ns / 1e9 == pytest.approx(2 * wall_s, rel=0.02)


def test_lines_of_every_rank_arrive_with_rank_and_incarnation(stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "hello.py").write_text("import os\nprint('hello of', os.environ['RANK'], flush=True)\n")
    run_file = {"name": "hello", "script": "hello.py", "code": str(tmp_path), "resources": {"workers": 2}}
    run = stack.client.wait(stack.client.submit(run_file).id)
    assert run.state == "SUCCEEDED", run.reason
    said = {(line.rank, line.incarnation, line.text) for line in stack.client.logs(run.id, follow=True)}
    assert {(0, 1, "hello of 0"), (1, 1, "hello of 1")} <= said
    alone = stack.evertrain("logs", run.id, "--rank", "1")
    assert "hello of 1" in alone.stdout
    assert "hello of 0" not in alone.stdout


def test_a_killed_rank_is_recovered_in_place_from_the_newest_seal(stack: Stack) -> None:
    run = stack.client.submit(long_digits("killed"))
    started = stack.until(run.id, kind("ranks_started"))
    sealed = stack.until(run.id, kind("checkpoint_sealed"))
    os.kill(int(started.data["pids"][1]), signal.SIGKILL)
    failed = stack.until(run.id, kind("rank_failed"))
    assert "Rank 1" in failed.message
    assert "SIGKILL" in failed.message
    restored = stack.until(run.id, kind("restored"), after=failed.seq)
    assert int(restored.data["step"]) >= int(sealed.data["step"])
    stack.until(run.id, kind("training"), after=failed.seq)
    stack.client.cancel(run.id)
    ended = stack.client.wait(run.id)
    assert ended.state == "CANCELLED"
    assert len(ended.attempts) == 1
    assert [each.number for each in ended.attempts[0].incarnations] == [1, 2]


def test_a_run_is_looked_at_and_profiled_while_it_goes_on(stack: Stack, tmp_path: Path) -> None:
    run = stack.client.submit(long_digits("looked-at"))
    stack.until(run.id, kind("training"))
    looked = stack.evertrain("stacks", run.id)
    assert looked.returncode == 0, looked.stderr
    assert "rank 0 on" in looked.stdout
    assert "rank 1 on" in looked.stdout
    assert looked.stdout.count("Loop.run (trainers/loop.py") == 2, looked.stdout
    trace = tmp_path / "trace.json"
    profiled = stack.evertrain("profile", run.id, "--rank", "1", "--steps", "3", "--out", str(trace))
    assert profiled.returncode == 0, profiled.stderr
    assert "convolution" in profiled.stdout
    steps = [each["name"] for each in json.loads(trace.read_text())["traceEvents"] if each["name"].startswith("step ")]
    assert len(set(steps)) == 3
    told = [each for each in stack.client.events(run.id) if each.kind == "inspected"]
    assert [(each.data["kind"], each.data["ranks"]) for each in told[-1:]] == [("profile", [1])]
    assert Path(told[-1].data["trace"]).parent.name == "profiles"
    unknown = stack.evertrain("stacks", run.id, "--rank", "9")
    assert unknown.returncode == 1
    assert "there is no rank 9: looked-at has ranks 0 to 1" in unknown.stderr
    stack.client.cancel(run.id)
    ended = stack.client.wait(run.id)
    assert [each.number for each in ended.attempts[0].incarnations] == [1]
    assert stack.evertrain("profile", run.id).returncode == 1


def test_killing_the_server_does_not_disturb_training_and_a_rank_killed_meanwhile_is_reported_later(
    stack: Stack,
) -> None:
    run = stack.client.submit(long_digits("no-server"))
    started = stack.until(run.id, kind("ranks_started"))
    sealed = stack.until(run.id, kind("checkpoint_sealed"))
    os.kill(stack.pid("server"), signal.SIGKILL)
    os.kill(int(started.data["pids"][0]), signal.SIGKILL)
    failed = stack.until(run.id, kind("rank_failed"), after=sealed.seq)
    assert "Rank 0" in failed.message
    stack.until(run.id, kind("training"), after=failed.seq)
    assert stack.client.get(run.id).state == "RUNNING"
    stack.client.cancel(run.id)
    assert stack.client.wait(run.id).state == "CANCELLED"


def test_killing_the_agent_does_not_disturb_training_and_a_rank_killed_meanwhile_is_reported_later(
    stack: Stack,
) -> None:
    run = stack.client.submit(long_digits("no-agent"))
    started = stack.until(run.id, kind("ranks_started"))
    sealed = stack.until(run.id, kind("checkpoint_sealed"))
    os.kill(stack.pid("agent"), signal.SIGKILL)
    os.kill(int(started.data["pids"][1]), signal.SIGKILL)
    failed = stack.until(run.id, kind("rank_failed"), after=sealed.seq)
    stack.until(run.id, kind("training"), after=failed.seq)
    stack.client.cancel(run.id)
    ended = stack.client.wait(run.id)
    assert ended.state == "CANCELLED"
    assert len(ended.attempts) == 1


def test_a_second_run_waits_with_a_reason_and_starts_when_there_is_room(stack: Stack) -> None:
    first = stack.client.submit(long_digits("holder", resources={"workers": 4}))
    stack.until(first.id, kind("placed"))
    second = stack.client.submit(digits("waiter"))
    waiting = stack.until(second.id, lambda event: event.kind == "waiting" and "held by holder" in event.message)
    assert "room for 0 of 2 workers now" in waiting.message
    stack.client.cancel(first.id)
    assert stack.client.wait(second.id).state == "SUCCEEDED"


def test_cancelling_before_the_ranks_have_started_ends_it_too(stack: Stack) -> None:
    run = stack.client.submit(long_digits("early-cancel"))
    stack.until(run.id, kind("placed"))
    stack.client.cancel(run.id)
    assert stack.client.wait(run.id).state == "CANCELLED"


@pytest.mark.parametrize("case", FAILING_SCRIPTS)
def test_a_script_that_fails_says_why_and_exits_with_100(stack: Stack, tmp_path: Path, case: str) -> None:
    script, words = FAILING_SCRIPTS[case]
    (tmp_path / "train.py").write_text(script)
    run_file = {"script": "train.py", "code": str(tmp_path), "resources": {"workers": 2}, "retry": {"max_restarts": 0}}
    run = stack.client.submit({"name": case, **run_file})
    watched = stack.evertrain("watch", run.id)
    assert watched.returncode == 100
    described = stack.evertrain("describe", run.id)
    assert words in described.stdout


def test_the_same_traceback_twice_without_a_checkpoint_stops_the_retries(stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("raise ValueError('always')")
    run_file = {"script": "train.py", "code": str(tmp_path), "resources": {"workers": 1}, "retry": {"max_restarts": 5}}
    run = stack.client.wait(stack.client.submit({"name": "repeats", **run_file}).id)
    assert run.state == "FAILED"
    assert run.reason.code == "repeated_failure"
    assert len(run.attempts[0].incarnations) == 2


def test_a_data_path_that_does_not_exist_is_named_and_not_retried(stack: Stack) -> None:
    run_file = digits("no-data", data={"source": "/no/such/file.npz"})
    run = stack.client.wait(stack.client.submit(run_file).id)
    assert run.state == "FAILED"
    assert run.failure is not None
    assert "data.source" in run.failure.message
    assert "/no/such/file.npz" in run.failure.message
    assert len(run.attempts[0].incarnations) == 1


def test_data_that_fail_a_check_end_the_run_with_the_rows_before_anything_is_placed(
    stack: Stack, tmp_path: Path
) -> None:
    np.savez(tmp_path / "images.npz", x=np.zeros((40, 8, 8), np.float32), y=np.arange(40) % 4)
    data = {"source": str(tmp_path / "images.npz"), "prepared": str(tmp_path / "out"), "columns": {"y": {"max": 2}}}
    run = stack.client.submit(digits("bad-rows", data=data))
    ended = stack.client.wait(run.id)
    assert (ended.state, ended.reason.code) == ("FAILED", "not_retriable"), ended.reason
    assert "data.columns.y.max: y must be at most 2: 10 rows, the first 3" in ended.reason.message
    assert "images.npz rows 3, 7, 11, 15, 19" in ended.reason.message
    (attempt,) = ended.attempts
    assert (attempt.placed, attempt.incarnations, attempt.ledger.total_ns) == (False, (), 0)
    told = [event.message for event in stack.client.events(run.id) if event.kind == "preparing"]
    assert any("checking every row" in each for each in told)
    assert "rows 3, 7, 11" in stack.evertrain("describe", run.id).stdout


def test_a_gang_larger_than_the_cluster_is_refused_at_submit(stack: Stack) -> None:
    with pytest.raises(Refused, match="can never be placed"):
        stack.client.submit(digits("huge", resources={"workers": 64}))


def test_one_idempotency_key_is_one_run(stack: Stack) -> None:
    first = stack.client.submit(digits("once"), idempotency_key="the-key")
    again = stack.client.submit(digits("once"), idempotency_key="the-key")
    assert first.id == again.id
    with pytest.raises(Conflict):
        stack.client.submit(digits("another"), idempotency_key="the-key")
    assert stack.client.wait(first.id).state == "SUCCEEDED"


def test_secrets_reach_the_ranks_and_are_redacted_in_the_log(stack: Stack, tmp_path: Path) -> None:
    stack.client.put_secret("PASSWORD", "correct-horse")
    (tmp_path / "train.py").write_text(
        "import os\nprint(len(os.environ['PASSWORD']), 'letters:', os.environ['PASSWORD'], flush=True)\n"
    )
    run_file = {"name": "secretive", "script": "train.py", "code": str(tmp_path), "secrets": ["PASSWORD"]}
    run = stack.client.wait(stack.client.submit(run_file).id)
    assert run.state == "SUCCEEDED", run.reason
    text = "\n".join(line.text for line in stack.client.logs(run.id, follow=True))
    assert "13 letters:" in text
    assert "correct-horse" not in text
