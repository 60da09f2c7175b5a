"""Ranks that get ready before their attempt has a slot: on a real Ray, with a real gang."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import replace

import psutil

from orchestrator.cluster.standby import STEPPED_WITHIN_S
from orchestrator.core import observations as seen
from orchestrator.core.ledger import TimeClass
from orchestrator.core.orders import AttemptOrder
from tests.integration.cluster.conftest import Stage
from tests.integration.cluster.test_attempts import DIGITS


def held_pids(stage: Stage, order: AttemptOrder) -> tuple[int, ...]:
    """Once they are at their gate: all that can be seen of it from outside is that they sleep on it."""
    wanted = sum(share.ranks for share in order.shares)
    return tuple(stage.server.wait("ranks that wait", lambda: len(found := at_gate(stage)) == wanted and found))


def at_gate(stage: Stage) -> list[int]:
    """Forks that have a gate open."""
    found = []
    for process in stage.ranks():
        with contextlib.suppress(FileNotFoundError):  # it has ended since it was seen
            names = [os.readlink(f"/proc/{process.pid}/fd/{each}") for each in os.listdir(f"/proc/{process.pid}/fd")]
            if any(name.endswith("/gate") for name in names):
                found.append(process.pid)
    return found


def ahead(stage: Stage) -> AttemptOrder:
    """What the ranks wait in is there already: the gang of a run that has ended."""
    stage.server.wait_ended(stage.run_script("print('before')"))
    return replace(stage.order(DIGITS), ahead=True)


def test_ranks_that_got_ready_train_once_their_attempt_is_placed(stage: Stage) -> None:
    order = ahead(stage)
    key = stage.server.order(order)
    waiting = held_pids(stage, order)
    assert key not in stage.server.observations, "it holds nothing and has nothing to tell"
    assert not os.path.exists(order.checkpoint_root)
    stage.server.order(replace(order, ahead=False))
    started = stage.server.wait_heard(key, seen.IncarnationStarted)
    assert sorted(started.pids) == sorted(waiting)
    ended = stage.server.wait_ended(key)
    assert ended.outcome == "succeeded", ended
    assert stage.server.wait_heard(key, seen.Placed).pooled
    observed = stage.server.observations[key]
    lived_s = observed[-1].at - observed[0].at
    assert ended.ledger.total_ns / 1e9 <= 2 * lived_s + 1.0, "the time before was nobody's"
    assert ended.ledger.ns[TimeClass.TRAINING] > 0
    stage.server.wait("the first line", lambda: "starting afresh" in stage.server.text(key))


def test_nobody_gets_ready_on_the_cores_of_one_that_starts_until_that_takes_too_long(stage: Stage) -> None:
    never_steps = stage.run_script("import time; time.sleep(600)")
    stage.server.wait_heard(never_steps, seen.IncarnationStarted)
    order = replace(stage.order(DIGITS), ahead=True)
    began_s = time.monotonic()
    key = stage.server.order(order)
    held_pids(stage, order)
    assert time.monotonic() - began_s >= STEPPED_WITHIN_S
    for each in (key, never_steps):
        stage.server.forget(each)
    stage.server.wait("no rank lives", lambda: not stage.ranks())


def test_an_attempt_that_is_wanted_no_more_leaves_no_rank_that_waits(stage: Stage) -> None:
    order = ahead(stage)
    key = stage.server.order(order)
    held_pids(stage, order)
    stage.server.forget(key)
    stage.server.wait("no rank waits", lambda: not stage.ranks())


def test_ranks_that_wait_go_with_their_agent_and_the_next_one_has_others_get_ready(stage: Stage) -> None:
    order = ahead(stage)
    key = stage.server.order(order)
    waiting = held_pids(stage, order)
    stage.agent.kill()
    stage.agent = stage.start_agent()
    stage.server.wait(
        "no rank of the first agent waits", lambda: not set(waiting) & {each.pid for each in stage.ranks()}
    )
    again = held_pids(stage, order)
    stage.server.order(replace(order, ahead=False))
    assert sorted(stage.server.wait_heard(key, seen.IncarnationStarted).pids) == sorted(again)
    assert stage.server.wait_ended(key).outcome == "succeeded"


def test_a_rank_that_dies_while_it_waits_costs_nothing_but_a_start(stage: Stage) -> None:
    order = ahead(stage)
    key = stage.server.order(order)
    waiting = held_pids(stage, order)
    os.kill(waiting[0], signal.SIGKILL)
    stage.server.wait("its end", lambda: not psutil.pid_exists(waiting[0]))
    stage.server.order(replace(order, ahead=False))
    ended = stage.server.wait_ended(key)
    assert (ended.outcome, ended.spent.infrastructure) == ("succeeded", 0)
    assert not stage.server.heard(key, seen.IncarnationFailed)
    stage.server.forget(key)
    stage.server.wait("no rank lives", lambda: not stage.ranks())


def test_whoever_needs_the_place_has_it(stage: Stage) -> None:
    order = ahead(stage)
    stage.server.order(order)
    held_pids(stage, order)
    wide = stage.run_script("print('wide')", {"resources": {"workers": 1, "cpu": 4}})
    assert stage.server.wait_ended(wide).outcome == "succeeded"
    assert at_gate(stage) == []
    stage.server.forget((order.run_id, order.attempt))
