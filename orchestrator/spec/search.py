"""What makes a run file a sweep: where its trials may lie, who proposes them, who ends them early, and when it is over."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from orchestrator.core.sweeps import Mode
from orchestrator.spec.quantities import Duration, Money
from orchestrator.spec.section import Count, Number, Section, Whole, of_numbers

Value = str | bool | int | float | None
Values = Annotated[tuple[Value, ...], Field(min_length=1, max_length=1000)]
Range = Annotated[tuple[Number, Number], of_numbers(2, "from and to")]


class Parameter(Section):
    """One key of the run file that is searched: exactly one kind of range, and when it counts at all."""

    model_config = ConfigDict(serialize_by_alias=True)
    together = True

    log: Annotated[Range | None, Field(description="Every order of magnitude equally likely.")] = None
    uniform: Annotated[Range | None, Field(description="Every number equally likely.")] = None
    whole: Annotated[
        Annotated[tuple[Whole, Whole], of_numbers(2, "from and to")] | None,
        Field(alias="int", description="Whole numbers, both ends included."),
    ] = None
    choice: Annotated[Values | None, Field(description="One of these.")] = None
    grid: Annotated[Values | None, Field(description="Each of these; of other algorithms than grid: one of these.")] = (
        None
    )
    when: Annotated[
        dict[str, Value | Values],
        Field(description="Counts only where other parameters have one of these values.", default_factory=dict),
    ]

    @model_validator(mode="after")
    def _one_kind(self) -> Parameter:
        given = [name for name in ("log", "uniform", "int", "choice", "grid") if self._of(name) is not None]
        if len(given) != 1:
            got = " and ".join(given) or "none of them"
            raise ValueError(f"needs exactly one of log, uniform, int, choice and grid, has {got}")
        bounds = self.bounds
        if bounds is not None and not bounds[0] <= bounds[1]:
            raise ValueError(f"{given[0]}: from must be at most to, got {bounds[0]:g} to {bounds[1]:g}")
        if self.log is not None and self.log[0] <= 0:
            raise ValueError("log: must begin above 0; a range that holds 0 is for uniform")
        values = self.values
        if len({_marked(each) for each in values}) < len(values):
            raise ValueError(f"{given[0]}: names a value twice: keep one")
        return self

    def _of(self, kind: str) -> Any:
        return getattr(self, "whole" if kind == "int" else kind)

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The ends of a range; None for a list of values."""
        return self.log or self.uniform or self.whole

    @property
    def values(self) -> tuple[Value, ...]:
        """Those of a list, as they are written; empty for a range."""
        return self.choice or self.grid or ()

    @property
    def all_values(self) -> tuple[Value, ...] | None:
        """Every value that it may take; None where there are more than anybody would try."""
        if self.whole is not None and self.whole[1] - self.whole[0] < 1000:
            return tuple(range(self.whole[0], self.whole[1] + 1))
        bounds = self.bounds
        if bounds is not None:
            return (bounds[0],) if bounds[0] == bounds[1] else None
        return self.values

    @property
    def extremes(self) -> tuple[Value, ...]:
        """What is tried on the run file's rules: both ends of a range, or every value of a list."""
        return self.bounds or self.values

    def holds(self, value: Value) -> bool:
        """Whether it may take this value."""
        bounds = self.bounds
        if bounds is None:
            return _marked(value) in {_marked(each) for each in self.values}
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return bounds[0] <= value <= bounds[1] and (self.whole is None or value == int(value))

    def conditions(self) -> dict[str, tuple[Value, ...]]:
        """What `when` asks for: of each other parameter one of these values."""
        return {path: each if isinstance(each, tuple) else (each,) for path, each in self.when.items()}


class Scheduler(Section):
    """Who ends trials early. Its unit is one report of the metric: for recipes, an epoch."""

    type: Annotated[
        Literal["fifo", "asha", "hyperband", "median", "pbt", "pb2"], Field(description="fifo: nobody.")
    ] = "fifo"
    max_steps: Annotated[
        Count | None, Field(ge=1, description="Reports of a whole trial; by default train.epochs.")
    ] = None
    grace: Annotated[Count, Field(ge=1, description="Reports that every trial may make.")] = 1
    reduction: Annotated[Count, Field(ge=2, description="Of so many trials about one goes on to the next rung.")] = 3
    interval: Annotated[
        Count | None,
        Field(ge=1, description="Of pbt and pb2: reports between changes; by default a tenth of max_steps."),
    ] = None

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, raw: Any) -> Any:
        return {"type": raw} if isinstance(raw, str) else raw


