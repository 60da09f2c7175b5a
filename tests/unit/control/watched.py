"""A plane whose model is watched: one version trained, live rows kept, retraining decided on and carried out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from orchestrator.adapters.memory_observations import MemoryObservationStore
from orchestrator.adapters.snapshots import ParquetSnapshots
from orchestrator.control.challengers import Challengers
from orchestrator.control.fleet import Session
from orchestrator.control.promotions import Promotions
from orchestrator.control.retraining import Retraining
from orchestrator.control.wakeups import LocalWakeups
from orchestrator.core.decisions import DecisionRecord
from orchestrator.core.money import NO_PRICES, Prices
from orchestrator.core.monitors import Monitor
from orchestrator.core.retraining import Cause, Trigger
from orchestrator.core.runs import Run
from orchestrator.drift.batches import write_batch
from orchestrator.ports import ObservationStore, Observed, Store
from tests.builders import attempt_ended
from tests.unit.control.plane import HandClock, Plane, observation

RETRAIN: dict[str, Any] = {"mode": "auto", "minimum_rows": 4, "cooldown": "1h"}
DATA: dict[str, Any] = {"source": "/data/first.parquet", "label": "late"}
RUN: dict[str, Any] = {"recipe": None, "entrypoint": "flights.training:task", "data": DATA}
"""Whose own code holds rows out: no number of them is known to be too low for a proof."""


class Watching:
    """Make another over the same store, observations and directory to restart the server."""

    def __init__(
        self,
        root: Path,
        store: Store | None = None,
        observations: ObservationStore | None = None,
        clock: HandClock | None = None,
        prices: Prices = NO_PRICES,
    ) -> None:
        self.root, self.plane = root, Plane(store, clock, prices)
        self.store, self.clock = self.plane.store, self.plane.clock
        self.observations = observations or MemoryObservationStore()
        self.promotions = Promotions(self.store, self.clock)
        self.retraining = Retraining(
            store=self.store,
            commands=self.plane.commands,
            observations=self.observations,
            snapshots=ParquetSnapshots(self.observations, str(root)),
            challengers=Challengers(
                store=self.store,
                commands=self.plane.commands,
                promotions=self.promotions,
                observations=self.observations,
                clock=self.clock,
                prices=prices,
            ),
            wakeups=LocalWakeups(),
            clock=self.clock,
        )
        self._session: Session | None = None

    async def begin(self, retrain: dict[str, Any] | None = None, **run: Any) -> Run:
        """Train and register version 1, which becomes the champion."""
        monitor = {"retrain": RETRAIN | (retrain or {}), **run.pop("monitor", {})}
        return await self.train(self.plane.submit("flights", monitor=monitor, **{**RUN, **run}))

    async def train(self, run: Run, outcome: str = "succeeded", **ended: Any) -> Run:
        """Let a submitted run end."""
        if self._session is None:
            self._session = await self.plane.attach()
        self.plane.loop.one_pass()
        await self._session.observe([observation(run, attempt_ended(outcome, **ended), seq=1)])
        return self.plane.run(run)

    @property
    def monitor(self) -> Monitor:
        return self.store.monitor("default", "flights")

    def serve(self, seq: int, rows: int = 8, *, version: int = 1, **columns: Any) -> None:
        """Rows whose labels are known."""
        made = {"distance": [float(each) for each in range(rows)], "(label)": [each % 2 for each in range(rows)]}
        self.keep(seq, "rows", rows, version, **{**made, **columns})

    def keep(self, seq: int, kind: Any, rows: int, version: int, **columns: Any) -> None:
        batch = Observed(0, self.clock.now(), "replica", seq, kind, version, rows, write_batch(columns))
        self.observations.append("default", "flights", [batch])

    def drift(self, key: str = "drift/v1/900", severity: int = 3) -> DecisionRecord:
        trigger = Trigger(Cause.DRIFT, key, self.clock.now(), "drift (major): distance", severity)
        return self.retraining.triggered(self.monitor, trigger)

    def now(self, record: DecisionRecord) -> DecisionRecord:
        return self.store.decision(record.project, record.model, record.number)

    def passes(self, number: int = 2) -> None:
        for _ in range(number):
            self.retraining.one_pass()

    def run_of(self, record: DecisionRecord) -> Run:
        return self.store.run(record.project, self.now(record).run)
