"""How often one version was right live, by the labels that are known: counted from the journal as it grows."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchestrator.core.probation import Answers
from orchestrator.ports import ObservationStore, Observed

if TYPE_CHECKING:
    from orchestrator.drift.joining import Joined, Joining

log = logging.getLogger(__name__)


@dataclass
class _Count:
    cursor: int
    joining: Joining
    rows: int = 0
    errors: int = 0


@dataclass
class LiveAnswers:
    """Nothing of it is kept: after a restart the journal is read again from where the version began to serve."""

    observations: ObservationStore
    _counts: dict[tuple[str, str, int], _Count] = field(default_factory=dict)

    def of(self, project: str, model: str, version: int, since: int) -> Answers:
        """Answers of the version in the batches above number `since`. Of rows that do not say which version answered none
        count: they may be another's."""
        from orchestrator.drift.joining import Joining

        count = self._counts.setdefault((project, model, version), _Count(since, Joining()))
        if (last := self.observations.last(project, model)) < count.cursor:
            log.warning(
                "%s/%s: the journal of observations ends with batch %d, and version %d was followed up to %d: it was lost, "
                "or an older copy was restored; its answers are counted from there on",
                *(project, model, last, version, count.cursor),
            )
            count.cursor = last
        while batches := self.observations.read(project, model, after=count.cursor):
            for batch in batches:
                _take(batch, version, count)
                count.cursor = batch.number
        return Answers(count.rows, count.errors)

    def forget(self, project: str, model: str, version: int) -> None:
        self._counts.pop((project, model, version), None)


def _take(batch: Observed, version: int, count: _Count) -> None:
    from orchestrator.drift.batches import BatchError, read_batch
    from orchestrator.drift.reference import PREDICTION

    if batch.kind in ("sketch", "shadow") or (batch.kind == "rows" and batch.version != version):
        return
    try:
        read = read_batch(batch.data, batch.at)
    except BatchError:  # the judging loop has counted it
        return
    labels = words(read.labels) if read.labels is not None else [None] * read.rows
    if PREDICTION not in read.columns:
        if batch.kind == "labels":
            _count(count, list(count.joining.labelled(read.requests or [], labels)))
        return
    if batch.version != version:
        return
    answers = words(read.columns[PREDICTION])
    beside = [(answer, label) for answer, label in zip(answers, labels, strict=True) if answer and label]
    count.rows += len(beside)
    count.errors += sum(answer != label for answer, label in beside)
    if read.requests is not None and batch.kind == "rows":  # beside labels that came later the answer is all there is
        waiting = [request if label is None else None for request, label in zip(read.requests, labels, strict=True)]
        _count(count, list(count.joining.answered(waiting, answers, [None] * read.rows)))


def _count(count: _Count, joined: list[Joined]) -> None:
    count.rows += len(joined)
    count.errors += sum(each.answer != each.label for each in joined)


def words(column: Any) -> list[str | None]:
    """Classes as the judging loop compares them."""
    from orchestrator.drift.joining import word
    from orchestrator.drift.sketches import Coded

    if isinstance(column, Coded):
        return [column.words[code] if code >= 0 else None for code in column.codes.tolist()]
    return [word(each) for each in (column.tolist() if hasattr(column, "tolist") else column)]
