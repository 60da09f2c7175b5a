"""What a sweep must agree with: its space with the run file's rules, its conditions and its points with its space."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from orchestrator.errors import Problem
from orchestrator.spec.problems import not_reported, problems_of, suggest
from orchestrator.spec.reading import shorten
from orchestrator.spec.search import POPULATIONS, RATES, Search, Value, in_order, listed, put, reports

if TYPE_CHECKING:
    from orchestrator.spec.run import RunSpec

_OF_THE_SNAPSHOT = ("data.source", "data.label", "data.split_by")
_SEARCHABLE = ("data", "model", "train", "parallelism", "deepspeed", "init_from", "resources", "env")


def search_problems(spec: RunSpec, search: Search) -> list[Problem]:
    checks = (_conditions, _metric, _scheduler, _algorithm, _population, _first_points, _paths)
    return [problem for check in checks for problem in check(spec, search)]


def retraining_search_problems(spec: RunSpec, search: Search, *, warm: bool) -> Iterator[Problem]:
    """Of `monitor.retrain.search`: what holds for every search, and what a retraining settles itself."""
    for each in search_problems(spec, search):
        yield replace(each, path=f"monitor.retrain.{each.path}")
    for path in search.space:
        where = f"monitor.retrain.search.space.{path}"
        if any(path == each or path.startswith(f"{each}.") for each in _OF_THE_SNAPSHOT):
            yield Problem(where, path, "cannot be searched: a retraining takes the rows that were seen live")
        elif path.startswith("init_from."):
            yield Problem(where, path, "cannot be searched: monitor.retrain.start says what a retraining begins with")
        elif warm and spec.recipe is not None and path.startswith("model.") and path not in RATES:
            words = "cannot be searched with start warm: the weights that it begins with have their shape. Use scratch"
            yield Problem(where, path, words)


def _conditions(spec: RunSpec, search: Search) -> Iterator[Problem]:
    """Each names a parameter of the space, asks for what it can be, and none waits for itself."""
    wrong = False
    for path, parameter in search.space.items():
        for parent, values in parameter.conditions().items():
            where = f"search.space.{path}.when.{parent}"
            if parent not in search.space:
                wrong = True
                yield Problem(where, listed(values), f"is not in the space, {suggest(parent, search.space)}")
                continue
            possible = search.space[parent].all_values
            if possible is None:
                wrong = True
                yield Problem(
                    where, listed(values), f"{parent} is a range: a condition needs a choice, a grid or an int"
                )
            elif not any(search.space[parent].holds(value) for value in values):
                wrong = True
                words = f"can never hold: {parent} is one of {listed(possible[:10])}"
                yield Problem(where, listed(values), words)
    waiting = [path for path in search.space if path not in in_order(search.space)]
    if waiting and not wrong:
        yield Problem(f"search.space.{waiting[0]}.when", "a circle", f"{' and '.join(waiting)} wait for one another")


def _metric(spec: RunSpec, search: Search) -> Iterator[Problem]:
    yield from not_reported("search.metric", search.metric, spec.recipe)


def _scheduler(spec: RunSpec, search: Search) -> Iterator[Problem]:
    scheduler = search.scheduler
    epochs = spec.train.epochs if spec.script is None else None
    most = reports({"train": {"epochs": epochs}}, search)
    if search.population is None and scheduler.interval is not None:
        yield Problem("search.scheduler.interval", str(scheduler.interval), "is for pbt and pb2: leave it out")
    if scheduler.type not in ("asha", "hyperband") and search.population is None:
        return
    if most is None:
        yield Problem("search.scheduler.max_steps", "nothing", "is required where train.epochs does not say it")
    elif scheduler.grace > most:
        yield Problem("search.scheduler.grace", str(scheduler.grace), f"must be at most max_steps ({most})")
    if epochs is not None and (scheduler.max_steps or 0) > epochs:
        words = f"no trial gets so far: train.epochs is {epochs}"
        yield Problem("search.scheduler.max_steps", str(scheduler.max_steps), words)


def _algorithm(spec: RunSpec, search: Search) -> Iterator[Problem]:
    for path, parameter in search.space.items():
        if search.algorithm == "grid" and parameter.all_values is None:
            words = "is a range, and a grid has to count: use choice, grid or int, or the algorithm random"
            yield Problem(f"search.space.{path}", "a range", words)
        if search.algorithm == "cmaes" and parameter.when:
            words = "cannot be: cmaes searches all parameters at once. Use tpe, or leave the condition out"
            yield Problem(f"search.space.{path}.when", "a condition", words)


def _population(spec: RunSpec, search: Search) -> Iterator[Problem]:
    """Trials that go on from one another's checkpoints."""
    if search.population is None:
        return
    if search.algorithm in POPULATIONS and search.scheduler.type not in ("fifo", search.algorithm):
        words = f"ends trials that {search.algorithm} would go on with: leave the scheduler out"
        yield Problem("search.scheduler.type", search.scheduler.type, words)
    if spec.script is not None:
        words = "is for recipes and entrypoints: the checkpoints of a script are its own. Use asha"
        yield Problem("search.scheduler.type", search.population, words)
    if not search.rates:
        words = f"changes rates while trials train, and the space has none: add one of {', '.join(RATES)}"
        yield Problem("search.space", listed(list(search.space)), words)
    for path in search.rates if search.population == "pb2" else ():
        if search.space[path].bounds is None:
            yield Problem(f"search.space.{path}", "a list", "pb2 needs a range here: use log or uniform, or pbt")


def _first_points(spec: RunSpec, search: Search) -> Iterator[Problem]:
    for index, point in enumerate(search.start_with):
        for path, value in point.items():
            where = f"search.start_with[{index}].{path}"
            if path not in search.space:
                yield Problem(where, shorten(value), f"is not in the space, {suggest(path, search.space)}")
            elif not search.space[path].holds(value):
                yield Problem(where, shorten(value), "is not in the parameter's range")


def _paths(spec: RunSpec, search: Search) -> Iterator[Problem]:
    """Each parameter's ends, put into the run file one by one, must pass its rules."""
    own: Any = {"search": True, "monitor": {"retrain": {"search"}}}  # or checking a value would check the space again
    document = spec.model_dump(mode="json", exclude=own, exclude_unset=True)
    for path, parameter in search.space.items():
        section = path.split(".")[0]
        if section not in _SEARCHABLE or "." not in path:
            words = f"is not a key that trials may differ in, {suggest(section, _SEARCHABLE)}"
            yield Problem(f"search.space.{path}", path, words)
            continue
        for value in parameter.extremes:
            problem = _refusal(type(spec), document, _base(search, path), path, value)
            if problem is not None:
                yield problem
                break


def _base(search: Search, path: str) -> dict[str, Value]:
    """Values that the parameter's conditions need."""
    needed: dict[str, Value] = {}
    for parent, values in search.space[path].conditions().items():
        if parent in search.space and parent != path:
            needed |= {parent: next((each for each in values if search.space[parent].holds(each)), values[0])}
    return needed


def _refusal(
    model: type[RunSpec], document: Mapping[str, Any], base: Mapping[str, Value], path: str, value: Value
) -> Problem | None:
    """What the run file's rules say of the value at this path; None where they say nothing of it."""
    changed = put(document, {**base, path: value})
    try:
        model.model_validate(changed)
    except ValidationError as error:
        for problem in problems_of(error, model, changed):
            if problem.path == path or problem.path.startswith((f"{path}.", f"{path}[")):
                return Problem(f"search.space.{path}", problem.got, problem.message)
    return None
