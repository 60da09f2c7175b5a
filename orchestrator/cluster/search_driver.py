"""The driver of one sweep: Ray Tune decides, the server keeps. It may be killed at any moment: the next one goes on.

    python -m orchestrator.cluster.search_driver        (an order on standard input, as JSON; started by the agent)

It tells the agent on standard output, one JSON object a line: {"progress": {...}}, and last {"ended": {...}}. The agent
tells it on standard input: {"stop": "why"}. When that closes, the agent is gone, and the driver goes as well, at once:
the trials are runs of their own, and go on.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from typing import IO, Any

import ray
from ray import tune
from ray.tune import Callback, Stopper

from orchestrator.cluster.search_line import DriverOrder, SearchLine
from orchestrator.cluster.search_points import Points
from orchestrator.cluster.search_population import Population
from orchestrator.cluster.search_schedulers import milestones, scheduler
from orchestrator.cluster.search_trial import SweepTrial
from orchestrator.core.sweeps import Goal, Sweep, Trial, Verdict, ending, replayed, verdict
from orchestrator.errors import EvertrainError, Unauthenticated
from orchestrator.spec.search import Search

log = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
AHEAD = 2  # trials that wait in the queue for a slot, so that the next gangs start the moment that one is free
BREATH = 10  # times as long as a look took: a sweep of very many trials is looked at less often
_PIN = 0.001  # of the node's own resource
EXIT_TOKEN = 4  # the token has expired: the agent has, or gets, another
_TUNE = {
    "TUNE_MAX_PENDING_TRIALS_PG": "4",  # actors that start side by side, or the second slot would wait for the first
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # what trials report is in the server already
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a trial that never reported ends without a value
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
}


class Watch:
    """The sweep as the server has it, looked at once a second; says when it is over before its trials are."""

    def __init__(self, line: SearchLine, search: Search, out: IO[str], sweep: Sweep) -> None:
        self._line, self._out, self.sweep = line, out, sweep
        self.goal = goal_of(search)
        self._concurrent = search.max_concurrent
        self._lock = threading.Lock()
        self._over: Verdict | None = None
        self._stopped = threading.Event()
        self._began_s = time.monotonic() - _passed_s(sweep)
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    @property
    def over(self) -> Verdict | None:
        return self._over

    def room(self) -> int:
        """How many trials may live at once, those that wait for a slot too."""
        asked = self._concurrent
        return AHEAD + (asked if isinstance(asked, int) else max(1, self.sweep.room))

    def end(self, why: Verdict) -> None:
        """The first word counts. Trials that live are cancelled with it: so every `step` that waits comes back."""
        with self._lock:
            if self._over is not None:
                return
            self._over = why
        log.info("the sweep ends: %s", why.message)
        self._cancel_living(self._line.sweep(), why)

    def finish(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _look(self) -> None:
        pause_s = LOOK_EVERY_S
        while not self._stopped.wait(pause_s):
            try:
                looked_s = time.monotonic()
                self.sweep = self._line.sweep()
                pause_s = max(LOOK_EVERY_S, BREATH * (time.monotonic() - looked_s))
                self._tell()
                self._judge()
            except Unauthenticated:
                log.warning("the token has expired")
                os._exit(EXIT_TOKEN)
            except EvertrainError as error:
                log.warning("the sweep cannot be looked at: %s", error)

    def _judge(self) -> None:
        over = self._over
        if over is not None:
            self._cancel_living(self.sweep, over)  # one may have begun while the others were cancelled
        elif (over := verdict(self.goal, self.sweep.trials, elapsed_s=time.monotonic() - self._began_s)) is not None:
            self.end(over)

    def _cancel_living(self, sweep: Sweep, why: Verdict) -> None:
        for trial in sweep.trials:
            if trial.live:
                self._line.cancel(trial.run_id, f"the sweep ended: {why.message}")

    def _tell(self) -> None:
        sweep = self.sweep
        ended = sum(1 for each in sweep.trials if not each.live)
        best = sweep.best
        value = None if best is None else best.best(sweep.mode)
        told = {"ended": ended, "wanted": sweep.wanted, "best": value, "live": len(sweep.trials) - ended}
        _say(self._out, {"progress": told})


class _Unkept:
    """Tune writes its own state down now and then, and nothing of ours belongs there: the server has it."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class Ends(_Unkept, Callback):
    """Frees the gang of a trial at once when Tune ends it, and ends the sweep when the metric can never come."""

    def __init__(self, line: SearchLine, watch: Watch, scheduler_name: str) -> None:
        self._line, self._watch, self._scheduler = line, watch, scheduler_name

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any) -> None:
        if result.get("missing"):
            self._watch.end(Verdict("metric", result["missing"], failed=True))
        if result.get("infeasible") and result.get("run"):
            self._line.cancel(result["run"], result["infeasible"])

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        result = trial.last_result or {}
        if result.get("run") and not result.get("whole"):
            self._line.cancel(result["run"], f"{self._scheduler} ended the trial after report {result.get('report')}")


