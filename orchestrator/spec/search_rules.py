"""What a sweep must agree with: its space with the run file's rules, its conditions and its points with its space."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from orchestrator.errors import Problem
from orchestrator.spec.partial import all_problems, unread_places
from orchestrator.spec.problems import NO_KEY, not_reported, suggest
from orchestrator.spec.reading import shorten
from orchestrator.spec.search import POPULATIONS, RATES, Search, Value, listed, put
from orchestrator.spec.unread import Unread, as_far_as_read

if TYPE_CHECKING:
    from orchestrator.spec.monitor import Retrain
    from orchestrator.spec.run import RunSpec

_OF_THE_SNAPSHOT = ("data.source", "data.label", "data.split_by")
_SEARCHABLE = ("data", "model", "train", "parallelism", "deepspeed", "init_from", "resources", "env")


def search_problems(spec: RunSpec, search: Search) -> Iterator[Problem]:
    """What holds for every search, as far as run file and search can be read."""
    for check in (_metric, _interval, _enough_reports, _within_epochs, _scheduler, _no_script, _rates):
        yield from as_far_as_read(check(spec, search))
    places = _Places(spec)
    for path in search.space:
        found = (_conditions(search, path), _counted(search, path), _unconditional(search, path))
        for each in (*found, _ranged(search, path), places.problems(search, path)):
            yield from as_far_as_read(each)
    yield from as_far_as_read(_circles(search))
    for index, point in enumerate(search.start_with):
        for path in point:
            yield from as_far_as_read(_first_point(search, index, path))


def retraining_search_problems(spec: RunSpec, retrain: Retrain, search: Search) -> Iterator[Problem]:
    """Of `monitor.retrain.search`: what holds for every search, and what a retraining settles itself."""
    for each in search_problems(spec, search):
        yield replace(each, path=f"monitor.retrain.{each.path}")
    for path in search.space:
        yield from as_far_as_read(_settled(spec, retrain, path))


def _settled(spec: RunSpec, retrain: Retrain, path: str) -> Iterator[Problem]:
    where = f"monitor.retrain.search.space.{path}"
    if any(path == each or path.startswith(f"{each}.") for each in _OF_THE_SNAPSHOT):
        yield Problem(where, path, "cannot be searched: a retraining takes the rows that were seen live")
    elif path.startswith("init_from."):
        yield Problem(where, path, "cannot be searched: monitor.retrain.start says what a retraining begins with")
    elif path.startswith("model.") and path not in RATES and spec.recipe is not None and retrain.start == "warm":
        words = "cannot be searched with start warm: the weights that it begins with have their shape. Use scratch"
        yield Problem(where, path, words)


# ---- of the search as a whole -----------------------------------------------------------------------------------------


def _metric(spec: RunSpec, search: Search) -> Iterator[Problem]:
    yield from not_reported("search.metric", search.metric, spec.recipe)


def _interval(spec: RunSpec, search: Search) -> Iterator[Problem]:
    interval = search.scheduler.interval
    if interval is not None and search.population is None:
        yield Problem("search.scheduler.interval", str(interval), "is for pbt and pb2: leave it out")


def _counts_reports(search: Search) -> bool:
    """Whether trials are judged by how far they are of a whole one's reports."""
    return search.scheduler.type in ("asha", "hyperband") or search.population is not None


def _enough_reports(spec: RunSpec, search: Search) -> Iterator[Problem]:
    if not _counts_reports(search):
        return
    most = search.scheduler.max_steps or _epochs(spec)
    if most is None:
        yield Problem("search.scheduler.max_steps", "nothing", "is required where train.epochs does not say it")
    elif search.scheduler.grace > most:
        yield Problem("search.scheduler.grace", str(search.scheduler.grace), f"must be at most max_steps ({most})")


def _within_epochs(spec: RunSpec, search: Search) -> Iterator[Problem]:
    if not _counts_reports(search) or search.scheduler.max_steps is None:
        return
    epochs = _epochs(spec)
    if epochs is not None and search.scheduler.max_steps > epochs:
        words = f"no trial gets so far: train.epochs is {epochs}"
        yield Problem("search.scheduler.max_steps", str(search.scheduler.max_steps), words)


def _epochs(spec: RunSpec) -> int | None:
    return spec.train.epochs if spec.script is None else None


# ---- of trials that go on from one another's checkpoints --------------------------------------------------------------


def _scheduler(spec: RunSpec, search: Search) -> Iterator[Problem]:
    if search.algorithm in POPULATIONS and search.scheduler.type not in ("fifo", search.algorithm):
        words = f"ends trials that {search.algorithm} would go on with: leave the scheduler out"
        yield Problem("search.scheduler.type", search.scheduler.type, words)


def _no_script(spec: RunSpec, search: Search) -> Iterator[Problem]:
    if search.population is not None and spec.script is not None:
        words = "is for recipes and entrypoints: the checkpoints of a script are its own. Use asha"
        yield Problem("search.scheduler.type", search.population, words)


