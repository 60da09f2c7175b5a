"""Which pieces of the run's stream of samples the weights of a checkpoint have seen, incarnation by incarnation.

Every seal's cursor carries it, so one manifest is enough to audit its weights. Samples that were computed and lost with
a crash are in no history: the weights that remained never saw them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Span:
    """What one incarnation added to the weights: positions `start` to `stop` of the stream."""

    attempt: int
    incarnation: int
    world_size: int
    start: int
    stop: int


@dataclass(frozen=True)
class History:
    """The spans of earlier incarnations, and where this one began."""

    attempt: int
    incarnation: int
    world_size: int
    earlier: tuple[Span, ...] = ()
    start: int = 0

    def resumed(self, cursor: Mapping[str, Any]) -> History:
        """The history of an incarnation that goes on from the seal with `cursor`."""
        earlier = spans_of(cursor)
        return History(self.attempt, self.incarnation, self.world_size, earlier, int(cursor["samples"]))

    def until(self, consumed: int) -> list[dict[str, int]]:
        """What a seal after `consumed` samples keeps, as JSON."""
        mine = Span(self.attempt, self.incarnation, self.world_size, self.start, consumed)
        spans: Iterable[Span] = (*self.earlier, mine) if mine.stop > mine.start else self.earlier
        return [asdict(each) for each in spans]


def spans_of(cursor: Mapping[str, Any]) -> tuple[Span, ...]:
    """Raises ValueError when the cursor carries no history."""
    try:
        return tuple(Span(**{name: int(value) for name, value in each.items()}) for each in cursor["history"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the cursor carries no history of its samples: {error}") from error
