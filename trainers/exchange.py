"""Small facts that the ranks tell one another, as JSON: nothing that arrives over the network is unpickled."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed

from trainers.errors import Fenced, StorageError, TrainerError

_KINDS: dict[str, type[TrainerError]] = {each.__name__: each for each in (StorageError, Fenced)}


class Exchange:
    """Collective, as is its making: every rank calls the same methods in the same order.

    Every method raises torch.distributed.DistError or RuntimeError when a peer is gone.
    """

    def __init__(self, rank: int, world_size: int) -> None:
        self._rank = rank
        self._world_size = world_size
        self._group: Any = None
        if world_size > 1 and torch.distributed.get_backend() != "gloo":
            self._group = torch.distributed.new_group(backend="gloo")  # these facts live in the CPU's memory

    def all(self, value: Any) -> list[Any]:
        """Every rank's value, by rank. Values are what JSON can hold."""
        if self._world_size == 1:
            return [value]
        mine = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self._world_size)]
        torch.distributed.all_gather(lengths, torch.tensor([mine.numel()]), group=self._group)
        longest = int(max(lengths))
        padded = torch.zeros(longest, dtype=torch.uint8)
        padded[: mine.numel()] = mine
        gathered = [torch.empty(longest, dtype=torch.uint8) for _ in range(self._world_size)]
        torch.distributed.all_gather(gathered, padded, group=self._group)
        return [
            json.loads(each[: int(length)].numpy().tobytes()) for each, length in zip(gathered, lengths, strict=True)
        ]

    def decided(self, decide: Callable[[], Any]) -> Any:
        """What rank 0's `decide` returned, on every rank; or the StorageError or Fenced that it raised."""
        told: Any = None
        if self._rank == 0:
            try:
                told = {"value": decide()}
            except (StorageError, Fenced) as error:
                told = {"kind": type(error).__name__, "message": str(error)}
        told = self.all(told)[0]
        if "kind" in told:
            raise _KINDS[told["kind"]](told["message"])
        return told["value"]
