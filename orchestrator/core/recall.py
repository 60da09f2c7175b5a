"""Whether a version that stands by takes the champion's place: it was trained before, so nothing is trained for it.

Versions that stand by (champions of before, challengers that were not promoted) answer the champion's live rows in shadow. Of
rows whose label is known only those speak that one of both had right and the other wrong: were both equally good, each would
fall to either like a coin (McNemar 1947), and the probability of so many for one of them is exact. Each comparison is of rows
that none before it looked at. A recall that was chance costs little: the next comparison takes it back in the same way.

Worlds come back, as prices, seasons and weekdays do, and then an old version is the right one. And a new one that was better
on the rows it was proven on need not be so on the next: it may stand by until live rows have shown it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.core.records import AliasMove


@dataclass(frozen=True)
class Policy:
    """`versions` stand by at most, the champion among them; `rows` labelled ones are one comparison. `confidence`: of each
    comparison with each version.
    """

    versions: int = 8
    rows: int = 500
    confidence: float = 0.95


@dataclass(frozen=True)
class Paired:
    """A version that stands by and the champion on the same labelled rows. `gained`: those that it alone had right, `lost`:
    those that the champion alone had right.
    """

    version: int
    rows: int
    gained: int
    lost: int

    def __post_init__(self) -> None:
        if min(self.gained, self.lost) < 0 or self.gained + self.lost > self.rows:
            raise ValueError(f"{self.gained} rows gained and {self.lost} lost of {self.rows}")


@dataclass(frozen=True)
class Recall:
    """`version` 0: the champion stays."""

    version: int
    words: str


def judge(champion: int, pairs: Sequence[Paired], policy: Policy) -> Recall:
    """Of the versions that are surely better than the champion the one that gains most; of equals the newest."""
    better = [each for each in pairs if each.gained > each.lost and chance(each) <= 1 - policy.confidence]
    if not better:
        return Recall(0, f"version {champion} stays: none of {len(pairs)} that stand by is surely better")
    best = max(better, key=lambda each: ((each.gained - each.lost) / each.rows, each.version))
    words = (
        f"version {best.version} serves in place of version {champion}: of the newest {best.rows:,} labelled rows it alone "
        f"had {best.gained} right, the champion alone {best.lost}; of equals so many would be {chance(best):.2g} likely"
    )
    return Recall(best.version, words)


def chance(pair: Paired) -> float:
    """The probability that a version which is no better gains so many rows, or more, of those that tell both apart."""
    told_apart = pair.gained + pair.lost
    ways = term = math.comb(told_apart, pair.gained)
    for gained in range(pair.gained, told_apart):
        term = term * (told_apart - gained) // (gained + 1)
        ways += term
    return float(ways / 2**told_apart)


def last_served(made: Mapping[int, float], moves: Sequence[AliasMove]) -> dict[int, float]:
    """When each version served last, or was made, where it never did. `moves`: of the champion's alias, newest first."""
    return dict(made) | {each.before: each.at for each in reversed(moves) if each.before in made}


def standing_by(champion: int, served: Mapping[int, float], policy: Policy) -> list[int]:
    """The versions that are kept beside the champion, newest first: those that served last, by `last_served`."""
    others = sorted(set(served) - {champion}, key=lambda each: (served[each], each), reverse=True)
    return sorted(others[: policy.versions - 1], reverse=True)
