"""What a cluster that can grow is asked to have: room for all that trains there and for all that waits for room."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.core.runs import ReasonCode
from orchestrator.core.scheduling.fit import GangShape

FOR_ROOM = frozenset({ReasonCode.WAITING_FOR_CAPACITY, ReasonCode.WAITING_BEHIND})
"""Whoever waits for these waits for nodes. A back-off, a sweep's slot and a cluster that is away are no want of room."""


@dataclass(frozen=True)
class Workers:
    """So many workers of one kind; each has to fit one node. `memory` in bytes."""

    cpu: float
    gpu: float
    memory: int
    accelerator: str | None
    count: int


def demand(gangs: Iterable[GangShape]) -> tuple[Workers, ...]:
    """The workers of all gangs, those alike together, in an order that depends on nothing else.

    Those that train already are in it: Ray's autoscaler compares what is asked for with all that a cluster has, not with
    what is free of it.
    """
    counts: Counter[tuple[float, float, int, str]] = Counter()
    for each in gangs:
        counts[each.cpu, each.gpu, each.memory, each.accelerator or ""] += each.workers
    return tuple(
        Workers(cpu, gpu, memory, accelerator or None, count)
        for (cpu, gpu, memory, accelerator), count in sorted(counts.items())
    )
