"""Where examples come from, and how they are split: the same on every rank and in every incarnation."""

from __future__ import annotations

import gzip
import importlib.util
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trainers.data.idx import is_idx, read_idx
from trainers.data.passages import help_text
from trainers.data.sampler import Indices, shuffled
from trainers.errors import BadConfig

DIGITS = "sklearn://digits"
PYDOC_TOPICS = "text://pydoc_topics"
_PATH = "data.source"


@dataclass(frozen=True)
class Labelled:
    """Inputs [n, ...] and a class [n] for each."""

    inputs: npt.NDArray[np.float32]
    targets: npt.NDArray[np.int64]


def read_labelled(source: str) -> Labelled:
    """`sklearn://digits`, a .npz file with the arrays `x` [n, ...] and `y` [n], or a file of MNIST's format with the images,
    beside one with the labels: see `trainers.data.idx`. Raises BadConfig."""
    if source == DIGITS:
        return _digits()
    if source.endswith(".npz"):
        return _npz(existing_file(source))
    if is_idx(source):
        return Labelled(*read_idx(existing_file(source)))
    raise BadConfig(
        _PATH,
        source,
        f"must be {DIGITS} or a .npz file with the arrays x and y, or a file whose name holds images-idx3-ubyte",
    )


def read_text(source: str) -> str:
    """`text://pydoc_topics` (the standard library's help), or a UTF-8 text file. Raises BadConfig."""
    if source == PYDOC_TOPICS:
        return help_text()
    path = existing_file(source)
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BadConfig(_PATH, source, f"must be a UTF-8 text file: {error}") from error


def existing_file(source: str) -> Path:
    """The local file that `source` names, a path or file:// URL. Raises BadConfig when there is none."""
    path = Path(source.removeprefix("file://")).expanduser()
    if "://" in source and not source.startswith("file://"):
        raise BadConfig(_PATH, source, f"must be {DIGITS}, {PYDOC_TOPICS}, or the path of a text or .npz file")
    if not path.is_file():
        raise BadConfig(
            _PATH, source, f"no such file ({path.absolute()}): put it there on every node, or correct the path"
        )
    return path


def split_indices(size: int, split: tuple[float, float, float]) -> tuple[Indices, Indices, Indices]:
    """Disjoint shuffled indices for training, validation and test. Independent of the seed: runs stay comparable."""
    order = shuffled(size, seed=0x5B117)
    first, second = split_points(size, split)
    return order[:first], order[first:second], order[second:]


def split_points(size: int, split: tuple[float, float, float]) -> tuple[int, int]:
    """Where validation and test begin."""
    return round(size * split[0]), round(size * (split[0] + split[1]))


def sklearn_file(source: str, name: str) -> Path:
    """The data file behind `source`, which scikit-learn brings. Raises BadConfig when it is not installed."""
    # Importing scikit-learn takes a second and starts a thread, which a zygote must not: its data file is enough.
    package = importlib.util.find_spec("sklearn")
    if package is None or not package.submodule_search_locations:
        raise BadConfig(_PATH, source, "scikit-learn is not installed on this node: install evertrain[cluster]")
    return Path(package.submodule_search_locations[0], "datasets", "data", name)


def _digits() -> Labelled:
    with gzip.open(sklearn_file(DIGITS, "digits.csv.gz"), "rt") as file:
        table = np.loadtxt(file, delimiter=",")
    images = table[:, :-1].reshape(-1, 8, 8) / 16
    return Labelled(images.astype(np.float32), table[:, -1].astype(np.int64))


def _npz(path: Path) -> Labelled:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            inputs, targets = arrays["x"], arrays["y"]
    except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise BadConfig(_PATH, str(path), f"must be a .npz file with the arrays x and y: {error}") from error
    if len(inputs) != len(targets) or targets.ndim != 1:
        raise BadConfig(_PATH, str(path), f"x {inputs.shape} and y {targets.shape} must have one first dimension")
    return Labelled(inputs.astype(np.float32), targets.astype(np.int64))
