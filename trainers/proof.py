"""At the end of a run: its result beside the version that serves, on the same rows.

The server asks for it (`config.Proof`) where the run's model has a champion. Both are brought back from their sealed
checkpoints, whole and in one precision, so that what is compared is what would serve. They are asked about two sets of rows
that neither was trained on: the test part of this run's data (`recent`) and that of the champion's own (`reference`). What
each says of each row goes into one fact, which `orchestrator/drift/proving.py` judges:

    {"format": 1, "champion": VERSION, "problem": WORDS}                  nothing could be compared, and why
    {"format": 1, "champion": VERSION,
     "modes": {METRIC: "max" | "min"},                                    what may be judged by, the usual one first
     "parts": {"recent": PART, "reference": PART},
     "latency": {"1": PAIR, "64": PAIR}, "parameters": PAIR}              fewest seconds of one batch of so many rows
    PART = {"source": TEXT, "of": ROWS, "problem": WORDS}
    PART = {"source": TEXT, "of": ROWS, "rows": N, "values": {METRIC: PAIR},
            "slices": {NAME: {"words": [...], "codes": ARRAY}}}
    PAIR = {"champion": ..., "challenger": ...}, of ARRAYs or of numbers
    ARRAY = base64 of zlib of little-endian float32 (values) or uint16 (codes: a place in `words`), [N]

Of a classifier the values are `accuracy` (0 or 1), `loss` and `confidence`; of other tasks what `measure` gives a sample.
A comparison that fails costs the proof, never the run.
"""

from __future__ import annotations

import base64
import logging
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from trainers.config import Data, Proof, Settings, section
from trainers.contract import Launch
from trainers.data.loader import Batch, Examples, Loader
from trainers.data.other_terms import rows_in_terms_of
from trainers.data.preparing.transform import Fitted
from trainers.data.sampler import Indices
from trainers.errors import TrainerError
from trainers.exchange import Exchange
from trainers.explained_model import revived
from trainers.export import sealed_weights
from trainers.tasks.task import AnyTask, KeepsState, Predicts

FORMAT = 1
MOST_ROWS = 4096
"""Of each part, drawn by a seed where there are more: the interval of a mean over so many is narrow enough."""
_SLICES, _WORDS = 8, 20  # columns, and values of one, by which rows are told apart
_LEAST_PROBABILITY = 1e-7
_WARM_UP, _TIMED, _TIMED_S = 3, 100, 2.0
_OF_THE_DATA = ("prepared", "profile", "preparation", "classes", "labels", "network")
"""Notes in which two models that can be compared may differ."""

Values = dict[str, npt.NDArray[np.float32]]
_log = logging.getLogger(__name__)


class NotComparable(TrainerError):
    """Why two models cannot be asked about the same rows."""


@dataclass(frozen=True)
class Contender:
    """A model as it was sealed, and its own data."""

    name: str  # champion or challenger
    model: nn.Module
    task: AnyTask
    data: Data
    notes: Mapping[str, Any]

    @property
    def preparation(self) -> Mapping[str, Any] | None:
        """What its training part fitted, as JSON; None for data taken as they are."""
        found: Mapping[str, Any] | None = self.notes.get("preparation")
        return found

    @property
    def held_out(self) -> tuple[str, Examples]:
        """The part that it was neither trained nor chosen on, or the one that it was only chosen on."""
        splits = self.task.splits
        return ("test", splits.test) if len(splits.test) else ("validation", splits.validation)

    @property
    def classes(self) -> tuple[str, ...] | None:
        """In words, by number; None where it does not tell classes apart."""
        if not isinstance(self.task, Predicts):
            return None
        count = self.notes.get("classes")
        return tuple(self.task.classes) or tuple(map(str, range(count if isinstance(count, int) else 0)))


def compared(
    launch: Launch,
    settings: Settings,
    task: AnyTask,
    checkpoint: str | None,
    exchange: Exchange,
    loader: Loader,
    alive: Callable[[], None],
) -> Mapping[str, Any] | None:
    """Collective. The fact, on rank 0; None on the others, and where no comparison is asked for."""
    asked = settings.proof
    if asked is None:
        return None
    rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    pair: tuple[Contender, Contender] | None = None
    mine: dict[str, Any] = {}
    try:
        pair = _contenders(launch, settings, asked, task, checkpoint, loader)
        alive()
        mine = _asked(pair, slice(rank, None, world_size), loader, alive)
    except Exception as error:  # whatever the champion's old data or code raise: the run has its result already
        mine = {"problem": _problem(asked, error)}
    everywhere = exchange.all(mine)
    if rank != 0:
        return None
    problem = next((each["problem"] for each in everywhere if "problem" in each), None)
    if problem is None and pair is not None:
        try:
            return {"format": FORMAT, "champion": asked.champion, **_comparison(pair, everywhere, loader)}
        except Exception as error:  # the same
            problem = _problem(asked, error)
    return {"format": FORMAT, "champion": asked.champion, "problem": f"not compared: {problem}"}


