"""DeepSpeed's checkpoint files, written with their checksums and read without running anything in them.

DeepSpeed reads its files with `weights_only=False`: whoever can write the file can run code in the rank. This engine
reads with `weights_only=True` and the few classes that DeepSpeed's own states hold.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, BinaryIO

import torch
import xxhash
from deepspeed.runtime.checkpoint_engine.checkpoint_engine import CheckpointCommitInfo, CheckpointEngine
from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
from deepspeed.runtime.zero.config import ZeroStageEnum
from deepspeed.utils.tensor_fragment import fragment_address

from trainers.contract import ManifestFile
from trainers.errors import StorageError

ALLOWED: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    ZeroStageEnum,
    LossScaler,
    DynamicLossScaler,
    fragment_address,
]
"""What ZeRO's optimizer states hold beside tensors and plain values."""


class WeightsOnlyEngine(CheckpointEngine):
    """Replaces an engine's `checkpoint_engine`.

    `save` does not raise: the other ranks would wait in DeepSpeed's barriers for ever. It notes the problem, which the
    ranks then exchange. `alive` is called for every part of a file that was written and every file that was read.
    """

    def __init__(self, rank: int, alive: Callable[[], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.name = "WeightsOnlyEngine"
        self._rank = rank
        self._alive = alive
        self.written: list[ManifestFile] = []
        self.problem: str | None = None

    def begin(self) -> None:
        """Forget the save before."""
        self.written, self.problem = [], None

    def create(self, info: CheckpointCommitInfo) -> None:
        pass

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        try:
            os.makedirs(path, exist_ok=exist_ok)
        except OSError as error:
            self.problem = self.problem or f"cannot create {path}: {error.strerror}"

    def save(self, state_dict: Any, path: str) -> None:
        if self.problem is not None:
            return
        try:
            self.written.append(write_file(Path(path), state_dict, self._rank, self._alive))
        except OSError as error:
            self.problem = f"cannot write {path}: {error.strerror}"

    def load(self, path: str, map_location: Any = None) -> Any:
        state = read_file(Path(path), map_location)
        self._alive()
        return state

    def commit(self, info: CheckpointCommitInfo) -> bool:
        return True


def write_file(path: Path, state: Any, rank: int, alive: Callable[[], None]) -> ManifestFile:
    """Save `state`, synced to disk; the checksum is of what was meant, not of what the disk made of it. Raises OSError."""
    with open(path, "wb") as file:
        hashing = _HashingFile(file, alive)
        try:
            torch.save(state, hashing)  # type: ignore[arg-type]
        except RuntimeError:
            if hashing.error is None:
                raise
        if hashing.error is not None:
            raise hashing.error
        file.flush()
        os.fsync(file.fileno())
    return ManifestFile(path.name, hashing.size_bytes, hashing.hasher.hexdigest(), rank)


def read_file(path: Path, map_location: Any = None) -> Any:
    """Raises StorageError when the file holds anything but tensors, plain values and DeepSpeed's own few classes."""
    try:
        with torch.serialization.safe_globals(ALLOWED):
            return torch.load(path, map_location=map_location, weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, UnpicklingError) as error:
        raise StorageError(f"cannot load {path}: {str(error).splitlines()[0]}") from error


def stranger_in(path: Path) -> str | None:
    """What the file would have to import beyond what is allowed, found without running any of it; or None."""
    try:
        with torch.serialization.safe_globals(ALLOWED):
            strangers = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception as error:  # any byte may stand where the pickle should
        return (
            f"{path.name} is no checkpoint file: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
        )
    if strangers:
        return f"{path.name} is refused: it wants {', '.join(sorted(strangers))}, which is no part of a checkpoint"
    return None


class _HashingFile:
    """Counts and hashes what is written. An error is kept, not raised: torch's writer calls from C++."""

    def __init__(self, file: BinaryIO, alive: Callable[[], None]) -> None:
        self._file = file
        self._alive = alive
        self.hasher = xxhash.xxh3_64()
        self.size_bytes = 0
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        length = memoryview(data).nbytes
        if self.error is None:
            self.hasher.update(data)
            self.size_bytes += length
            try:
                self._file.write(data)
            except OSError as error:
                self.error = error
            self._alive()
        return length

    def flush(self) -> None:
        pass