class Plateau(Section):
    """No trial of the last `trials` was better than the best before them, by more than `min_change`."""

    trials: Annotated[Count, Field(ge=1, description="Ended trials without improvement.")]
    min_change: Annotated[Number, Field(ge=0, description="What counts as an improvement.")] = 0.0


class Stop(Section):
    """When the sweep is over before its trials are: whichever comes first."""

    target: Annotated[Number | None, Field(description="A value of the metric that is good enough.")] = None
    max_duration: Annotated[Duration | None, Field(description="Since the sweep began.")] = None
    max_cost: Annotated[Money | None, Field(description="Of all trials together.")] = None
    plateau: Annotated[Plateau | None, Field(description="Nothing gets better any more.")] = None


class Search(Section):
    """Makes the run file a sweep: each trial is a run of this file with some keys of `space` put in."""

    metric: Annotated[str, Field(min_length=1, max_length=200, description="A metric that trials report.")]
    mode: Annotated[Mode, Field(description="Which way is better.")]
    algorithm: Annotated[
        Literal["random", "grid", "tpe", "cmaes", "pbt", "pb2"],
        Field(description="Who proposes points."),
    ] = "tpe"
    scheduler: Annotated[Scheduler, Field(description="Who ends trials early.")] = Scheduler()
    trials: Annotated[Count | None, Field(ge=1, le=100_000, description="At most so many; a grid's own number.")] = None
    max_concurrent: Annotated[
        Annotated[Count, Field(ge=1)] | Literal["auto"], Field(description="Trials at a time; auto: as many as fit.")
    ] = "auto"
    stop: Annotated[Stop, Field(description="When it is over.")] = Stop()
    space: Annotated[dict[str, Parameter], Field(min_length=1, max_length=200, description="Keys by their paths.")]
    start_with: Annotated[
        tuple[dict[str, Value], ...], Field(max_length=1000, description="Points to try first; what lacks is proposed.")
    ] = ()
    warm_start: Annotated[str | None, Field(min_length=1, description="A sweep to learn from, by id or name.")] = None
    seed: Annotated[Whole, Field(ge=0, lt=2**32, description="Of whoever proposes points.")] = 0

    @property
    def wanted(self) -> int:
        """Trials at most: never more than there are points, for a point is not worth a second trial."""
        points = self.size
        if self.algorithm == "grid":
            return min(self.trials or points or 1, points or 1)
        asked = self.trials or DEFAULT_TRIALS
        return asked if points is None else min(asked, points)

    @property
    def population(self) -> Literal["pbt", "pb2"] | None:
        """Where trials go on from one another, by whose rule."""
        asked = self.scheduler.type if self.scheduler.type in POPULATIONS else self.algorithm
        return asked if asked in POPULATIONS else None  # type: ignore[return-value]

    @property
    def rates(self) -> list[str]:
        """The parameters that may change while a trial trains; all others stay with the weights."""
        return [path for path in self.space if path in RATES]

    @property
    def size(self) -> int | None:
        """How many points there are; None: too many to count."""
        if any(each.all_values is None for each in self.space.values()):
            return None
        if math.prod(len(each.all_values or ()) for each in self.space.values()) > MOST_POINTS:
            return None
        return len(points(self.space))

    def active(self, path: str, point: Mapping[str, Value]) -> bool:
        """Whether a parameter counts, by the values of those that it depends on."""
        return all(
            each in point and any(_marked(point[each]) == _marked(value) for value in values)
            for each, values in self.space[path].conditions().items()
        )


POPULATIONS = ("pbt", "pb2")
RATES = ("train.lr", "train.weight_decay", "train.momentum", "train.label_smoothing", "train.clip", "model.dropout")
"""What a run that goes on from a checkpoint may change: neither shapes, nor data, nor the optimizer's own memory."""

KEPT_FOR_OTHERS = 10
"""Checkpoints of a population's trial: who goes on from one may wait a while before it is read."""

