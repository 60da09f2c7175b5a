"""Sweeps: what their drivers ask for, and what is known of them. Every method blocks; an event loop calls it in a thread."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator import spec
from orchestrator.control.capacity import views
from orchestrator.control.commands import Commands, SubmitCommand
from orchestrator.control.fleet import Fleet
from orchestrator.core import lifecycle, money
from orchestrator.core.ledger import Ledger, TimeClass, add
from orchestrator.core.money import Amount
from orchestrator.core.runs import Lineage, Run, Succeeded
from orchestrator.core.scheduling.fit import GangShape, room
from orchestrator.core.sweeps import Sweep
from orchestrator.core.trials import Story, Stretch, trial_of
from orchestrator.errors import NotFound, Refused
from orchestrator.spec.search import Search, Value, trial_document

log = logging.getLogger(__name__)

REMEMBERED = 20_000  # stories of runs, so that a look at a sweep reads only what is new
PAGE = 1000


@dataclass(frozen=True)
class StartTrial:
    """A driver's wish."""

    sweep: str
    attempt: int
    trial: int
    generation: int
    point: Mapping[str, Value]
    by: str
    start: str = ""  # the checkpoint to go on from
    reason: str = ""  # why the generation before ends


@dataclass(frozen=True)
class Heard:
    """What a version of a run has told so far."""

    version: int = -1
    story: Story = field(default_factory=Story)
    checkpoint: str | None = None
    seal: str | None = None


