"""What the services work with, and how they call what blocks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import ParamSpec, TypeVar

from google.protobuf.message import Message

from orchestrator import spec
from orchestrator.api.auth import Authenticator, caller
from orchestrator.control.board import Board
from orchestrator.control.commands import Commands
from orchestrator.control.fleet import Fleet
from orchestrator.control.monitors import Monitors
from orchestrator.control.promotions import Promotions
from orchestrator.control.recalls import Recalls
from orchestrator.control.retraining import Retraining
from orchestrator.control.sweeps import Sweeps
from orchestrator.core import lifecycle, money
from orchestrator.core.observations import Progress
from orchestrator.core.runs import Attempt, Queued, Reason, Run
from orchestrator.errors import InvalidSpec, Problem
from orchestrator.ports import BundleStore, Clock, LogStore, ObservationStore, Store, Wakeups
from orchestrator.protocol import convert
from orchestrator.protocol.v1.generated import evertrain_pb2 as pb
from orchestrator.settings import Settings

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Parts:
    settings: Settings
    store: Store
    commands: Commands
    sweeps: Sweeps
    retraining: Retraining
    promotions: Promotions
    recalls: Recalls
    board: Board
    fleet: Fleet
    logs: LogStore
    bundles: BundleStore
    observations: ObservationStore
    monitors: Monitors
    wakeups: Wakeups
    clock: Clock
    authenticator: Authenticator
    executor: Executor
    server_id: str

    async def blocking(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call what blocks in one of the API's own threads."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.executor, lambda: function(*args, **kwargs))

    async def find_run(self, run: str, project: str) -> Run:
        """The run, if the caller may see it. Raises NotFound, Denied."""
        if not run:
            raise bad_request("run", run, "the id or the name of a run is needed")
        return await self.blocking(self.store.run, caller().scope(project), run)

    def reason(self, run: Run) -> Reason:
        """Of a queued run, that of the last scheduling pass, which is not worth a write to the store."""
        newest = self.board.reason(run.id) if isinstance(run.state, Queued) else None
        return newest or run.state.reason

    def progress(self, run: Run) -> Progress | None:
        """Of the current attempt only."""
        progress = self.fleet.progress(run.id)
        current = run.attempts[-1].number if run.attempts else 0
        return progress if progress is not None and progress.attempt == current else None

    def summaries(self, runs: Sequence[Run]) -> list[pb.Run]:
        """Runs of a listing, which the store gives without attempts: the living ones are taken from the board."""
        holdings = {each.run_id: each for each in self.board.holdings()}
        shown = []
        for run in runs:
            held = holdings.get(run.id)
            if held is not None and not run.attempts:
                run = replace(run, attempts=(Attempt(held.attempt, held.cluster, held.shares, run.state_since_at),))
            shown.append(self.summary(run))
        return shown

    def summary(self, run: Run) -> pb.Run:
        return convert.run_summary(
            run,
            reason=self.reason(run),
            liveness=self.fleet.liveness(run),
            progress=None if run.terminal else self.progress(run),
        )

    def detail(self, run: Run) -> pb.Run:
        """Of a sweep it reads the trials, which blocks."""
        progress = self.progress(run)
        if run.kind == "sweep":
            ledger, cost = self.sweeps.account(run)
        else:
            shape, live = spec.stored_shape(run.spec), progress.ledger if progress is not None else None
            ledger = lifecycle.ledger(run, workers=shape.workers, now=self.clock.now(), live=live)
            cost = money.cost(shape, self.settings.prices, ledger)
        return convert.run_detail(
            run,
            reason=self.reason(run),
            ledger=ledger,
            liveness=self.fleet.liveness(run),
            progress=progress,
            cost=cost,
        )


T = TypeVar("T")


def parse(message: Message, cls: type[T]) -> T:
    """A message as a core value. Raises InvalidSpec."""
    try:
        return convert.from_proto(message, cls)
    except ValueError as error:
        raise bad_request(message.DESCRIPTOR.name, "a message", str(error)) from error


def bad_request(field: str, got: object, message: str) -> InvalidSpec:
    return InvalidSpec([Problem(field, str(got)[:80], message)])
