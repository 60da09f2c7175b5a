"""The error tree. Every message says what was wrong, where, and what to do.

EvertrainError
├── InvalidSpec          the run file is wrong; carries one Problem per place
├── NotFound             no such run, model, cluster, token
├── Conflict             the thing exists already, or changed underneath
├── Denied               the token may not do this
│   └── Unauthenticated  no token, or one that is not known
├── Refused              understood, allowed, and still impossible in the present state
├── TooLarge             over a limit of size or rate
├── Unavailable          the server, store or cluster cannot be reached now; trying again is right
└── StorageFailed        files could not be written or read
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One wrong place in a run file."""

    path: str  # e.g. "train.lr"
    got: str  # the value as the user wrote it, shortened
    message: str  # what would be right

    def __str__(self) -> str:
        return f"{self.path}: {self.message} (got {self.got})"


class EvertrainError(Exception):
    """Root of every error that Evertrain raises on purpose."""


class InvalidSpec(EvertrainError):
    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(each) for each in problems))


class NotFound(EvertrainError):
    pass


class Conflict(EvertrainError):
    pass


class Denied(EvertrainError):
    pass


class Unauthenticated(Denied):
    pass


class Refused(EvertrainError):
    pass


class TooLarge(EvertrainError):
    pass


class Unavailable(EvertrainError):
    pass


class StorageFailed(EvertrainError):
    pass