def _rates(spec: RunSpec, search: Search) -> Iterator[Problem]:
    if search.population is not None and not search.rates:
        words = f"changes rates while trials train, and the space has none: add one of {', '.join(RATES)}"
        yield Problem("search.space", listed(list(search.space)), words)


def _ranged(search: Search, path: str) -> Iterator[Problem]:
    if path in RATES and search.population == "pb2" and search.space[path].bounds is None:
        yield Problem(f"search.space.{path}", "a list", "pb2 needs a range here: use log or uniform, or pbt")


# ---- of one parameter -------------------------------------------------------------------------------------------------


def _conditions(search: Search, path: str) -> Iterator[Problem]:
    """Each names a parameter of the space, and asks for what it can be."""
    for parent, values in search.space[path].conditions().items():
        yield from as_far_as_read(_condition(search, f"search.space.{path}.when.{parent}", parent, values))


def _condition(search: Search, where: str, parent: str, values: Sequence[Value]) -> Iterator[Problem]:
    if parent not in search.space:
        yield Problem(where, listed(values), f"is not in the space, {suggest(parent, search.space)}")
        return
    possible = search.space[parent].all_values
    if possible is None:
        words = f"{parent} is a range: a condition needs a choice, a grid or an int"
        yield Problem(where, listed(values), words)
    elif not any(search.space[parent].holds(value) for value in values):
        yield Problem(where, listed(values), f"can never hold: {parent} is one of {listed(possible[:10])}")


def _circles(search: Search) -> Iterator[Problem]:
    """No parameter waits for itself."""
    waiting = {path: _parents(search, path) for path in search.space}
    while free := [path for path, parents in waiting.items() if not parents & waiting.keys()]:
        waiting = {path: parents for path, parents in waiting.items() if path not in free}
    if waiting:
        words = f"{' and '.join(waiting)} wait for one another"
        yield Problem(f"search.space.{next(iter(waiting))}.when", "a circle", words)


def _parents(search: Search, path: str) -> set[str]:
    """The parameters that it waits for; none where they cannot be read."""
    try:
        return set(search.space[path].when)
    except Unread:
        return set()


def _counted(search: Search, path: str) -> Iterator[Problem]:
    if search.algorithm == "grid" and search.space[path].all_values is None:
        words = "is a range, and a grid has to count: use choice, grid or int, or the algorithm random"
        yield Problem(f"search.space.{path}", "a range", words)


def _unconditional(search: Search, path: str) -> Iterator[Problem]:
    if search.algorithm == "cmaes" and search.space[path].when:
        words = "cannot be: cmaes searches all parameters at once. Use tpe, or leave the condition out"
        yield Problem(f"search.space.{path}.when", "a condition", words)


def _first_point(search: Search, index: int, path: str) -> Iterator[Problem]:
    value = search.start_with[index][path]
    where = f"search.start_with[{index}].{path}"
    if path not in search.space:
        yield Problem(where, shorten(value), f"is not in the space, {suggest(path, search.space)}")
    elif not search.space[path].holds(value):
        yield Problem(where, shorten(value), "is not in the parameter's range")


class _Places:
    """The run file around a parameter: each of its ends, put in by itself, must pass the file's rules."""

    def __init__(self, spec: RunSpec) -> None:
        # Without the searches, or checking a value would check the space again.
        own: Any = {"search": True, "monitor": {"retrain": {"search"}}}
        self._model = type(spec)
        self._document = spec.model_dump(mode="json", exclude=own, exclude_unset=True)
        self._unread = [each for each in unread_places(spec) if each[0] not in ("search", "monitor")]

    def problems(self, search: Search, path: str) -> Iterator[Problem]:
        section = path.split(".")[0]
        if section not in _SEARCHABLE or "." not in path:
            words = f"is not a key that trials may differ in, {suggest(section, _SEARCHABLE)}"
            yield Problem(f"search.space.{path}", path, words)
            return
        try:
            points = [{**_base(search, path), path: value} for value in search.space[path].extremes]
        except Unread:
            yield from (each for each in self._refusals({path: None}, path) if each.message.startswith(NO_KEY))
            return
        yield from next(filter(None, (self._refusals(each, path) for each in points)), [])[:1]

    def _refusals(self, point: Mapping[str, Value], path: str) -> list[Problem]:
        """What the file's rules say of the value at this path; nothing where they say nothing of it."""
        found = all_problems(self._model, put(self._document, point), self._unread)
        here = [each for each in found if each.path == path or each.path.startswith((f"{path}.", f"{path}["))]
        return [replace(each, path=f"search.space.{path}") for each in here]


def _base(search: Search, path: str) -> dict[str, Value]:
    """Values that the parameter's conditions need."""
    needed: dict[str, Value] = {}
    for parent, values in search.space[path].conditions().items():
        if parent in search.space and parent != path:
            needed |= {parent: next((each for each in values if search.space[parent].holds(each)), values[0])}
    return needed
