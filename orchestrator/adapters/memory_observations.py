"""Live traffic without a disk: for tests of whatever reads it. Held to the same contract suite, durability apart."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from orchestrator.adapters.monitor_key import monitor_key
from orchestrator.adapters.replay import Replay
from orchestrator.ports import Observed


@dataclass
class _Journal:
    batches: list[Observed] = field(default_factory=list)
    sources: defaultdict[str, Replay] = field(default_factory=lambda: defaultdict(Replay))


class MemoryObservationStore:
    """Implements ports.ObservationStore. It has no size limit."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._journals: defaultdict[tuple[str, str], _Journal] = defaultdict(_Journal)

    def append(self, project: str, model: str, batches: Sequence[Observed]) -> None:
        with self._lock:
            journal = self._journals[monitor_key(project, model)]
            for each in batches:
                if journal.sources[each.source].take(each.seq, each.at):
                    journal.batches.append(replace(each, number=len(journal.batches) + 1))

    def read(self, project: str, model: str, *, after: int, limit_rows: int = 50_000) -> list[Observed]:
        found: list[Observed] = []
        rows = 0
        for each in self._of(project, model)[max(after, 0) :]:
            rows += each.rows
            if found and rows > limit_rows:
                break
            found.append(each)
        return found

    def rows(self, project: str, model: str, *, since: int = 0) -> int:
        return sum(each.served for each in self._of(project, model)[max(since, 0) :])

    def last(self, project: str, model: str) -> int:
        return len(self._of(project, model))

    def _of(self, project: str, model: str) -> list[Observed]:
        with self._lock:
            return list(self._journals[monitor_key(project, model)].batches)
