"""Which samples a run saw twice or never.

    python -m trainers.data.audit CHECKPOINT_ROOT

audits the weights of every seal there, by the history that its manifest carries, and ends with 1 where an epoch that
has ended did not see every sample once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from trainers.contract import MANIFEST_NAME, Manifest, found
from trainers.data.history import Span, spans_of
from trainers.data.sampler import ORDER, Indices, Sampler
from trainers.errors import TrainerError
from trainers.storage import Storage, open_storage

LISTED = 100
"""So many sample ids of each kind are named."""


@dataclass(frozen=True)
class Epoch:
    """How often the samples of one epoch were seen. Counts are exact; ids are the first `LISTED`."""

    number: int
    once: int
    repeated: int
    missing: int
    repeated_ids: tuple[int, ...] = ()
    missing_ids: tuple[int, ...] = ()

    @property
    def exactly_once(self) -> bool:
        return not self.repeated and not self.missing


@dataclass(frozen=True)
class Audit:
    """What the weights saw. Samples of an epoch that has not ended are missing only where others came after them."""

    samples: int
    epochs: tuple[Epoch, ...]
    unfinished: Epoch | None

    @property
    def problems(self) -> tuple[str, ...]:
        every = (*self.epochs, *((self.unfinished,) if self.unfinished else ()))
        return tuple(line for each in every for line in _problems(each))


def audit(cursor: Mapping[str, Any]) -> Audit:
    """Judge the history in one cursor, in time and memory that depend on the number of spans and epochs alone.

    Raises ValueError when the cursor holds no history, or one over another order of the samples.
    """
    if cursor.get("order", 1) != ORDER:
        raise ValueError(f"the samples are in order {cursor.get('order', 1)}, this version knows order {ORDER}")
    spans = spans_of(cursor)
    sampler = Sampler(int(cursor["size"]), int(cursor["global_batch"]), int(cursor["seed"]))
    consumed = int(cursor["samples"])
    whole, rest = divmod(consumed, sampler.size)
    epochs = tuple(_epoch(number, spans, sampler, sampler.size) for number in range(whole))
    return Audit(consumed, epochs, _epoch(whole, spans, sampler, rest) if rest else None)


def _epoch(number: int, spans: Sequence[Span], sampler: Sampler, length: int) -> Epoch:
    """The first `length` samples of epoch `number`."""
    start = number * sampler.size
    pieces = list(_covered(spans, start, start + length))
    counted = {times: sum(stop - begin for begin, stop, seen in pieces if seen == times) for times in (0, 1)}
    return Epoch(
        number,
        once=counted[1],
        repeated=length - counted[0] - counted[1],
        missing=counted[0],
        repeated_ids=_ids(sampler, [(begin, stop) for begin, stop, seen in pieces if seen > 1]),
        missing_ids=_ids(sampler, [(begin, stop) for begin, stop, seen in pieces if seen == 0]),
    )


def _covered(spans: Sequence[Span], start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """The range cut where its cover changes: begin, end, and how many spans lie over it."""
    inside = [(max(each.start, start), min(each.stop, stop)) for each in spans]
    inside = [(begin, end) for begin, end in inside if begin < end]
    edges = sorted({start, stop, *(edge for piece in inside for edge in piece)})
    for begin, end in pairwise(edges):
        yield begin, end, sum(first <= begin and end <= last for first, last in inside)


def _ids(sampler: Sampler, pieces: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    found_ids: list[Indices] = []
    left = LISTED
    for begin, stop in pieces:
        if left > 0:
            found_ids.append(sampler.stream(begin, min(left, stop - begin)))
            left -= len(found_ids[-1])
    return tuple(np.concatenate(found_ids).tolist()) if found_ids else ()


def _problems(epoch: Epoch) -> Iterator[str]:
    for count, ids, what in (
        (epoch.repeated, epoch.repeated_ids, "seen more than once"),
        (epoch.missing, epoch.missing_ids, "never seen"),
    ):
        if count:
            more = ", ..." if count > len(ids) else ""
            yield f"epoch {epoch.number}: {count} samples {what}: {', '.join(map(str, ids))}{more}"


def _manifests(storage: Storage) -> Iterator[tuple[str, Manifest]]:
    """Every seal that can be read, the oldest first."""
    paths = [
        f"{attempt}/{incarnation}/{step}"
        for attempt in storage.names("")
        for incarnation in storage.names(attempt)
        for step in storage.names(f"{attempt}/{incarnation}")
    ]
    listed = [found(path, storage.read_text(f"{path}/{MANIFEST_NAME}")) for path in paths]
    for each in sorted((one for one in listed if one is not None), key=lambda one: one.order):
        if each.manifest is not None:
            yield each.checkpoint, each.manifest


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m trainers.data.audit", description=__doc__)
    parser.add_argument("checkpoint_root", help="directory or URL that holds attempt-0001/...")
    root = parser.parse_args(arguments).checkpoint_root
    try:
        manifests = list(_manifests(open_storage(root, lambda: None)))
    except TrainerError as error:
        print(error)
        return 1
    problems = 0 if manifests else 1
    if not manifests:
        print(f"{root}: no sealed checkpoint to audit")
    for path, manifest in manifests:
        problems += _tell(path, manifest)
    return 1 if problems else 0


def _tell(path: str, manifest: Manifest) -> int:
    """Print what one seal's history says; returns how many problems there are."""
    try:
        result = audit(manifest.cursor)
        spans = spans_of(manifest.cursor)
    except (KeyError, ValueError) as error:
        print(f"{path}: cannot be audited: {error}")
        return 1
    good = sum(each.exactly_once for each in result.epochs)
    print(
        f"{path}: {result.samples} samples in {len(spans)} incarnations; "
        f"{good} of {len(result.epochs)} ended epochs saw every sample once"
    )
    for line in result.problems:
        print(f"  {line}")
    return len(result.problems)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
