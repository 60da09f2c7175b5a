"""Where in the journal of live traffic a moment is, and where its newest rows begin."""

from __future__ import annotations

from orchestrator.ports import ObservationStore


def last_before(observations: ObservationStore, project: str, model: str, at: float) -> int:
    """The number of the last batch that was received before that moment; 0 where there is none. No row of that moment or
    later is in it or before it, for a row is received after it was; rows of earlier may come behind it, late or from a feed,
    and those that say when they were are told apart by that. Reads a few batches: they are numbered as they came.
    """
    low, high = 0, observations.last(project, model)  # the answer is one of low ... high
    while low < high:
        middle = (low + high) // 2
        found = observations.read(project, model, after=middle, limit_rows=1)
        if not found or found[0].at >= at:
            high = middle
        else:
            low = found[0].number
    return low


def before_newest(observations: ObservationStore, project: str, model: str, rows: int) -> int:
    """The number of the last batch before the newest ones that hold so many rows together; 0 where all do not hold more."""
    low, high = 0, observations.last(project, model)
    while low < high:
        middle = (low + high + 1) // 2
        if observations.rows(project, model, since=middle) >= rows:
            low = middle
        else:
            high = middle - 1
    return low
