"""Errors on the wire: each class of the error tree has one gRPC status, there and back.

The whole error travels as JSON in the trailing metadata `evertrain-error-bin`:

    {"type": "InvalidSpec", "message": "...", "field_violations": [{"field": "train.lr", "got": "-1", "description": "..."}]}

What nobody raised on purpose becomes INTERNAL with an incident id; the traceback stays in the server's log.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Iterable
from typing import Any

import grpc

from orchestrator.errors import (
    Conflict,
    Denied,
    EvertrainError,
    InvalidSpec,
    NotFound,
    Problem,
    Refused,
    StorageFailed,
    TooLarge,
    Unauthenticated,
    Unavailable,
)

log = logging.getLogger(__name__)

ERROR_KEY = "evertrain-error-bin"

# A gRPC peer takes 8 KiB of metadata unless told otherwise, and the message travels percent-encoded.
_MESSAGE_CHARS = 1200
_DETAIL_BYTES = 3000

CODES: dict[type[EvertrainError], grpc.StatusCode] = {
    InvalidSpec: grpc.StatusCode.INVALID_ARGUMENT,
    NotFound: grpc.StatusCode.NOT_FOUND,
    Conflict: grpc.StatusCode.ALREADY_EXISTS,
    Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    Denied: grpc.StatusCode.PERMISSION_DENIED,
    Refused: grpc.StatusCode.FAILED_PRECONDITION,
    TooLarge: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
    StorageFailed: grpc.StatusCode.DATA_LOSS,
}


class DeadlinePassed(Unavailable):
    """The call took longer than it may; whether it took effect is not known."""


_CLASSES: tuple[type[EvertrainError], ...] = (DeadlinePassed, *CODES)  # subclasses first


def to_status(error: BaseException) -> tuple[grpc.StatusCode, str, tuple[tuple[str, bytes], ...]]:
    """Code, message for people and trailing metadata. Logs what is not one of our own errors."""
    if isinstance(error, EvertrainError):
        code = _code(error)
        return code, _shorten(str(error)), ((ERROR_KEY, _details(error)),)
    incident = secrets.token_hex(6)
    log.error("incident %s: %s", incident, type(error).__name__, exc_info=error)
    return grpc.StatusCode.INTERNAL, f"internal error; the server's log tells more under incident {incident}", ()


def from_status(code: grpc.StatusCode, message: str, trailing: Iterable[tuple[str, str | bytes]]) -> EvertrainError:
    """The error that the server raised, as near as the wire lets us know."""
    raw = next((value for key, value in trailing if key == ERROR_KEY), None)
    if raw is not None:
        try:
            return _rebuild(json.loads(raw))
        except (ValueError, KeyError, TypeError):
            log.debug("error details of an unknown form: %r", raw)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlinePassed(message)
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        return InvalidSpec([Problem("request", "", message)])
    return next(
        (cls(message) for cls, each in CODES.items() if each is code), EvertrainError(f"{code.name}: {message}")
    )


def _code(error: EvertrainError) -> grpc.StatusCode:
    if isinstance(error, DeadlinePassed):
        return grpc.StatusCode.DEADLINE_EXCEEDED
    return next((code for cls, code in CODES.items() if isinstance(error, cls)), grpc.StatusCode.UNKNOWN)


def _details(error: EvertrainError) -> bytes:
    name = next((cls.__name__ for cls in _CLASSES if isinstance(error, cls)), "EvertrainError")
    if not isinstance(error, InvalidSpec):
        return json.dumps({"type": name, "message": _shorten(str(error))}).encode()
    violations: list[dict[str, str]] = []
    size = 0
    for problem in error.problems:
        entry = {"field": problem.path[:200], "got": problem.got[:200], "description": problem.message[:500]}
        size += len(json.dumps(entry))
        if size > _DETAIL_BYTES:
            left = len(error.problems) - len(violations)
            violations.append({"field": "", "got": "", "description": f"and {left} more problems"})
            break
        violations.append(entry)
    return json.dumps({"type": name, "field_violations": violations}).encode()


def _rebuild(details: dict[str, Any]) -> EvertrainError:
    if details["type"] == InvalidSpec.__name__:
        return InvalidSpec(
            [Problem(each["field"], each["got"], each["description"]) for each in details["field_violations"]]
        )
    by_name = {cls.__name__: cls for cls in _CLASSES}
    return by_name.get(details["type"], EvertrainError)(details["message"])


def _shorten(text: str) -> str:
    return text if len(text) <= _MESSAGE_CHARS else text[: _MESSAGE_CHARS - 1] + "…"
