"""Agent or server away: the gang goes on, recovers by itself, and everything is told afterwards."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import psutil
import pytest

from orchestrator.cluster.agent import EXIT_SUPERSEDED
from orchestrator.core import observations as seen
from orchestrator.core.runs import ReasonCode
from tests.integration.cluster.conftest import Stage
from tests.integration.cluster.recording_server import Key
from tests.integration.cluster.test_attempts import DIGITS, LONG_DIGITS, STEPS

# Steps until the test says that it is enough, and prints a line after each.
UNTIL_TOLD = (
    STEPS
    + """
import os, sys, pathlib
number = 0
while not pathlib.Path(sys.argv[1]).exists():
    step()
    number += 1
    print("line", number, flush=True)
    time.sleep(0.05)
"""
)


def started(stage: Stage, tmp_path: Path) -> tuple[Key, Path, seen.IncarnationStarted]:
    """A script run that steps until the file is there."""
    enough = tmp_path / "enough"
    key = stage.run_script(UNTIL_TOLD, {"args": [str(enough)]})
    first = stage.server.wait_heard(key, seen.IncarnationStarted)
    stage.server.wait_heard(key, seen.FirstStep)
    return key, enough, first


def wait_for_others(pids: tuple[int, ...], stage: Stage) -> None:
    """Until both ranks run that are not `pids`: the gang was started again, without anybody to tell."""

    def names() -> set[str]:
        found = set()
        for each in stage.ranks():
            with contextlib.suppress(psutil.NoSuchProcess):
                found |= {each.name()} if each.pid not in pids else set()
        return found

    stage.server.wait("both ranks again", lambda: {"rank 0", "rank 1"} <= names())


def assert_whole(stage: Stage, key: Key) -> None:
    """No observation is missing, none came twice, and every line of every source is there."""
    numbers = [each.seq for each in stage.server.observations[key] if each.seq]
    assert numbers == list(range(1, len(numbers) + 1))
    stage.server.wait("its lines", lambda: stage.server.lines.get(key))
    for source in {line.source for line in stage.server.lines[key]}:
        lines = sorted(line.seq for line in stage.server.lines[key] if line.source == source)
        assert lines == list(range(1, len(lines) + 1))


def test_a_rank_killed_while_the_agent_is_away_is_recovered_and_reported_later(stage: Stage, tmp_path: Path) -> None:
    key, enough, first = started(stage, tmp_path)
    stage.agent.kill()
    os.kill(first.pids[0], signal.SIGKILL)
    wait_for_others(first.pids, stage)
    assert not stage.server.heard(key, seen.IncarnationFailed)
    hellos = len(stage.server.hellos)
    stage.agent = stage.start_agent()
    stage.wait_attached(hellos + 1)
    assert [(each.run_id, each.attempt) for each in stage.server.hellos[-1].living] == [key]
    stage.server.wait_heard(key, seen.IncarnationFailed)
    stage.server.wait_heard(key, seen.FirstStep, 2)
    enough.touch()
    assert stage.server.wait_ended(key).outcome == "succeeded"
    assert_whole(stage, key)


def test_a_rank_killed_while_the_server_is_away_is_recovered_and_reported_later(stage: Stage, tmp_path: Path) -> None:
    key, enough, first = started(stage, tmp_path)
    stage.server.down()
    os.kill(first.pids[1], signal.SIGKILL)
    wait_for_others(first.pids, stage)
    stage.server.up()
    stage.server.wait_heard(key, seen.IncarnationFailed)
    enough.touch()
    assert stage.server.wait_ended(key).outcome == "succeeded"
    stage.server.wait("the log's end", lambda: stage.server.lines.get(key))
    assert_whole(stage, key)


def test_an_attempt_that_ends_while_everybody_is_away_is_reported_later(stage: Stage, tmp_path: Path) -> None:
    key, enough, first = started(stage, tmp_path)
    stage.agent.kill()
    enough.touch()
    for pid in first.pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(pid).wait(30)
    hellos = len(stage.server.hellos)
    stage.agent = stage.start_agent()
    stage.wait_attached(hellos + 1)
    assert stage.server.wait_ended(key).outcome == "succeeded"
    assert_whole(stage, key)


def test_a_newer_agent_takes_over_and_the_older_one_says_so(stage: Stage, tmp_path: Path) -> None:
    key, enough, _ = started(stage, tmp_path)
    older, hellos = stage.agent, len(stage.server.hellos)
    stage.agent = stage.start_agent()
    stage.wait_attached(hellos + 1)
    assert older.process.wait(30) == EXIT_SUPERSEDED
    assert "another agent has taken over" in older.log.read_text()
    enough.touch()
    assert stage.server.wait_ended(key).outcome == "succeeded"


def test_a_dead_coordinator_is_a_lost_attempt_and_what_it_left_is_told(stage: Stage, tmp_path: Path) -> None:
    key, _, first = started(stage, tmp_path)
    stage.server.acknowledging = False  # what is told from here on is only in the outbox
    (actor,) = stage.host_actors()
    os.kill(first.pids[0], signal.SIGKILL)
    wait_for_others(first.pids, stage)
    actor.kill()
    stage.server.acknowledging = True
    ended = stage.server.wait_ended(key)
    assert (ended.outcome, ended.reason.code, ended.fence_s) == ("lost", ReasonCode.RESCHEDULED, 0.0)
    assert stage.server.heard(key, seen.IncarnationFailed), "the outbox on disk held it"
    assert_whole(stage, key)
    # Their lease closed with the actor; on a busy machine they were seen to live on for 40 ms.
    stage.server.wait("no rank lives", lambda: not stage.ranks())


def test_lines_that_nobody_could_send_before_the_attempt_was_forgotten_are_sent_later(
    stage: Stage, tmp_path: Path
) -> None:
    stage.server.taking_lines = False
    key, enough, _ = started(stage, tmp_path)
    enough.touch()
    assert stage.server.wait_ended(key).outcome == "succeeded"
    assert not stage.server.lines.get(key)
    stage.server.forget(key)
    stage.agent.kill()
    hellos = len(stage.server.hellos)
    stage.agent = stage.start_agent()
    stage.wait_attached(hellos + 1)
    stage.server.taking_lines = True
    stage.server.wait("the log's end", lambda: "line 1" in stage.server.text(key))
    assert_whole(stage, key)


def test_an_attempt_that_was_placed_before_and_is_not_there_is_lost(stage: Stage) -> None:
    key = stage.run(DIGITS, placed=True)
    ended = stage.server.wait_ended(key)
    assert (ended.outcome, ended.failure is not None) == ("lost", True)
    assert not stage.server.heard(key, seen.IncarnationStarted)


def test_an_attempt_that_is_not_wanted_any_more_ends(stage: Stage) -> None:
    key = stage.run(LONG_DIGITS)
    stage.server.wait_heard(key, seen.FirstStep)
    stage.server.forget(key)
    stage.server.wait("no rank lives", lambda: not stage.ranks())
    assert not stage.server.heard(key, seen.AttemptEnded), "its end is told to nobody: nobody asks for it"
    assert stage.agent.process.poll() is None, "its agent serves on"


def test_a_wrong_token_ends_the_agent_with_a_clear_message(stage: Stage) -> None:
    stage.agent.kill()
    agent = stage.start_agent(token="wrong")
    assert agent.process.wait(60) == 1
    assert "the server does not know this token" in agent.log.read_text()


@pytest.fixture(autouse=True)
def _acknowledging(stage: Stage) -> None:
    stage.server.acknowledging = True
    stage.server.taking_lines = True
