"""Where an alias stands, and where a rollback takes it."""

from __future__ import annotations

import pytest

from orchestrator.core.aliases import stands_on, stood_before
from orchestrator.core.records import AliasMove


def history(*versions: int) -> list[AliasMove]:
    """Newest first, of an alias that moved to these."""
    moves = [
        AliasMove("default", "digits", number, "champion", version, 0, float(number), "ann", "")
        for number, version in enumerate(versions, 1)
    ]
    return moves[::-1]


@pytest.mark.parametrize(
    ("moved", "stands", "before"),
    [
        ((), 0, 0),
        ((1,), 1, 0),
        ((1, 2), 2, 1),
        ((1, 2, 3), 3, 2),
        ((1, 2, 3, 2), 2, 1),  # a rollback: the next one goes further back
        ((1, 2, 3, 2, 1), 1, 0),
        ((1, 2, 1, 3), 3, 1),  # what was undone is not gone back to
        ((1, 2, 1, 2), 2, 1),  # promoted again
        ((3, 1), 1, 3),
    ],
)
def test_a_rollback_goes_to_what_stood_before_and_was_not_undone(
    moved: tuple[int, ...], stands: int, before: int
) -> None:
    assert stands_on(history(*moved)) == stands
    assert stood_before(history(*moved)) == before
