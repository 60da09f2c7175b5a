"""`micro_batch: auto`: the most samples of one forward and backward pass that fit into memory, found by bisection.

On a GPU a trial that does not fit runs out of memory, and is recovered from. A CPU has no such end but the kernel's kill:
there a trial's peak of resident memory is measured, and no trial is made that, at what a sample cost in the one before,
would pass the limit.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from trainers.contract import ExitCode
from trainers.data.loader import Loader
from trainers.data.sampler import Sampler
from trainers.distributed import World
from trainers.engine import Engine
from trainers.errors import exit_code_of
from trainers.exchange import Exchange
from trainers.layout import BatchPlan
from trainers.tasks.task import Task

_USED = 0.9  # of the limit: allocators keep more than they are asked for
_PROC = Path("/proc/self")


def smallest_plan(world: World) -> BatchPlan:
    """One sample a rank: for the engine that trials are made with, and the first step that gives it its optimizer state."""
    return BatchPlan(world.size, 1, 1, world.size)


@dataclass
class Trials:
    """Forward and backward passes beside a living engine of `smallest_plan`, without any collective: a rank that runs out
    of memory leaves nobody waiting. Not for ZeRO 3, whose ranks gather the weights together in every pass."""

    engine: Engine
    task: Task
    sampler: Sampler
    world: World
    dtype: torch.dtype
    limit_bytes: int | None  # of this process's resident memory; None: the device says when it is full
    exchange: Exchange
    alive: Callable[[], None]  # called after each trial
    tried: dict[int, bool] = field(default_factory=dict)  # by micro-batch: whether it fit on every rank
    _base_bytes: int = 0
    _sample_bytes: float = 0.0  # of the last trial that fit

    def largest(self, share: int) -> int:
        """The largest divisor of a rank's `share` of the global batch that fits on every rank, at least 1."""
        self._warm_up()
        sizes = [size for size in range(1, share + 1) if share % size == 0]
        low, high = 0, len(sizes)  # sizes[low] fits, sizes[high] does not
        while high - low > 1:
            middle = (low + high) // 2
            if self._fits(sizes[middle]):
                low = middle
            else:
                high = middle
        return sizes[low]

    def _warm_up(self) -> None:
        """A whole step of one sample, whose memory stays: gradients, optimizer state. One that fails fails the run."""
        loss = self.task.loss(self.engine, self._batch(1))
        self.engine.backward(loss)
        self.engine.step()
        del loss
        self._pass(1)  # what libraries keep from their first use is no sample's
        self._base_bytes = resident_bytes()
        self._measure(1)

    def _fits(self, size: int) -> bool:
        self.tried[size] = all(self.exchange.all(self._fits_here(size)))
        self.alive()
        return self.tried[size]

    def _fits_here(self, size: int) -> bool:
        if self.limit_bytes is not None and self._base_bytes + size * self._sample_bytes > _USED * self.limit_bytes:
            return False
        try:
            peak_bytes = self._measure(size)
        except (RuntimeError, MemoryError) as error:
            if exit_code_of(error) != ExitCode.OUT_OF_MEMORY:
                raise
            return False
        finally:
            gc.collect()
            if self.world.device.type == "cuda":
                torch.cuda.empty_cache()
        return self.limit_bytes is None or peak_bytes <= _USED * self.limit_bytes

    def _measure(self, size: int) -> int:
        """Peak of resident bytes of a pass; remembers what a sample takes."""
        forget_peak()
        self._pass(size)
        peak_bytes = peak_resident_bytes()
        self._sample_bytes = max(0, peak_bytes - self._base_bytes) / size
        return peak_bytes

    def _pass(self, size: int) -> None:
        """Not by `backward`: DeepSpeed hangs the reduction of gradients on it."""
        loss = self.task.loss(self.engine.module, self._batch(size))
        weights = [each for each in self.engine.module.parameters() if each.requires_grad]
        torch.autograd.grad(loss, weights, allow_unused=True)

    def _batch(self, size: int) -> dict[str, torch.Tensor]:
        world, whole = self.world, self.sampler.global_batch
        plan = BatchPlan(whole, size, whole // world.size // size, world.size)
        loader = Loader(plan, world.rank, world.device, self.dtype)
        return next(iter(loader.training(self.task.splits.train, self.sampler, 0)))


def memory_limit(launch_limit_bytes: int, local_world_size: int, device: torch.device) -> int | None:
    """Of this rank's resident memory: what the run file gives a worker, else its part of what the host has left."""
    if device.type == "cuda":
        return None
    return launch_limit_bytes or resident_bytes() + _available_bytes() // local_world_size


def resident_bytes() -> int:
    """Of this process, now."""
    return _status("VmRSS")


def peak_resident_bytes() -> int:
    """Of this process, since the peak was last forgotten."""
    return _status("VmHWM")


def forget_peak() -> None:
    with contextlib.suppress(
        OSError
    ):  # not permitted: then the peak counts what came before, which errs on the safe side
        (_PROC / "clear_refs").write_text("5")


def _status(key: str) -> int:
    return _kibibytes(_PROC / "status", key)


def _available_bytes() -> int:
    return _kibibytes(Path("/proc/meminfo"), "MemAvailable")


def _kibibytes(file: Path, key: str) -> int:
    line = next(each for each in file.read_text().splitlines() if each.startswith(f"{key}:"))
    return int(line.split()[1]) * 1024