class Over(_Unkept, Stopper):
    """Tells Tune that the sweep is over."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._watch.over is not None


def goal_of(search: Search) -> Goal:
    stop = search.stop
    return Goal(
        metric=search.metric,
        mode=search.mode,
        target=stop.target,
        max_duration_s=stop.max_duration,
        max_cost=stop.max_cost.amount if stop.max_cost is not None else None,
        plateau_trials=stop.plateau.trials if stop.plateau is not None else None,
        plateau_change=stop.plateau.min_change if stop.plateau is not None else 0.0,
    )


def kept(trials: tuple[Trial, ...], at: tuple[int, ...]) -> dict[int, tuple[int, tuple[int, ...]]]:
    """By trial: the last report from before, and those that the scheduler hears again."""
    return {each.number: (each.reports, tuple(report for report, _ in replayed(each.curve, at))) for each in trials}


def drive(order: DriverOrder, out: IO[str]) -> None:
    """Search until the sweep is over, and tell how it ended."""
    search = Search.model_validate(order.document["search"])
    line = SearchLine(order.address)
    sweep = line.sweep()
    watch = Watch(line, search, out, sweep)
    threading.Thread(target=_listen, args=(watch,), daemon=True).start()
    _say(out, {"progress": {"ended": 0, "wanted": sweep.wanted, "best": None, "live": 0}})
    if len(sweep.trials) < sweep.wanted or any(each.live for each in sweep.trials):
        _search(order, search, sweep, line, watch)
    watch.finish()
    _say(out, {"ended": _ended(line.sweep(), watch)})
    line.close()


def _search(order: DriverOrder, search: Search, sweep: Sweep, line: SearchLine, watch: Watch) -> None:
    document = order.document
    again = kept(sweep.trials, milestones(search, document))
    trainable = tune.with_parameters(SweepTrial, address=order.address, document=document, kept=again)
    warm = line.sweep(search.warm_start).trials if search.warm_start is not None else ()
    pinned = tune.PlacementGroupFactory([{"CPU": 0, f"node:{order.node_ip}": _PIN}])
    with tempfile.TemporaryDirectory(prefix="evertrain-sweep-") as directory:
        tune.run(
            trainable,
            name=sweep.id,
            num_samples=sweep.wanted,
            search_alg=Points(search, known=sweep.trials, warm=warm, room=watch.room),
            scheduler=(
                scheduler(search, document, sweep.trials)
                if search.population is None
                else Population(search, document, line, sweep.trials)
            ),
            resources_per_trial=pinned,
            reuse_actors=True,
            stop=Over(watch),
            callbacks=[Ends(line, watch, search.population or search.scheduler.type)],
            storage_path=directory,
            raise_on_failed_trial=False,
            max_failures=0,
            verbose=0,
        )


def _listen(watch: Watch) -> None:
    """What the agent says; without it the driver has nobody to tell."""
    for text in sys.stdin:
        if why := json.loads(text).get("stop"):
            watch.end(Verdict("finished", why))
    os._exit(0)


def _ended(sweep: Sweep, watch: Watch) -> dict[str, Any]:
    said = watch.over or ending(sweep.trials, watch.goal)
    best = sweep.best
    value = None if best is None else best.best(sweep.mode)
    told: dict[str, Any] = {"failed": said.failed or best is None, "message": said.message, "trials": len(sweep.trials)}
    if best is None or value is None:
        return told
    if watch.over is not None and not said.failed:
        told["message"] += f"; the best is trial {best.number} with {sweep.metric} {value:.6g}"
    found = {"sweep": sweep.id, "trial": best.number, "run": best.run_id, "point": dict(best.point)}
    return {**told, "metrics": {**best.metrics}, "checkpoint": best.checkpoint, "found": found}


def _passed_s(sweep: Sweep) -> float:
    return 0.0 if sweep.started_at is None else max(0.0, time.time() - sweep.started_at)


def _say(out: IO[str], what: Mapping[str, Any]) -> None:
    out.write(json.dumps(what) + "\n")
    out.flush()


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else prints must not be taken for a word to the agent
    order = DriverOrder.from_json(sys.stdin.readline())
    os.environ.update(_TUNE)
    logging.getLogger("ray.tune").setLevel(logging.ERROR)  # it misses files of results, which are in the server
    ray.init(address=order.ray_address, log_to_driver=False, logging_level=logging.WARNING)
    try:
        drive(order, out)
    except Unauthenticated:
        return EXIT_TOKEN
    return 0


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)  # Ray's own end takes seconds, and there is nothing left to say