def _problem(asked: Proof, error: Exception) -> str:
    _log.warning("no comparison with version %d: %s", asked.champion, error, exc_info=error)
    return str(error) or repr(error)


def _comparison(
    pair: tuple[Contender, Contender], everywhere: Sequence[Mapping[str, Any]], loader: Loader
) -> dict[str, Any]:
    """Of what all ranks found; latencies are measured here, while the others are done."""
    champion, challenger = pair
    return {
        "modes": _modes(challenger),
        "parts": {name: _whole([each[name] for each in everywhere]) for name in everywhere[0]},
        "latency": _latency(champion, challenger, loader),
        "parameters": {each.name: sum(weight.numel() for weight in each.model.parameters()) for each in pair},
    }


def _contenders(
    launch: Launch, settings: Settings, asked: Proof, task: AnyTask, checkpoint: str | None, loader: Loader
) -> tuple[Contender, Contender]:
    if isinstance(task, KeepsState):
        raise NotComparable(f"{type(task).__name__} keeps a part of its model beside it, which is not compared yet")
    if checkpoint is None:
        raise NotComparable("the run has sealed nothing")
    found = revived(asked.checkpoint, None, launch.code_dir)
    data = section(Data, found.config["data"], "data")
    champion = Contender("champion", found.model, found.task, data, found.config["notes"])
    model = task.model().float().eval()
    model.load_state_dict(sealed_weights(checkpoint), strict=True)
    challenger = Contender("challenger", model, task, settings.data, task.notes)
    if (champion.classes is None) != (challenger.classes is None):
        raise NotComparable("one tells classes apart and the other does not")
    for each in (champion, challenger):
        each.model.to(loader.device, loader.dtype)
    return champion, challenger


def _modes(challenger: Contender) -> dict[str, str]:
    if challenger.classes is not None:
        return {"accuracy": "max", "loss": "min"}
    return {challenger.task.judged_by.removeprefix("val_"): challenger.task.judged_mode}


def _asked(
    pair: tuple[Contender, Contender], share: slice, loader: Loader, alive: Callable[[], None]
) -> dict[str, Any]:
    """What both say of this rank's share of the rows of both parts."""
    champion, challenger = pair
    parts: dict[str, Any] = {}
    for name, owner in (("recent", challenger), ("reference", champion)):
        part, examples = owner.held_out
        of = len(examples)
        parts[name] = {"source": f"{owner.data.source}, {part} part", "of": of}
        try:
            rows = _drawn(of)
            values = {each.name: answers(each, owner, rows[share], loader, alive) for each in pair}
            if values["champion"].keys() != values["challenger"].keys():
                raise NotComparable("the champion is measured by other metrics")
            parts[name] |= {"values": {who: _listed(each) for who, each in values.items()}}
            parts[name] |= {"rows": len(rows), "slices": _slices(owner, rows)}
        except (TrainerError, ValueError, KeyError, OSError) as error:
            parts[name] |= {"problem": str(error)}
    return parts


def _drawn(of: int) -> Indices:
    if not of:
        raise NotComparable("no rows were held out")
    if of <= MOST_ROWS:
        return np.arange(of)
    return np.sort(np.random.default_rng(0).choice(of, MOST_ROWS, replace=False))


def answers(contender: Contender, owner: Contender, rows: Indices, loader: Loader, alive: Callable[[], None]) -> Values:
    """What `contender` says of rows that are held out of the data of `owner`."""
    part, examples = owner.held_out
    inputs = examples if _same_terms(contender, owner) else _in_its_terms(contender, owner, part, rows)
    places = rows if inputs is examples else np.arange(len(rows))
    found: list[Values] = []
    with torch.no_grad():
        for start in range(0, len(rows), loader.plan.micro_batch):
            cut = slice(start, start + loader.plan.micro_batch)
            batch = _batch(inputs, places[cut], loader)
            if inputs is not examples:
                batch["targets"] = _batch(examples, rows[cut], loader)["targets"]
            found.append(_of_batch(contender, owner, batch))
            alive()
    names = found[0] if found else ()
    return {name: np.concatenate([each[name] for each in found]) for name in names}


def _same_terms(contender: Contender, owner: Contender) -> bool:
    """Whether both take the rows as they are prepared for `owner`. Raises NotComparable where they can take no rows alike."""
    for name, value in owner.notes.items():
        resized = name == "input_shape" and contender.preparation is not None
        if name in _OF_THE_DATA or name not in contender.notes or resized:
            continue
        if _plain(contender.notes[name]) != _plain(value):
            raise NotComparable(f"the {owner.name}'s {name} is not the {contender.name}'s")
    return bool(_plain(contender.preparation) == _plain(owner.preparation))


def _plain(value: Any) -> Any:
    """As JSON keeps it: the notes of one of both come from there."""
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, (list, tuple)) else value


def _in_its_terms(contender: Contender, owner: Contender, part: str, rows: Indices) -> Examples:
    arranged = getattr(contender.task, "arranged", None)
    if contender.preparation is None or owner.preparation is None or arranged is None:
        raise NotComparable(f"the {contender.name} cannot take the {owner.name}'s data: they are prepared otherwise")
    examples: Examples = arranged(rows_in_terms_of(Fitted.from_json(contender.preparation), owner.data, part, rows))
    return examples


