"""How an attempt under `launcher: ray_train` is led, with a driver that is a script of the test."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cluster import ray_train
from orchestrator.cluster.gang import Coordinator
from orchestrator.cluster.gang_messages import Bind, StartRanks
from orchestrator.cluster.gang_story import GangStory
from orchestrator.cluster.host import Host, HostIdentity
from orchestrator.cluster.local_dirs import NodeDirs
from orchestrator.cluster.outbox import Outbox
from orchestrator.cluster.ray_train import RayTrainRanks
from orchestrator.core.observations import AttemptEnded, Happening, IncarnationFailed, Placed
from orchestrator.core.orders import AttemptOrder
from orchestrator.core.runs import Budgets, FailureKind, NodeShare, ReasonCode, Spent
from trainers import contract
from trainers.contract import ExitCode

PATIENCE_S = 60.0  # a bound for hanging, not a measurement
SHARE = NodeShare("node-1", "host-1", "127.0.0.1", 2)
PLACED = Placed((SHARE,), 0.0)
WAITS = "import time; time.sleep(600)"
DIES = "raise SystemExit('no such image')"
NOWHERE = 4_000_000  # above every process id


class NoServices:
    """Of a node whose ranks somebody else starts."""

    async def zygote(self, environment: Mapping[str, object], accelerator: str) -> str:
        raise AssertionError("Ray Train needs no zygote")

    async def seize_cpus(self, owner: str, count: int) -> tuple[int, ...] | None:
        return None

    async def release_cpus(self, owner: str) -> None: ...


@dataclass
class Led:
    """What has become of an attempt."""

    happened: list[Happening]
    log: list[str]

    @property
    def ended(self) -> AttemptEnded:
        assert isinstance(self.happened[-1], AttemptEnded)
        return self.happened[-1]

    @property
    def failures(self) -> list[IncarnationFailed]:
        return [each for each in self.happened if isinstance(each, IncarnationFailed)]


def order(**changes: Any) -> AttemptOrder:
    values: dict[str, Any] = {
        "run_id": "run-1",
        "project": "default",
        "run_name": "run",
        "attempt": 1,
        "shares": (SHARE,),
        "spec": {"recipe": "digits_cnn", "launcher": "ray_train", "resources": {"workers": 2}},
        "checkpoint_root": "/checkpoints",
    }
    return AttemptOrder(**{**values, **changes})


Play = Callable[[RayTrainRanks, int], Coroutine[Any, Any, None]]


class Played(RayTrainRanks):
    """Whose workers do what `play` says, given the incarnation."""

    def __init__(self, play: Play, bind: Bind, host: Host) -> None:
        super().__init__(bind, host, leader="gang-1/0", gcs_address="127.0.0.1:1")
        self._play = play

    async def start(self, start: StartRanks) -> tuple[int, ...]:
        playing = asyncio.create_task(self._play(self, start.incarnation))
        try:
            return await super().start(start)
        finally:
            await asyncio.wait({playing}, timeout=PATIENCE_S)


async def idle(ranks: RayTrainRanks, incarnation: int) -> None:
    """No worker ever begins."""


async def join(ranks: RayTrainRanks, incarnation: int, given: list[dict[str, str]] | None = None) -> None:
    """Both workers begin, as soon as they may; `given` takes the environment of each."""
    for rank in (0, 1):
        joined = False
        while not joined:
            with contextlib.suppress(RuntimeError):
                _, env = ranks.join(incarnation, rank, NOWHERE + rank, "node-1", "/s", "/p", None)
                joined = True
                if given is not None:
                    given.append(env)
            await asyncio.sleep(0.01)


def fail(ranks: RayTrainRanks, incarnation: int, rank: int, code: int, *, secondary: bool = False) -> None:
    said = contract.Failed(code=code, message="no such column", traceback="line 1", step=7, secondary=secondary)
    ranks.said(incarnation, rank, contract.encode(said))
    ranks.left(incarnation, rank, code)


class Lead:
    """Leads one attempt to its end; the driver is `driver`, a Python script."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._directory, self._monkeypatch = directory, monkeypatch
        self._dirs = NodeDirs(str(directory / "n"), "node-1")

    def __call__(
        self,
        driver: str,
        play: Play = idle,
        python: str = sys.executable,
        **changes: Any,
    ) -> Led:
        script = self._directory / "driver.py"
        script.write_text(driver)
        self._monkeypatch.setattr(ray_train, "DRIVER", (python, str(script)))
        return asyncio.run(asyncio.wait_for(self._lead(order(**changes), play), PATIENCE_S))

    async def _lead(self, the_order: AttemptOrder, play: Play) -> Led:
        host = Host(HostIdentity("gang-1/0", SHARE.host, SHARE.ip), self._dirs, NoServices(), unpack=lambda *_: None)
        bind = Bind(the_order, 0)
        await host.bind(bind)
        outbox = Outbox(self._dirs.attempt(the_order.run_id, the_order.attempt), the_order.run_id, the_order.attempt)
        story = GangStory(the_order, outbox)
        await Coordinator(the_order, [Played(play, bind, host)], story, PLACED).run()
        report = await story.report(0, 0, 0.0)
        lines = await host.log_lines(0, 0, 1000, 0.0)
        outbox.close()
        await host.release()
        return Led([each.what for each in report.observations], [line.text for line in lines])


