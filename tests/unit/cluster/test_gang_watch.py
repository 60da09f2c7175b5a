"""How an incarnation ends, for hosts that do what a test says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cluster.fencing import FENCE_S
from orchestrator.cluster.gang import Coordinator
from orchestrator.cluster.gang_messages import Ended, HostEvent, HostGone, HostSnapshot, RankView, Said, StartRanks
from orchestrator.cluster.gang_story import GangStory
from orchestrator.cluster.gang_watch import (
    Broken,
    Finished,
    GangIncarnation,
    GangState,
    IncarnationEnd,
    Limits,
    Lost,
)
from orchestrator.cluster.outbox import Outbox
from orchestrator.core.failure import RankExit
from orchestrator.core.ledger import Ledger
from orchestrator.core.observations import AttemptEnded, Inspected, Placed
from orchestrator.core.orders import AttemptOrder
from orchestrator.core.runs import FailureKind, Inspection, NodeShare
from trainers import contract
from trainers.contract import ExitCode

DONE = Said(1, 0, contract.Done(step=5, metrics={"accuracy": 1.0}))


class Told:
    """A host whose ranks do what the test wrote down."""

    host, ip = "host-1", "10.0.0.1"

    def __init__(self, *events: HostEvent, survivor: Exception | None = None, silent_s: tuple[float, ...] = ()) -> None:
        """`silent_s`: by rank."""
        self._events, self._survivor, self._silent_s = events, survivor, silent_s
        self.looks = 0
        self.asked: list[StartRanks] = []
        self.dumped: list[int] = []
        self.inspected: list[str] = []

    async def start(self, start: StartRanks) -> tuple[int, ...]:
        self.asked.append(start)
        return (101, 102)

    async def open_store(self, incarnation: int, address: str) -> int:
        return 29500

    async def events(self, after: int, timeout_s: float) -> list[tuple[int, HostEvent]]:
        if self._silent_s and timeout_s:
            while self.looks < 2:
                await asyncio.sleep(0.01)
        if after >= len(self._events) and timeout_s:
            await asyncio.Event().wait()
        return list(enumerate(self._events, 1))[after:]

    async def snapshot(self) -> HostSnapshot:
        self.looks += 1
        views = (
            RankView(rank, True, True, "evaluating", silent_s, False, None)
            for rank, silent_s in enumerate(self._silent_s)
        )
        return HostSnapshot(1, tuple(views), Ledger())

    async def signal_ranks(self, incarnation: int, number: int, *, stopping: bool) -> None:
        pass

    async def close_incarnation(self, incarnation: int) -> None:
        if self._survivor is not None:
            raise self._survivor

    async def dump(self, rank: int) -> str:
        self.dumped.append(rank)
        return f"stack of {rank}"

    async def inspect(self, inspection: Inspection) -> None:
        self.inspected.append(inspection.id)


def ended(rank: int, **facts: Any) -> Ended:
    return Ended(1, RankExit(rank=rank, host="host-1", **facts))


def end_of(
    host: Told, *, script: bool = False, said: Callable[[int, contract.Message], None] = lambda rank, message: None
) -> IncarnationEnd:
    async def story() -> IncarnationEnd:
        incarnation = GangIncarnation(
            1,
            [host],
            GangState(),
            Limits(60.0, 60.0, 30.0, hang_before_steps=not script, must_tell_result=not script),
            world_size=2,
            started=lambda pids: None,
            said=said,
            ticked=lambda snapshots: None,
            inspected=lambda what: None,
        )
        async with asyncio.timeout(20):
            return await incarnation.live((), 8, 6)

    return asyncio.run(story())


def test_ranks_that_all_exit_with_0_and_tell_a_result_have_finished() -> None:
    end = end_of(Told(DONE, ended(0, code=0), ended(1, code=0)))
    assert isinstance(end, Finished)
    assert end.result == DONE.message


def test_ranks_are_told_how_far_the_run_was_and_what_is_sealed() -> None:
    host = Told(DONE, ended(0, code=0), ended(1, code=0))
    end_of(host)
    assert host.asked == [StartRanks(1, "127.0.0.1", 29500, (), furthest_step=8, sealed_step=6)]


def test_ranks_of_a_recipe_that_all_exit_with_0_and_tell_no_result_ended_early() -> None:
    end = end_of(Told(ended(0, code=0), ended(1, code=0)))
    assert isinstance(end, Broken)
    assert end.failure.kind is FailureKind.EXITED_EARLY


def test_a_script_need_not_tell_a_result() -> None:
    assert end_of(Told(ended(0, code=0), ended(1, code=0)), script=True) == Finished(None)


def test_a_rank_that_was_told_to_stop_by_somebody_else_is_no_fault_of_the_run() -> None:
    end = end_of(Told(ended(1, code=ExitCode.STOPPED), ended(0, code=ExitCode.LOST_PEER)))
    assert isinstance(end, Broken)
    assert (end.failure.kind, end.failure.rank) == (FailureKind.KILLED, 1)


@pytest.mark.parametrize("code", [0, 1])
def test_nothing_follows_an_incarnation_of_which_a_rank_lives_on(code: int) -> None:
    survivor = HostGone("host-1", "rank 1 did not end within 10 s of SIGKILL", 20.0)
    end = end_of(Told(DONE, ended(0, code=code), ended(1, code=code), survivor=survivor))
    assert isinstance(end, Lost)
    assert "did not end" in end.failure.message
    assert end.fence_s == 20.0


def test_what_a_rank_said_until_it_was_ended_is_heard_though_another_one_failed_before() -> None:
    """A checkpoint that it sealed meanwhile is what the next incarnation goes on from."""
    sealed = contract.Sealed("/checkpoints/7", 7, 1, 0.1, 0.1)
    heard: list[tuple[int, contract.Message]] = []
    host = Told(ended(1, signal=9), Said(1, 0, sealed), Said(2, 0, sealed))
    assert isinstance(end_of(host, said=lambda rank, message: heard.append((rank, message))), Broken)
    assert heard == [(0, sealed)]


def test_ranks_that_are_all_silent_hang_and_each_ones_stack_is_taken() -> None:
    """In a collective all but one wait: which of them is the one, their stacks must tell."""
    host = Told(silent_s=(61.0, 62.0, 61.5))
    end = end_of(host)
    assert isinstance(end, Broken)
    assert (end.failure.kind, end.failure.rank, end.failure.traceback) == (FailureKind.HUNG, 1, "stack of 1")
    assert sorted(host.dumped) == [0, 1, 2]


def test_a_rank_that_waits_for_one_that_is_at_work_does_not_hang() -> None:
    host = Told(DONE, ended(0, code=0), ended(1, code=0), silent_s=(0.5, 61.0))
    assert isinstance(end_of(host), Finished)
    assert host.dumped == []


def test_a_host_that_fails_to_end_its_ranks_is_fenced_before_anything_follows() -> None:
    end = end_of(Told(ended(0, code=1), ended(1, code=1), survivor=OSError(28, "No space left on device")))
    assert isinstance(end, Lost)
    assert "host-1 is lost: cannot end its ranks: OSError" in end.failure.message
    assert end.fence_s == FENCE_S


def test_an_error_of_the_coordinator_itself_ends_the_attempt_behind_the_fence(tmp_path: Path) -> None:
    """Nobody knows then what was found out about hosts that are gone."""

    class Odd(Told):
        async def start(self, start: StartRanks) -> tuple[int, ...]:
            raise RuntimeError("of the test")

    share = NodeShare("node-1", "host-1", "10.0.0.1", 2)
    order = AttemptOrder("run-1", "default", "a", 1, (share,), {}, "/root")

    async def story() -> AttemptEnded:
        outbox = Outbox(tmp_path, "run-1", 1)
        odd = Odd(survivor=HostGone("host-1", "cut off", 20.0))
        await Coordinator(order, [odd], GangStory(order, outbox), Placed((share,), 0.1, False)).run()
        what = (await outbox.wait_after(0, 0.0))[-1].what
        assert isinstance(what, AttemptEnded)
        return what

    ended = asyncio.run(story())
    assert (ended.outcome, ended.fence_s) == ("lost", FENCE_S)
    assert "RuntimeError: of the test" in ended.reason.message


def test_a_question_that_is_ordered_again_reaches_each_host_once_and_what_was_seen_becomes_an_observation(
    tmp_path: Path,
) -> None:
    seen = Inspected("q-1", 0, True, "rank 0 on host-1: its stacks")
    share = NodeShare("node-1", "host-1", "10.0.0.1", 2)
    order = AttemptOrder("run-1", "default", "a", 1, (share,), {}, "/root")
    asked = Inspection("q-1", "stacks", (0,), "ada", 1.0, 60.0)

    async def story() -> tuple[list[str], list[object]]:
        outbox = Outbox(tmp_path, "run-1", 1)
        host = Told(seen, DONE, ended(0, code=0), ended(1, code=0))
        coordinator = Coordinator(order, [host], GangStory(order, outbox), Placed((share,), 0.1, False))
        coordinator.inspect([asked])
        coordinator.inspect([asked])
        await coordinator.run()
        return host.inspected, [each.what for each in await outbox.wait_after(0, 0.0)]

    inspected, happened = asyncio.run(story())
    assert inspected == ["q-1"]
    assert seen in happened
