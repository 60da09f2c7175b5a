"""Why a rank ends before its work is done, and how that is told.

    BaseException
    ├── Stopped                 SIGTERM: ended in order; no handler of the user's code may swallow it
    └── Exception
        └── TrainerError        carries the exit code
            ├── BadConfig       the launch cannot work: restarting does not help
            ├── BadLoss         the loss became NaN or infinite
            ├── StorageError    a checkpoint could not be written or read
            └── Fenced          a newer attempt owns the checkpoints

Errors of torch, DeepSpeed and the system are translated once, in `account`.
"""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any, ClassVar

import torch

from trainers.contract import ExitCode, Failed

_LOST_PEER_WORDS = (
    "connection closed by peer",
    "connection reset by peer",
    "connection refused",
    "broken pipe",
    "timed out waiting",
    "gloo/transport",
    "gloo connectfullmesh",
    "nccl communicator was aborted",
    "ncclremoteerror",
    "ncclsystemerror",
    "remote process exited",
)
_OUT_OF_MEMORY_WORDS = ("can't allocate memory", "not enough memory", "out of memory", "cannot allocate memory")


_TRACEBACK_CHARS = 48 * 1024  # as JSON a character takes twelve bytes at most: the contract's `MESSAGE_BYTES` holds it
_MESSAGE_CHARS = 4 * 1024


class TrainerError(Exception):
    """An end that a rank of ours chose itself."""

    exit_code: ClassVar[ExitCode] = ExitCode.APPLICATION


class BadConfig(TrainerError):
    """`path` in the run file holds `got`, which cannot work; `expected` says what would be right."""

    exit_code = ExitCode.BAD_CONFIG

    def __init__(self, path: str, got: Any, expected: str) -> None:
        super().__init__(f"{path}: got {got!r}: {expected}")
        self.path = path
        self.got = got
        self.expected = expected


class BadLoss(TrainerError):
    """The loss became NaN or infinite."""

    exit_code = ExitCode.BAD_LOSS


class StorageError(TrainerError):
    """A checkpoint could not be written or read."""

    exit_code = ExitCode.STORAGE


class Fenced(TrainerError):
    """A newer attempt owns the checkpoint directory."""

    exit_code = ExitCode.FENCED


class Stopped(BaseException):
    """The rank was asked to stop, and did."""

    exit_code: ClassVar[ExitCode] = ExitCode.STOPPED


def account(error: BaseException, step: int) -> Failed:
    """The message that tells the orchestrator how the rank ended, whatever ended it."""
    code = exit_code_of(error)
    return Failed(
        code=code,
        message=_cut(_sentence(error, code), _MESSAGE_CHARS, " "),
        traceback="" if isinstance(error, (TrainerError, Stopped)) else _cut(_trace(error), _TRACEBACK_CHARS, "\n"),
        step=step,
        secondary=code == ExitCode.LOST_PEER,
    )


def exit_code_of(error: BaseException) -> ExitCode:
    """The contract's code for any exception; an unknown one is the application's own."""
    own = getattr(error, "exit_code", None)
    if isinstance(own, ExitCode):
        return own
    text = str(error).lower()
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return ExitCode.OUT_OF_MEMORY
    if isinstance(error, torch.distributed.DistError):
        return ExitCode.LOST_PEER
    if isinstance(error, RuntimeError) and any(words in text for words in _OUT_OF_MEMORY_WORDS):
        return ExitCode.OUT_OF_MEMORY
    if isinstance(error, RuntimeError) and any(words in text for words in _LOST_PEER_WORDS):
        return ExitCode.LOST_PEER
    return ExitCode.APPLICATION


def _sentence(error: BaseException, code: ExitCode) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, (TrainerError, Stopped)):
        return text
    match code:
        case ExitCode.LOST_PEER:
            return f"another rank went away during a collective: look for the rank that ended first ({text[:300]})"
        case ExitCode.OUT_OF_MEMORY:
            return f"out of memory: lower train.micro_batch or raise resources.memory ({text[:300]})"
        case _:
            return f"{type(error).__name__}: {text[:500]}{_where(error)}"


def _cut(text: str, limit: int, space: str) -> str:
    """The head and the tail of a long text, which say where an error came from and what it was."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}{space}[... {len(text) - 2 * half} characters cut ...]{space}{text[-half:]}"


def _where(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""


def _trace(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))
