"""A trial as Ray Tune runs it: thin, for the gang that trains is ours. `step` waits for the next report of the metric."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping
from typing import Any

from ray.tune import Trainable

from orchestrator.cluster.search_line import Address, SearchLine
from orchestrator.cluster.search_points import OBJECTIVE, REPORT
from orchestrator.core.runs import TERMINAL_NAMES
from orchestrator.core.sweeps import missing_metric
from orchestrator.protocol.convert import from_struct
from orchestrator.protocol.v1.generated import evertrain_pb2 as pb
from orchestrator.spec.problems import suggest
from orchestrator.spec.search import Search, reports

Kept = Mapping[int, tuple[int, tuple[int, ...]]]
"""Of trials from before this driver, by number: the last report, and those that the scheduler hears again."""


class SweepTrial(Trainable):
    """One actor serves one trial after the other: a new config costs no process, and the gang comes from the agent's pool.

    What it answers of a step: the report's number and value, `run`, and at the end `whole` (the run ended by itself),
    `infeasible` (why the point cannot work) or `missing` (why the metric can never be there).
    """

    _run: pb.Run | None
    _updates: Generator[pb.RunUpdate, None, None] | None

    def setup(  # type: ignore[override]  # Tune's with_parameters adds the rest
        self, config: dict[str, Any], address: Address, document: Mapping[str, Any], kept: Kept
    ) -> None:
        """`document` is the sweep's run file."""
        self._line = SearchLine(address)
        search = document["search"]
        self._metric, self._scheduler, self._kept = search["metric"], search["scheduler"]["type"], kept
        self._population = Search.model_validate(search).population
        self._most = _most(document)
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._leave()
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Raises Refused when the server wants this driver no more."""
        if self._updates is None:
            run = self._line.start_trial(self._number, self._point, self._generation, self._start)
            self._run_id, self._updates = run.id, self._line.updates(run.id)
        while True:
            if (result := self._next()) is not None:
                return result
            for update in self._updates:
                if update.HasField("run"):
                    self._run = update.run
                self._waiting += [_report(event) for event in update.events if event.kind == "epoch"]
                if (result := self._next()) is not None:
                    return result
            if not self._goes_on():
                return self._next() or self._end()

    def cleanup(self) -> None:
        self._leave()
        self._line.close()

    def _begin(self, config: Mapping[str, Any]) -> None:
        self._number: int = config["trial"]
        self._point: Mapping[str, Any] = config["point"]
        self._generation: int = config.get("generation", 0)
        self._start: str = config.get("start", "")
        self._known, self._heard_again = self._kept.get(self._number, (0, ()))
        self._run_id = ""
        self._run = None
        self._updates = None
        self._waiting: list[tuple[int, Mapping[str, float]]] = []
        self._last: tuple[int, float] = (0, math.nan)

    def _goes_on(self) -> bool:
        """Whether the trial goes on as another run than the one that has ended, and is heard as that from now on."""
        if not self._population:
            return False
        trials = self._line.sweep().trials
        mine = next((each for each in trials if each.number == self._number), None)
        if mine is None or mine.generation <= self._generation:
            return False
        self._generation, self._run_id, self._run = mine.generation, mine.run_id, None
        self._updates = self._line.updates(mine.run_id)
        self._last = (0, math.nan)  # it counts from where its checkpoint was
        return True

    def _next(self) -> dict[str, Any] | None:
        """The next report that is news. A run that was moved tells some epochs again."""
        while self._waiting:
            report, metrics = self._waiting.pop(0)
            if report <= self._last[0]:
                continue
            if self._metric not in metrics:
                words = missing_metric(self._metric, metrics, suggest(self._metric, metrics) if metrics else "")
                return self._told(done=True, missing=words)
            value = float(metrics[self._metric])
            if not math.isfinite(value):
                return self._told(done=True, infeasible=f"{self._metric} was {value} at report {report}")
            self._last = (report, value)
            if report <= self._known and report not in self._heard_again:
                continue
            if self._most is not None and report >= self._most:
                continue  # the last one is told when the run has ended: its last seal and its test are not to be cut off
            return self._told()
        return None

    def _end(self) -> dict[str, Any]:
        state = self._run.state if self._run is not None else "unknown"
        reason = self._run.reason.message if self._run is not None else ""
        if state == "SUCCEEDED" and not self._last[0] and not self._generation:
            names = self._run.result.metrics if self._run is not None else {}
            words = missing_metric(self._metric, names, suggest(self._metric, names) if names else "")
            return self._told(done=True, missing=words)
        if state == "SUCCEEDED":
            return self._told(done=True, whole=True)
        return self._told(done=True, **({"infeasible": reason} if state == "FAILED" else {"ended": reason}))

    def _told(self, **more: Any) -> dict[str, Any]:
        report, value = self._last
        return {REPORT: report, OBJECTIVE: value, "run": self._run_id, "done": False, **more}

    def _leave(self) -> None:
        """Whatever of the present trial runs, ends: its gang goes back at once."""
        if self._run_id and (self._run is None or self._run.state not in TERMINAL_NAMES):
            self._line.cancel(self._run_id, f"{self._scheduler} ended the trial after report {self._last[0]}")
        if self._updates is not None:
            self._updates.close()


def _report(event: pb.Event) -> tuple[int, Mapping[str, float]]:
    data = from_struct(event.data)
    return int(data["epoch"]) + 1, data["metrics"]


def _most(document: Mapping[str, Any]) -> int | None:
    """Reports after which a trial's run ends by itself; None: nobody knows before."""
    train = document.get("train") or {}
    if document.get("script") or train.get("early_stopping") or train.get("steps"):
        return None
    return reports(document, Search.model_validate(document["search"]))