class Sweeps:
    """Safe from several threads."""

    def __init__(self, fleet: Fleet, commands: Commands) -> None:
        self._fleet, self._commands = fleet, commands
        self._store, self._board, self._clock, self._prices = fleet.store, fleet.board, fleet.clock, fleet.prices
        self._lock = threading.Lock()
        self._heard: OrderedDict[str, Heard] = OrderedDict()

    def find(self, project: str, sweep: str) -> Run:
        """By id or name. Raises NotFound, also for a run that is no sweep."""
        run = self._store.run(project, sweep)
        if run.kind != "sweep":
            raise NotFound(f"{sweep!r} is a {run.kind}, not a sweep: see `evertrain sweep list`")
        return run

    def start_trial(self, project: str, wish: StartTrial) -> Run:
        """The trial's run; the same trial and generation is the same run. A point that the run file's rules, or the
        planner, refuse is kept as a run that has failed. Earlier generations end with it: a trial is one gang.

        Raises NotFound, Refused for a driver that should not speak any more, Conflict for a trial that was another point.
        """
        sweep = self.find(project, wish.sweep)
        self._check_driver(sweep, wish)
        text = json.dumps(trial_document(sweep.spec, wish.point, wish.trial, wish.start))
        asked = Search.model_validate(sweep.spec["search"]).max_concurrent
        slots = asked if isinstance(asked, int) else 0
        command = SubmitCommand(
            project=sweep.project,
            spec_text=text,
            by=wish.by,
            idempotency_key=f"sweep/{sweep.id}/{wish.trial}/{wish.generation}",
            lineage=Lineage(sweep.id, wish.trial, wish.generation, wish.point, wish.start, slots),
        )
        started = self._commands.submit_trial(command, sweep.spec).run
        if wish.generation:
            self._end_before(sweep.id, wish)
        return started

    def stop(self, project: str, sweep: str, *, by: str, message: str = "") -> Run:
        """End it with what it has found. Idempotent. Raises NotFound."""
        found, now = self.find(project, sweep), self._clock.now()
        return self._fleet.records.change(
            found.project, found.id, lambda run: lifecycle.finish(run, by=by, message=message, now=now)
        )

    def get(self, project: str, sweep: str) -> Sweep:
        """Everything that is known of it. Raises NotFound."""
        return self.describe(self.find(project, sweep))

    def describe(self, run: Run) -> Sweep:
        search = Search.model_validate(run.spec["search"])
        groups: dict[int, list[Stretch]] = {}
        for each in self._store.trials(run.id):
            if each.lineage is not None:
                groups.setdefault(each.lineage.trial, []).append(self._stretch(each))
        numbers = {each.run.id: number for number, group in groups.items() for each in group}
        trials = tuple(trial_of(groups[number], search.metric, search.mode, numbers) for number in sorted(groups))
        return Sweep(
            id=run.id,
            project=run.project,
            name=run.name,
            state=run.state.kind,
            reason=run.state.reason.message,
            metric=search.metric,
            mode=search.mode,
            algorithm=search.algorithm,
            scheduler=search.scheduler.type,
            wanted=search.wanted,
            space={path: each.model_dump(mode="json", exclude_defaults=True) for path, each in search.space.items()},
            trials=trials,
            room=self._room(run),
            currency=self._prices.currency if self._prices.known else None,
            submitted_at=run.submitted_at,
            started_at=run.attempts[0].started_at if run.attempts else None,
            ended_at=run.ended_at,
        )

    def account(self, run: Run) -> tuple[Ledger, Amount | None]:
        """The time and the money of all trials of a sweep: it holds no workers of its own. Time in the queue is left out:
        trials wait there all the time, more than there are slots, so that none of those is ever free for long.
        """
        stretches = [self._stretch(each) for each in self._store.trials(run.id)]
        ledger = add(each.ledger for each in stretches).without(TimeClass.QUEUED)
        costs = [each.cost for each in stretches if each.cost is not None]
        return ledger, Amount(sum(costs), self._prices.currency) if self._prices.known else None

    def living(self, limit: int) -> list[Sweep]:
        """Those that have not ended, at most so many."""
        found = []
        for sweep_id, project in list(self._board.sweeps().items())[:limit]:
            with contextlib.suppress(NotFound):
                found.append(self.get(project, sweep_id))
        return found

    def end_orphans(self) -> int:
        """Cancel what still runs of sweeps that have ended: their drivers may have gone before they could. How many."""
        living, ended = self._board.sweeps(), 0
        for sweep_id, runs in self._board.trials().items():
            for project, run_id in runs if sweep_id not in living else ():
                self._commands.cancel(project, run_id, by="sweep", message="its sweep has ended")
                ended += 1
        return ended

    def _end_before(self, sweep: str, wish: StartTrial) -> None:
        """Behind the continuation and not before it: whoever dies in between leaves a trial that goes on."""
        for each in self._store.trials(sweep):
            lineage = each.lineage
            if lineage is None or each.terminal or lineage.trial != wish.trial:
                continue
            if lineage.generation < wish.generation:
                self._commands.cancel(each.project, each.id, by="sweep", message=wish.reason)

    def _check_driver(self, sweep: Run, wish: StartTrial) -> None:
        if sweep.terminal:
            raise Refused(f"sweep {sweep.name} has ended: {sweep.state.reason.message}")
        if sweep.attempt is None or sweep.attempt.number != wish.attempt:
            raise Refused(f"attempt {wish.attempt} of sweep {sweep.name} is over: its driver should end")
        if sweep.stop is not None:
            raise Refused(f"sweep {sweep.name} is being stopped: {sweep.stop.message}")

    def _stretch(self, run: Run) -> Stretch:
        heard = self._listen(run)
        progress = self._fleet.progress(run.id)
        current = run.attempt.number if run.attempt else None
        live = progress.ledger if progress is not None and progress.attempt == current else None
        shape = spec.stored_shape(run.spec)
        ledger = lifecycle.ledger(run, workers=shape.workers, now=self._clock.now(), live=live)
        cost = money.cost(shape, self._prices, ledger)
        paid = cost.amount if cost is not None else None
        return Stretch(run, heard.story, ledger, paid, heard.checkpoint, heard.seal)

    def _listen(self, run: Run) -> Heard:
        with self._lock:
            heard = self._heard.get(run.id, Heard())
        if heard.version == run.version:
            return heard
        story = heard.story
        while events := self._store.events(run.id, after=story.after, limit=PAGE):
            story = story.read(events)
            if len(events) < PAGE:
                break
        sealed = self._store.checkpoints(run.id)
        seal = sealed[0].url if sealed else None
        best = next((each.url for each in sealed if each.best), seal)
        if isinstance(run.state, Succeeded) and run.state.result.checkpoint is not None:
            best = run.state.result.checkpoint
        heard = Heard(run.version, story, best, seal)
        with self._lock:
            self._heard[run.id] = heard
            self._heard.move_to_end(run.id)
            while len(self._heard) > REMEMBERED:
                self._heard.popitem(last=False)
        return heard

    def _room(self, run: Run) -> int:
        """Gangs of a trial's shape that fit now, with those that the sweep's own trials hold."""
        shape = _trial_shape(run.spec)
        mine = [each for each in self._board.holdings() if each.sweep == run.id]
        free = 0
        for view in views(self._fleet.clusters.all(), self._board, self._fleet.connected):
            if view.connected and not view.draining and view.project in ("*", run.project):
                free += room(shape, view.nodes)
        return free + len(mine)


def _trial_shape(document: Mapping[str, Any]) -> GangShape:
    return spec.stored_shape({key: value for key, value in document.items() if key != "search"})
