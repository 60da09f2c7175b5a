"""How long a run will take and what it will cost, from the ledgers of earlier runs of the same recipe.

Only runs that computed the same on the same kind of worker count. Where none had the same workers, batch and layout, a step
is scaled by the samples of a rank, as if communication cost nothing: at best, and the outlook says so.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.core.ledger import TimeClass, add
from orchestrator.core.money import Amount, Prices, paid_s, worker_price_s
from orchestrator.core.runs import Run, Succeeded
from orchestrator.core.scheduling.fit import GangShape
from trainers.layout import DEGREES, Layout

MOST_RUNS = 5  # the newest of those that are alike


@dataclass(frozen=True)
class Past:
    """What an earlier run took."""

    run_id: str
    spec: Mapping[str, Any]  # its run file
    steps: int  # trained, each counted once
    training_worker_s: float
    paid_worker_s: float
    whole: bool  # it ended where its run file said

    @property
    def workers(self) -> int:
        return int(self.spec["resources"]["workers"])

    @property
    def global_batch(self) -> int:
        return int(self.spec["train"]["global_batch"])

    @property
    def step_s(self) -> float:
        return self.training_worker_s / self.workers / self.steps


@dataclass(frozen=True)
class Measured:
    """How long a step took, at the median of earlier runs."""

    step_s: float
    runs: tuple[str, ...]  # their ids


@dataclass(frozen=True)
class Outlook:
    """What to expect. `steps`, and all that follows from them, are None where the length of an epoch is not known."""

    step_s: float
    based_on: tuple[str, ...]  # ids of runs
    words: str  # how the runs bear on this one
    steps: int | None = None
    duration_s: float | None = None  # from the first worker to the end, the queue left out
    cost: Amount | None = None


def past_of(run: Run) -> Past | None:
    """None for a run that trained nothing, or whose time was not accounted for yet."""
    ledger = add(each.ledger for each in run.attempts)
    steps = run.state.result.step if isinstance(run.state, Succeeded) else run.furthest_step
    if steps < 1 or not ledger.ns.get(TimeClass.TRAINING):
        return None
    whole = isinstance(run.state, Succeeded) and run.state.result.stopped_early is None
    return Past(run.id, run.spec, steps, ledger.seconds(TimeClass.TRAINING), paid_s([ledger]), whole)


def outlook(
    spec: Mapping[str, Any], pasts: Sequence[Past], *, examples: int | None, shape: GangShape, prices: Prices
) -> Outlook | None:
    """`spec`: the run file as dumped; `pasts`: newest first; `examples`: to train on, where known. None without a past."""
    alike = [each for each in pasts if _kind(each.spec) == _kind(spec)]
    if not alike:
        return None
    exact = [each for each in alike if _division(each.spec) == _division(spec)][:MOST_RUNS]
    chosen = exact or alike[:MOST_RUNS]
    workers, batch = spec["resources"]["workers"], spec["train"]["global_batch"]
    step_s = statistics.median(each.step_s * _scale(each, workers, batch) for each in chosen)
    steps = _steps(spec, examples if examples is not None else _examples(spec, alike))
    duration_s = cost = None
    if steps is not None:
        paid = sum(each.paid_worker_s for each in chosen) / sum(each.training_worker_s for each in chosen)
        duration_s = steps * step_s * paid
        if prices.known:
            cost = Amount(duration_s * workers * worker_price_s(shape, prices), prices.currency)
    return Outlook(step_s, tuple(each.run_id for each in chosen), _words(chosen, bool(exact)), steps, duration_s, cost)


def measured(spec: Mapping[str, Any], pasts: Sequence[Past]) -> dict[Layout, Measured]:
    """By layout, what a step took of runs that did the same with the same workers and batch. Arguments as of `outlook`."""
    wanted = _kind(spec), _division(spec)[:-1]
    by_layout: dict[Layout, list[Past]] = {}
    for each in pasts:
        if (_kind(each.spec), _division(each.spec)[:-1]) == wanted and (layout := _layout(each)) is not None:
            by_layout.setdefault(layout, []).append(each)
    return {
        layout: Measured(
            statistics.median(each.step_s for each in those[:MOST_RUNS]),
            tuple(each.run_id for each in those[:MOST_RUNS]),
        )
        for layout, those in by_layout.items()
    }


def _layout(past: Past) -> Layout | None:
    """None where it is more than degrees."""
    said = past.spec["parallelism"]
    if not isinstance(said, Mapping) or said.get("offload") is not None:
        return None
    return Layout(workers=past.workers, **{name: int(said[name]) for name in ("zero", *DEGREES)})


def _kind(spec: Mapping[str, Any]) -> tuple[Any, ...]:
    """What decides how long one sample takes."""
    resources, train = spec["resources"], spec["train"]
    return (
        *(spec.get(key) for key in ("recipe", "entrypoint", "code", "model")),
        *(resources.get(key) for key in ("gpu", "accelerator", "cpu")),
        *(train.get(key) for key in ("precision", "optimizer")),
    )


def _division(spec: Mapping[str, Any]) -> tuple[Any, ...]:
    """What decides how a batch is shared, the layout last."""
    train = spec["train"]
    return spec["resources"]["workers"], train["global_batch"], train.get("micro_batch"), spec["parallelism"]


def _scale(past: Past, workers: int, global_batch: int) -> float:
    return (global_batch / workers) / (past.global_batch / past.workers)


def _steps(spec: Mapping[str, Any], examples: int | None) -> int | None:
    train = spec["train"]
    epochs, steps = train.get("epochs"), train.get("steps")
    if epochs is None:
        return int(steps)
    if examples is None:
        return None
    by_epochs = -(-int(epochs) * examples // int(train["global_batch"]))  # the last batch may reach beyond
    return by_epochs if steps is None else min(by_epochs, int(steps))


def _examples(spec: Mapping[str, Any], pasts: Sequence[Past]) -> int | None:
    """Of an epoch over the same data, by a run that went through all of its epochs: at most a batch too many."""
    for past in pasts:
        train = past.spec["train"]
        if past.whole and train.get("epochs") and not train.get("steps") and past.spec["data"] == spec["data"]:
            return past.steps * past.global_batch // int(train["epochs"])
    return None


def _words(chosen: Sequence[Past], exact: bool) -> str:
    runs = "1 earlier run" if len(chosen) == 1 else f"{len(chosen)} earlier runs"
    if exact:
        return f"as {runs} with the same workers, batch and layout took"
    sizes = ", ".join(sorted({f"{each.workers} workers with batch {each.global_batch}" for each in chosen}))
    return f"at best: scaled by the samples of a rank from {runs} ({sizes}), as if communication cost nothing"
