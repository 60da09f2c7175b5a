"""Where an alias stands by the history of its moves, and where a rollback takes it."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.core.records import AliasMove

CHAMPION = "champion"
"""The alias of the version that serves: what challengers are compared with."""


def stands_on(history: Sequence[AliasMove]) -> int:
    """The version, by the moves of one alias, newest first; 0: none."""
    return history[0].version if history else 0


def stood_before(history: Sequence[AliasMove]) -> int:
    """The version that a rollback goes back to, by the moves of one alias, newest first; 0: there is none.

    A version that stands again undoes what came after it: after 1, 2, 3 and a rollback to 2, the next one goes to 1. Undone
    moves would otherwise be what rollbacks go back to, and two of them would bring back what the first one took away.
    """
    trail: list[int] = []
    for move in reversed(history):
        trail = trail[: trail.index(move.version)] if move.version in trail else trail
        trail.append(move.version)
    return trail[-2] if len(trail) > 1 else 0