@pytest.fixture
def lead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lead:
    return Lead(tmp_path, monkeypatch)


def test_a_line_of_any_length_is_cut_and_hinders_nobody(lead: Lead) -> None:
    led = lead("print('x' * 3_000_000); print('after'); raise SystemExit(3)", budgets=Budgets(infrastructure=0))
    assert [line[:5] for line in led.log] == ["xxxxx", "after"]
    assert led.log[0].endswith("line cut at 16384 bytes]")
    assert led.ended.outcome == "failed"


def test_an_error_of_our_own_ends_the_attempt_as_lost(lead: Lead) -> None:
    """Nobody awaits the leader's task: an error that it raised would leave an attempt that never ends."""
    ended = lead(WAITS, python="/nothing-there").ended
    assert ended.outcome == "lost"
    assert ended.failure is not None
    assert "nothing-there" in ended.failure.message


def test_a_fit_that_never_starts_spends_what_is_left_of_the_budget(lead: Lead) -> None:
    led = lead(DIES, budgets=Budgets(infrastructure=4), spent=Spent(application=1, infrastructure=3))
    assert [each.restarting for each in led.failures] == [True, False]
    assert led.ended.spent == Spent(application=1, infrastructure=4)
    assert led.ended.reason.code == ReasonCode.BUDGET_SPENT
    assert led.ended.failure is not None
    assert led.ended.failure.kind == FailureKind.NEVER_STARTED
    assert "no such image" in led.ended.failure.message


def test_what_can_never_work_is_not_tried_again(lead: Lead) -> None:
    async def play(ranks: RayTrainRanks, incarnation: int) -> None:
        await join(ranks, incarnation)
        fail(ranks, incarnation, 0, ExitCode.BAD_CONFIG)

    led = lead(WAITS, play)
    assert [each.restarting for each in led.failures] == [False]
    assert led.ended.reason.code == ReasonCode.NOT_RETRIABLE
    assert led.ended.spent == Spent()


def test_the_same_failure_twice_ends_the_run_and_is_booked_as_the_users(lead: Lead) -> None:
    async def play(ranks: RayTrainRanks, incarnation: int) -> None:
        await join(ranks, incarnation)
        fail(ranks, incarnation, 1, ExitCode.LOST_PEER, secondary=True)
        fail(ranks, incarnation, 0, ExitCode.APPLICATION)

    led = lead(WAITS, play)
    assert [each.restarting for each in led.failures] == [True, False]
    assert led.ended.reason.code == ReasonCode.REPEATED_FAILURE
    assert led.ended.spent == Spent(application=1)
    assert led.ended.failure is not None
    assert (led.ended.failure.rank, led.ended.failure.host) == (0, "host-1")


