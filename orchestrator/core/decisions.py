"""What was decided on each trigger, as it is kept, and what became of it.

A *decision* is one answer of `retraining.decide`, also the answer not to retrain. One that was accepted goes on: its run is
submitted, trains, is compared with the champion, and either takes its place or does not. Each step is one compare-and-set of
the record, so that whoever is killed between two of them is followed by somebody who takes the next.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator.core.probation import Answers
from orchestrator.core.retraining import Action, Because, Decision, Retraining, Trigger


class Standing(enum.StrEnum):
    """What became of a decision. Stable: it is stored, and told to webhooks."""

    WAITING = "waiting"  # asked again later: cooling down, too little data, no money, quiet hours
    ASKED = "asked"  # a person must approve
    ACCEPTED = "accepted"  # its run is to be submitted
    TRAINING = "training"  # its run was submitted
    PROBATION = "probation"  # its version is champion, and would be taken back if it did worse live
    CLOSED = "closed"  # refused, told in a dry run, or overtaken while it waited
    REJECTED = "rejected"  # by a person
    FAILED = "failed"  # there was nothing to train on, the run file was refused, or the run did not succeed
    KEPT = "kept"  # trained, and not proven better: the champion stayed
    PROMOTED = "promoted"  # champion for good
    ROLLED_BACK = "rolled_back"  # was champion, and did worse live


OPEN = frozenset({Standing.WAITING, Standing.ASKED, Standing.ACCEPTED, Standing.TRAINING, Standing.PROBATION})
"""Something is still to be done, or awaited."""

UNDER_WAY = frozenset({Standing.ASKED, Standing.ACCEPTED, Standing.TRAINING})
"""While one of these is open, no other retraining of the model begins."""

_FIRST: Mapping[Action, Standing] = {
    Action.RETRAIN: Standing.ACCEPTED,
    Action.ASK: Standing.ASKED,
    Action.TELL: Standing.CLOSED,
    Action.WAIT: Standing.WAITING,
    Action.REFUSE: Standing.CLOSED,
}


@dataclass(frozen=True)
class Order:
    """What a retraining is made of. Settled once, when it is accepted: done twice, it is the same run of the same data."""

    base: str  # id of the run whose file it starts from
    champion: int  # the version that served then; 0: none did
    after: int  # it learns from the batches of observations above this number
    upto: int  # up to this one
    since: float = 0.0  # and not from rows that say themselves that they are of before this time


@dataclass(frozen=True)
class DecisionRecord:
    """`number` counts from 1 in each (project, model); 0 in a draft. `told`: in words, what became of it, newest last."""

    project: str
    model: str
    number: int
    at: float
    decision: Decision
    standing: Standing
    told: tuple[str, ...] = ()
    by: str = ""  # who asked, approved or rejected
    order: Order | None = None
    run: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)  # lineage of the snapshot that it was trained on
    cost: float = 0.0
    ended_at: float | None = None  # when the retraining was over: its probation is not counted
    version: int = 0  # the challenger
    promoted_at: float | None = None
    proven: Answers = field(default_factory=lambda: Answers(0, 0))  # the challenger's in its proof
    served_from: int = 0  # the last batch of observations before it was promoted
    announced: Standing | None = None  # the last standing that every webhook has taken
    revision: int = 0

    @property
    def trigger(self) -> Trigger:
        return self.decision.trigger

    @property
    def open(self) -> bool:
        return self.standing in OPEN

    @property
    def pending(self) -> bool:
        """Something of it is still to be done, awaited or announced."""
        return self.open or self.announced is not self.standing

    @property
    def accepted(self) -> bool:
        """It started a retraining, or will when a person approves."""
        return self.decision.action in (Action.RETRAIN, Action.ASK)

    @property
    def key(self) -> tuple[str, Because]:
        """The same trigger answered for the same reason is the same decision: unique in (project, model), as first kept."""
        return self.trigger.key, self.decision.because

    @property
    def name(self) -> str:
        return f"{self.model} #{self.number}"


def draft(project: str, model: str, decision: Decision, order: Order | None, by: str, now: float) -> DecisionRecord:
    """As it is first kept. `order`: of a retraining that needs nobody's approval."""
    return DecisionRecord(
        project=project,
        model=model,
        number=0,
        at=now,
        decision=decision,
        standing=_FIRST[decision.action],
        by=by,
        order=order,
    )


def became(record: DecisionRecord, standing: Standing, words: str, **changes: Any) -> DecisionRecord:
    """The record one step further."""
    return replace(record, standing=standing, told=(*record.told, words), **changes)


def decided_again(record: DecisionRecord, decision: Decision, order: Order | None, now: float) -> DecisionRecord:
    """The same record, of what its trigger was answered now: what waited, or was closed, goes on where it is."""
    told = record.told or (record.decision.words,)
    return replace(
        record, standing=_FIRST[decision.action], told=(*told, decision.words), decision=decision, order=order, at=now
    )


def past(records: Iterable[DecisionRecord]) -> list[Retraining]:
    """The retrainings among the records, oldest first, for `retraining.decide`. What a person rejected was none."""
    found = [each for each in records if each.accepted and each.standing is not Standing.REJECTED]
    return [
        Retraining(
            run=each.run or f"decision {each.number}",
            trigger_key=each.trigger.key,
            at=each.at,
            done_at=None if each.standing in UNDER_WAY else each.ended_at or each.at,
            cost=each.cost,
        )
        for each in sorted(found, key=lambda each: each.number)
    ]


def occasion(trigger: Trigger, records: Sequence[DecisionRecord], seen_at: float) -> Trigger:
    """The trigger under the key of its occasion: what is seen again after a retraining for it had ended is a new one, and
    what was seen before that end is the old one, told again. `seen_at`: when it was last seen.
    """
    base, turn = trigger.key, 1
    while True:
        key = base if turn == 1 else f"{base}/{turn}"
        over = [each.ended_at for each in records if each.accepted and each.trigger.key == key]
        if not over or over[0] is None or seen_at <= over[0]:
            return replace(trigger, key=key)
        turn += 1