def _batch(examples: Examples, rows: Indices, loader: Loader) -> Batch:
    taken = dict(examples.take(rows))
    taken["keys"] = torch.zeros(len(rows), dtype=torch.int64)
    return {
        name: column.to(loader.device, loader.dtype if column.is_floating_point() else None)
        for name, column in taken.items()
    }


def _of_batch(contender: Contender, owner: Contender, batch: Batch) -> Values:
    task, known, truth = contender.task, contender.classes, owner.classes
    if not isinstance(task, Predicts) or known is None or truth is None:
        measured = task.measure(contender.model, batch)
        return {name: values.float().cpu().numpy() for name, values in measured.items()}
    probabilities = task.predict(contender.model, batch).float().cpu().numpy()
    # A class that the contender never saw is one that it cannot name.
    places = np.array([known.index(word) if word in known else -1 for word in truth])[batch["targets"].cpu().numpy()]
    given = np.take_along_axis(probabilities, np.maximum(places, 0)[:, None], axis=1)[:, 0]
    given = np.where(places >= 0, np.maximum(given, _LEAST_PROBABILITY), _LEAST_PROBABILITY)
    return {
        "accuracy": (probabilities.argmax(axis=1) == places).astype(np.float32),
        "loss": -np.log(given, dtype=np.float32),
        "confidence": probabilities.max(axis=1),
    }


def _slices(owner: Contender, rows: Indices) -> dict[str, Any]:
    """The class of each row, and its value in columns of few values, as places in lists of words."""
    _, examples = owner.held_out
    taken = examples.take(rows)
    found: dict[str, tuple[Sequence[str], npt.NDArray[Any]]] = {}
    if owner.classes is not None:
        found["label"] = (owner.classes, taken["targets"].numpy())
    if owner.preparation is not None and "categories" in taken:
        fitted = Fitted.from_json(owner.preparation)
        for place, name in enumerate(fitted.roles.categories):
            words = ("(unknown)", *fitted.categories[name])
            found[name] = (words, taken["categories"][:, place].numpy())
    few = [(name, each) for name, each in found.items() if name == "label" or len(each[0]) <= _WORDS]
    return {
        name: {"words": list(words), "codes": _packed(codes.astype("<u2"))} for name, (words, codes) in few[:_SLICES]
    }


def _listed(values: Values) -> dict[str, list[float]]:
    return {name: each.tolist() for name, each in values.items()}


def _whole(shares: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One part, from what each rank said of every n-th row of it."""
    part = dict(shares[0])
    problem = next((each["problem"] for each in shares if "problem" in each), None)
    if problem is not None:
        return {"source": part["source"], "of": part["of"], "problem": problem}
    values: dict[str, dict[str, str]] = {}
    for who in ("champion", "challenger"):
        for metric in part["values"][who]:
            joined = np.empty(part["rows"], dtype="<f4")
            for rank, each in enumerate(shares):
                joined[rank :: len(shares)] = each["values"][who].get(metric, ())
            values.setdefault(metric, {})[who] = _packed(joined)
    return {**part, "values": values}


def _packed(values: npt.NDArray[Any]) -> str:
    return base64.b64encode(zlib.compress(values.tobytes(), 9)).decode()


def _latency(champion: Contender, challenger: Contender, loader: Loader) -> dict[str, Any]:
    """Seconds of a forward pass: the fewest of many taken in turn, for what else the machine does can only add to them.
    {} where one of both has no rows held out to be asked about.
    """
    if not (len(champion.held_out[1]) and len(challenger.held_out[1])):
        return {}
    sizes = sorted({1, loader.plan.micro_batch})
    return {str(size): _timed(champion, challenger, size, loader) for size in sizes}


def _timed(champion: Contender, challenger: Contender, size: int, loader: Loader) -> dict[str, float]:
    contenders = (champion, challenger)
    batches = [_batch(each.held_out[1], np.arange(size) % len(each.held_out[1]), loader) for each in contenders]
    taken: dict[str, list[float]] = {each.name: [] for each in contenders}
    in_turn = list(zip(contenders, batches, strict=True))
    began = time.monotonic()
    for turn in range(_WARM_UP + _TIMED):
        for each, batch in in_turn if turn % 2 else reversed(in_turn):
            seconds = _forward_s(each, batch, loader)
            if turn >= _WARM_UP:
                taken[each.name].append(seconds)
        if turn > _WARM_UP and time.monotonic() - began > _TIMED_S:
            break
    return {name: min(each) for name, each in taken.items()}


def _forward_s(contender: Contender, batch: Batch, loader: Loader) -> float:
    began = time.perf_counter()
    with torch.no_grad():
        if isinstance(contender.task, Predicts):
            contender.task.predict(contender.model, batch)
        else:
            contender.task.measure(contender.model, batch)
    if loader.device.type == "cuda":
        torch.cuda.synchronize(loader.device)
    return time.perf_counter() - began