def test_a_rank_that_said_nothing_is_the_cause_when_ray_train_names_it(lead: Lead, tmp_path: Path) -> None:
    async def play(ranks: RayTrainRanks, incarnation: int) -> None:
        await join(ranks, incarnation)
        fail(ranks, incarnation, 0, ExitCode.LOST_PEER, secondary=True)
        ranks.failed(incarnation, {0: "RuntimeError", 1: "The actor died unexpectedly"})
        (tmp_path / "over").touch()

    over = (
        f"import os, time\nwhile not os.path.exists({str(tmp_path / 'over')!r}): time.sleep(0.02)\nraise SystemExit(1)"
    )
    led = lead(over, play, budgets=Budgets(infrastructure=0))
    failure = led.ended.failure
    assert failure is not None
    assert (failure.kind, failure.rank) == (FailureKind.KILLED, 1)
    assert "The actor died unexpectedly" in failure.message


def test_ranks_that_finish_are_a_success(lead: Lead) -> None:
    async def play(ranks: RayTrainRanks, incarnation: int) -> None:
        await join(ranks, incarnation)
        ranks.said(incarnation, 0, contract.encode(contract.Done(step=9, metrics={"accuracy": 1.0})))
        for rank in (0, 1):
            ranks.left(incarnation, rank, 0)

    led = lead("", play)
    assert led.ended.outcome == "succeeded"
    assert led.ended.result is not None
    assert led.ended.result.step == 9


def test_secrets_reach_the_ranks_and_nothing_that_ray_train_keeps(lead: Lead, tmp_path: Path) -> None:
    given: list[dict[str, str]] = []
    job = tmp_path / "job"

    async def play(ranks: RayTrainRanks, incarnation: int) -> None:
        await join(ranks, incarnation, given)
        while not job.exists() or not job.read_text().endswith("\n"):
            await asyncio.sleep(0.02)
        fail(ranks, incarnation, 0, ExitCode.BAD_CONFIG)

    spec = {**order().spec, "env": {"LEVEL": 3}}
    keeps = f"import sys, time; open({str(job)!r}, 'w').write(sys.stdin.readline()); time.sleep(600)"
    lead(keeps, play, spec=spec, secrets={"TOKEN": "hush-hush"})
    assert given == [{"LEVEL": "3", "TOKEN": "hush-hush"}] * 2
    assert "hush" not in job.read_text()


def test_ranks_that_do_not_begin_in_time_are_given_up(lead: Lead) -> None:
    failure = lead(WAITS, spec={**order().spec, "start_timeout": 0.5}, budgets=Budgets(infrastructure=0)).ended.failure
    assert failure is not None
    assert failure.kind == FailureKind.NEVER_STARTED
    assert "0 of 2 ranks within 0.5 s (start_timeout)" in failure.message


def test_a_rank_without_progress_is_hung(lead: Lead) -> None:
    async def play(ranks: RayTrainRanks, incarnation: int) -> None:
        await join(ranks, incarnation)
        for rank in (0, 1):
            ranks.said(incarnation, rank, contract.encode(contract.Hello(rank=rank, pid=NOWHERE + rank)))

    failure = lead(
        WAITS, play, spec={**order().spec, "hang_timeout": 0.5}, budgets=Budgets(infrastructure=0)
    ).ended.failure
    assert failure is not None
    assert failure.kind == FailureKind.HUNG


def test_a_rank_that_ended_itself_for_its_memory_ran_out_of_it(lead: Lead) -> None:
    async def play(ranks: RayTrainRanks, incarnation: int) -> None:
        await join(ranks, incarnation)
        fail(ranks, incarnation, 0, ExitCode.LOST_PEER, secondary=True)
        ranks.over_memory(incarnation, 1, "2.10 GiB used of 2.00 GiB allowed")

    failure = lead(WAITS, play, budgets=Budgets(application=0)).ended.failure
    assert failure is not None
    assert (failure.kind, failure.rank) == (FailureKind.OUT_OF_MEMORY, 1)
