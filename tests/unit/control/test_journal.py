"""Where in the journal a moment is, found by a few reads."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.adapters.memory_observations import MemoryObservationStore
from orchestrator.control.journal import last_before
from orchestrator.ports import Observed


@pytest.mark.parametrize("batches", [0, 1, 2, 7, 64])
def test_a_moment_is_found_between_any_two_batches(batches: int) -> None:
    kept = MemoryObservationStore()
    for seq in range(1, batches + 1):
        kept.append("default", "digits", [Observed(0, float(seq), "replica", seq, "rows", 1, 10, b"")])
    for at in range(batches + 2):
        assert last_before(kept, "default", "digits", at + 0.5) == min(at, batches)
        assert last_before(kept, "default", "digits", float(at)) == min(max(at - 1, 0), batches)


def test_it_is_found_where_the_oldest_batches_have_gone_and_reads_little() -> None:
    reads: list[int] = []

    class Shortened(MemoryObservationStore):
        """A journal whose first 900 batches are no longer kept."""

        def read(self, project: str, model: str, *, after: int, limit_rows: int = 50_000) -> list[Observed]:
            reads.append(after)
            return super().read(project, model, after=max(after, 900), limit_rows=limit_rows)

    kept = Shortened()
    batches: list[Any] = [Observed(0, float(seq), "replica", seq, "rows", 1, 10, b"") for seq in range(1, 1001)]
    for start in range(0, 1000, 100):
        kept.append("default", "digits", batches[start : start + 100])
    assert last_before(kept, "default", "digits", 950.5) == 950
    assert len(reads) < 15
