"""Data made ready, on disk: one memory-mapped array a column and part, made to exist by a manifest written last.

    ROOT/<key>/manifest.json          what it was made of and how, sizes and checksums: the seal
               profile.json           what the training part looks like: see `trainers.data.preparing.profile`
               report.html            the same for people
               train/inputs.npy       [rows, ...], as are categories, tokens, targets
               train/row.npy          number of each row in the source
               validation/..., test/...

The key is the hash of the inputs, the steps and the code that takes them, so a directory never changes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from trainers.config import Augment
from trainers.data.augment import Augmented
from trainers.data.loader import Splits
from trainers.data.preparing.splitting import PARTS
from trainers.data.preparing.transform import Fitted
from trainers.data.reading.files import digest
from trainers.data.sampler import Indices
from trainers.errors import BadConfig

MANIFEST, PROFILE, REPORT = "manifest.json", "profile.json", "report.html"
FORMAT = 1


@dataclass(frozen=True)
class Sealed:
    """One file of a prepared directory."""

    path: str
    size_bytes: int
    xxh3: str


@dataclass(frozen=True)
class Manifest:
    """What a prepared directory holds."""

    key: str
    source: str
    data: Mapping[str, Any]  # the run file's section, as it was acted on
    fitted: Mapping[str, Any]
    rows: Mapping[str, int]  # by part
    dropped: Mapping[str, int]  # by the policy that dropped them
    labels: Mapping[str, Mapping[str, int]]  # rows of each class, by part
    files: tuple[Sealed, ...]
    created: str  # ISO 8601 UTC, for people
    format: int = FORMAT

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Raises ValueError when the text is not a manifest of this format."""
        try:
            raw = json.loads(text)
            if raw["format"] != FORMAT:
                raise ValueError(f"format {raw['format']}, this version reads {FORMAT}")
            return cls(**{**raw, "files": tuple(Sealed(**each) for each in raw["files"])})
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a manifest of prepared data: {error}") from error


@dataclass(frozen=True)
class Columns:
    """Examples in memory-mapped arrays with one first dimension; integers are handed out as int64."""

    columns: Mapping[str, torch.Tensor]
    rows: int

    def __len__(self) -> int:
        return self.rows

    def take(self, indices: Indices) -> Mapping[str, torch.Tensor]:
        where = torch.from_numpy(indices)
        taken = {name: column.index_select(0, where) for name, column in self.columns.items()}
        return {name: each if each.is_floating_point() else each.long() for name, each in taken.items()}


def with_channel(images: Columns) -> Columns:
    """Grey images [n, height, width] as [n, 1, height, width]; others as they are."""
    inputs = images.columns["inputs"]
    return replace(images, columns={**images.columns, "inputs": inputs.unsqueeze(1)}) if inputs.ndim == 3 else images


@dataclass(frozen=True)
class Prepared:
    """A prepared directory whose files are all there."""

    directory: Path
    manifest: Manifest

    @property
    def fitted(self) -> Fitted:
        return Fitted.from_json(self.manifest.fitted)

    @property
    def notes(self) -> dict[str, Any]:
        """What a user of the weights needs to know, for `Task.notes`."""
        return {"prepared": self.manifest.key, "preparation": dict(self.manifest.fitted), "profile": self.profile}

    @property
    def profile(self) -> dict[str, Any]:
        profile: dict[str, Any] = json.loads((self.directory / PROFILE).read_text())
        return profile

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one example's `inputs`; empty where there are none."""
        inputs = self.part("train").columns.get("inputs")
        return tuple(inputs.shape[1:]) if inputs is not None else ()

    def part(self, name: str, *, images: bool = False) -> Columns:
        """The examples of one of `PARTS`. `images`: inputs [n, height, width] become [n, 1, height, width]."""
        files = (self.directory / name).glob("*.npy")
        columns = Columns({file.stem: _mapped(file) for file in files if file.stem != "row"}, self.manifest.rows[name])
        return with_channel(columns) if images else columns

    def rows_of(self, name: str) -> npt.NDArray[np.int64]:
        """The number in the source of each row of a part, in its order."""
        numbers: npt.NDArray[np.int64] = np.load(self.directory / name / "row.npy")
        return numbers

    def splits(self, augment: Augment | None = None, *, images: bool = False) -> Splits:
        """All three parts, the training one with random variants where `augment` says so."""
        train, validation, test = (self.part(name, images=images) for name in PARTS)
        return Splits(Augmented(train, augment) if augment is not None else train, validation, test)


def find(root: Path, key: str) -> Prepared | None:
    """The prepared data of `key`, when there are any. Raises BadConfig when they are damaged."""
    directory = root / key
    try:
        manifest = Manifest.from_json((directory / MANIFEST).read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise _damaged(directory, f"its manifest cannot be read: {error}") from error
    for file in manifest.files:
        size_bytes = (directory / file.path).stat().st_size if (directory / file.path).is_file() else None
        if size_bytes != file.size_bytes:
            raise _damaged(directory, f"{file.path} has {size_bytes} bytes where {file.size_bytes} were sealed")
    return Prepared(directory, manifest)


def verify(prepared: Prepared) -> None:
    """Read every byte. Raises BadConfig on the first file that is not what was sealed."""
    for file in prepared.manifest.files:
        with open(prepared.directory / file.path, "rb") as stream:
            if (found := digest(stream)) != file.xxh3:
                raise _damaged(prepared.directory, f"{file.path} is corrupted: its xxh3 is {found}, not {file.xxh3}")


def sealed(directory: Path) -> tuple[Sealed, ...]:
    """Every file below a directory, made durable."""
    files = []
    for path in sorted(each for each in directory.rglob("*") if each.is_file()):
        with open(path, "rb") as stream:
            os.fsync(stream.fileno())
            files.append(Sealed(str(path.relative_to(directory)), path.stat().st_size, digest(stream)))
    return tuple(files)


def _damaged(directory: Path, why: str) -> BadConfig:
    return BadConfig("data.prepared", str(directory), f"{why}: remove the directory, and it is prepared again")


def _mapped(file: Path) -> torch.Tensor:
    array = np.load(file, mmap_mode="r")
    if not array.size:  # nothing to map
        return torch.from_numpy(np.load(file))
    # Copy on write: torch warns of arrays that it must not write to, and nothing here writes.
    return torch.from_numpy(np.load(file, mmap_mode="c"))