PROOF = "proof"
"""The section of a stored run that only the server writes: the champion with which its result is compared."""

DEFAULT_TRIALS = 20
MOST_POINTS = 100_000


def in_order(space: Mapping[str, Parameter]) -> list[str]:
    """The paths, each behind those that it depends on. A cycle's own, and what hangs on it, are left out."""
    placed: list[str] = []
    while found := [
        path for path, each in space.items() if path not in placed and all(parent in placed for parent in each.when)
    ]:
        placed += found
    return placed


def points(space: Mapping[str, Parameter]) -> list[dict[str, Value]]:
    """Every point of a space whose parameters can all be counted, the last parameter moving fastest."""
    found: list[dict[str, Value]] = [{}]
    for path in in_order(space):
        wider: list[dict[str, Value]] = []
        for point in found:
            holds = all(
                parent in point and _marked(point[parent]) in {_marked(each) for each in values}
                for parent, values in space[path].conditions().items()
            )
            wider += [{**point, path: value} for value in space[path].all_values or ()] if holds else [point]
        found = wider
    return found


def same(one: Mapping[str, Value], other: Mapping[str, Value]) -> bool:
    return {key: _marked(value) for key, value in one.items()} == {key: _marked(value) for key, value in other.items()}


def put(document: Mapping[str, Any], point: Mapping[str, Value]) -> dict[str, Any]:
    """The run file with the point's values at their paths. Environment variables are text."""
    changed = dict(document)
    for path, value in point.items():
        keys = path.split(".")
        section = changed
        for key in keys[:-1]:
            inner = section.get(key)
            section[key] = dict(inner) if isinstance(inner, Mapping) else {}
            section = section[key]
        section[keys[-1]] = _text(value) if keys[0] == "env" else value
    return changed


def trial_document(
    document: Mapping[str, Any], point: Mapping[str, Value], number: int, start: str = ""
) -> dict[str, Any]:
    """The run file of a sweep's trial: the sweep's own without `search`, with the point put in.

    `start`: the checkpoint that it goes on from.
    """
    search = Search.model_validate(document["search"])
    changed = put(without_searches(document), point)
    changed["name"] = f"{str(document['name'])[:50].rstrip('-')}-trial-{number}"
    if search.scheduler.type not in ("fifo", "median") and (most := search.scheduler.max_steps) is not None:
        train = dict(changed.get("train") or {})
        epochs = train.get("epochs")
        changed["train"] = {**train, "epochs": most if epochs is None else min(epochs, most)}
    if search.population is not None:
        sealing = dict(changed.get("checkpoint") or {})
        keep = max(sealing.get("keep", 0), KEPT_FOR_OTHERS)
        changed["checkpoint"] = {**sealing, "every_epochs": interval(document, search), "keep": keep}
    if start:
        kept = {key: value for key, value in (changed.get("init_from") or {}).items() if key in ("freeze", "groups")}
        changed["init_from"] = {**kept, "checkpoint": start, "resume": True}
    return changed


def without_searches(document: Mapping[str, Any]) -> dict[str, Any]:
    """The run file of one run: neither it nor its retrainings are sweeps. What only the server writes stays out."""
    plain = {key: value for key, value in document.items() if key not in ("search", PROOF)}
    monitor = document.get("monitor") or {}
    if (monitor.get("retrain") or {}).get("search") is not None:
        plain["monitor"] = {**monitor, "retrain": {**monitor["retrain"], "search": None}}
    return plain


def interval(document: Mapping[str, Any], search: Search) -> int:
    """Reports between the changes of a population's trial."""
    return search.scheduler.interval or max(1, (reports(document, search) or 1) // 10)


def reports(document: Mapping[str, Any], search: Search) -> int | None:
    """Reports of the metric that a whole trial makes; None: nobody said."""
    return search.scheduler.max_steps or (document.get("train") or {}).get("epochs")


def words(point: Mapping[str, Value]) -> str:
    return ", ".join(f"{path}={_text(value)}" for path, value in point.items()) or "the run file as it is"


def _text(value: Value) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _marked(value: Value) -> tuple[bool, Value]:
    """To compare by: `true` is not 1, and 1 is 1.0."""
    return isinstance(value, bool), value


def listed(values: Sequence[Value]) -> str:
    return ", ".join(_text(each) for each in values)
