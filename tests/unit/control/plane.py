"""The control plane on the in-memory store, with a clock that the test moves."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from orchestrator.control.board import Board
from orchestrator.control.clusters import Clusters
from orchestrator.control.commands import Commands, SubmitCommand
from orchestrator.control.fleet import Fleet, Session
from orchestrator.control.loop import Loop
from orchestrator.control.runs import RunRecords
from orchestrator.control.startup import fill_board
from orchestrator.control.wakeups import LocalWakeups
from orchestrator.core.money import Prices
from orchestrator.core.observations import Happening, Observation
from orchestrator.core.runs import Run
from orchestrator.core.scheduling.fit import Node
from orchestrator.errors import NotFound
from orchestrator.ports import Store
from orchestrator.store.memory import MemoryStore
from tests.builders import node

NODES = (node("a", cpu=4),)


@dataclass
class HandClock:
    """Stands still until the test moves it."""

    wall: float = 1000.0
    ns: int = 0

    def now(self) -> float:
        return self.wall

    def monotonic_ns(self) -> int:
        return self.ns

    def forward(self, seconds: float) -> None:
        self.wall += seconds
        self.ns += int(seconds * 1e9)


class NoBundles:
    def put(self, project: str, data: bytes) -> str:
        raise NotFound("this plane keeps no bundles")

    def has(self, project: str, sha256: str) -> bool:
        return False

    def get(self, project: str, sha256: str) -> bytes:
        raise NotFound(f"no bundle {sha256}")


class Plane:
    """All of control over one store; make another over the same store to restart the server."""

    def __init__(
        self, store: Store | None = None, clock: HandClock | None = None, prices: Prices | None = None
    ) -> None:
        self.store: Store = store or MemoryStore()
        self.clock = clock or HandClock()
        wakeups = LocalWakeups()
        self.board = Board(self.clock)
        self.records = RunRecords(self.store, self.board, wakeups)
        fill_board(self.board, self.store, self.records, self.clock)
        self.clusters = Clusters(self.store, self.clock)
        self.fleet = Fleet(
            store=self.store,
            records=self.records,
            board=self.board,
            clusters=self.clusters,
            wakeups=wakeups,
            clock=self.clock,
            storage="/storage",
            prices=prices or Prices(),
        )
        self.commands = Commands(
            store=self.store,
            records=self.records,
            board=self.board,
            clusters=self.clusters,
            bundles=NoBundles(),
            clock=self.clock,
            connected=self.fleet.connected,
            prices=prices or Prices(),
        )
        self.loop = Loop(
            records=self.records,
            board=self.board,
            clusters=self.clusters,
            wakeups=wakeups,
            clock=self.clock,
            connected=self.fleet.connected,
        )

    async def attach(
        self, nodes: tuple[Node, ...] = NODES, *, epoch: int = 1, cluster: str = "local", autoscaling: bool = False
    ) -> Session:
        session = await self.fleet.attach(cluster, "*", epoch, "2.60.0", (), autoscaling=autoscaling)
        await session.inventory(nodes)
        return session

    def submit(self, name: str = "digits", *, key: str | None = None, **keys: Any) -> Run:
        self.clock.forward(0.001)
        return self.commands.submit([SubmitCommand("default", json.dumps(document(name, **keys)), "ada", key)])[0].run

    def run(self, run: Run) -> Run:
        return self.store.run(run.project, run.id)


def document(name: str, **keys: Any) -> dict[str, Any]:
    plain = {"name": name, "recipe": "digits_cnn", "train": {"epochs": 1, "global_batch": 128}}
    return plain | {"resources": {"workers": 2}} | keys


def observation(run: Run, what: Happening, *, seq: int = 0, attempt: int = 1) -> Observation:
    return Observation(run.id, attempt, seq, 1000.0, what)
