"""One model version under watch: live batches in, judgements and triggers out.

All that is remembered between batches is constant in size, and `state` gives it as JSON: a watch that is made from that
state goes on as this one would. Which batch it stands for is its keeper's business.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from orchestrator.core.monitors import Judgement
from orchestrator.core.retraining import Cause, Trigger
from orchestrator.drift.batches import Batch
from orchestrator.drift.concept import NAMES, Concept, begun
from orchestrator.drift.detectors import Alarm, Detector, FalseAlarms, PageHinkley
from orchestrator.drift.estimation import Confidences, estimated_accuracy, estimated_drop, measured_drop
from orchestrator.drift.joining import Joined, Joining, Value, word
from orchestrator.drift.reference import CONFIDENCE, PREDICTION
from orchestrator.drift.rows import NO_ROWS
from orchestrator.drift.seasons import Part, Season, Seasons
from orchestrator.drift.sketches import (
    CategorySummary,
    Coded,
    Column,
    NumberSummary,
    SketchError,
    TableSummary,
)
from orchestrator.drift.telling import evidence_of, told_together
from orchestrator.drift.tests import Evidence
from orchestrator.drift.together import Compared, Multivariate, RowReference, Together
from orchestrator.drift.verdicts import Finding, History, Policy, Severity, Status, Verdict, judge
from orchestrator.drift.windows import Cut, Window, Windows, merged

LEARNED_ROWS = 500
"""Labelled rows that stand for the reference where its profile does not say how often the model was right."""
_LEAST_LABELLED = 50  # without so many labels in a window nobody can say that performance is well again
_WINDOWS_AT_ONCE = 50  # each costs as many tests, however many rows it has
_MODERATE, _MAJOR = 0.1, 0.2
_PERFORMANCE, _ESTIMATE = "performance", "estimated performance"


@dataclass(frozen=True)
class Rules:
    """`features`: the columns to watch; None: all of the reference. `error_shift`: the smallest rise of the error rate that
    matters; None: by the rate. `concept`: what looks at errors. `multivariate`: what looks at all features together, where
    the reference has rows.
    """

    cut: Cut
    policy: Policy = field(default_factory=Policy)
    alarms: FalseAlarms = field(default_factory=FalseAlarms)
    error_shift: float | None = None
    features: frozenset[str] | None = None
    concept: Concept = "page_hinkley"
    multivariate: Multivariate = "classifier"
    embeddings: tuple[str, ...] = ()  # columns of vectors, looked at by the same test; of "none", by the classifier
    season: Season = "none"  # windows must lie within one: by time, as long as a season or a part of it
    utc_offset_s: float = 0.0


@dataclass(frozen=True)
class Reference:
    """What is known of a version from its training. `calibration` None: its profile does not say how often it was right.
    `deviation`: of the label, where it is a number; losses are told in it. `rows`: some of the training part's, where its
    profile has them. `looks`: features that tell of images, and are not missed where nobody sends images.
    """

    version: int
    table: TableSummary
    calibration: Confidences | None = None
    deviation: float | None = None
    rows: RowReference | None = None
    looks: frozenset[str] = frozenset()

    @property
    def classifies(self) -> bool:
        return self.deviation is None


@dataclass
class Counts:
    """Since the monitor began, whatever version was watched."""

    rows: int = 0
    labels: int = 0  # that were joined with an answer
    other_versions: int = 0  # rows that another version than the reference answered
    wrong_kind: int = 0  # values that were texts where the window had numbers, or no class where classes are
    malformed: int = 0  # batches that could not be read


@dataclass(frozen=True)
class Judged:
    judgement: Judgement
    triggers: tuple[Trigger, ...] = ()


@dataclass
class Watch:
    reference: Reference
    rules: Rules
    windows: Windows
    history: History = field(default_factory=History)
    joining: Joining = field(default_factory=Joining)
    detector: Detector = field(default_factory=PageHinkley)
    learned: Confidences = field(default_factory=Confidences)  # the first labelled rows, where the profile says nothing
    outcomes: tuple[int, int] = (0, 0)  # errors and rows of the labels that came since the last judgement
    episodes: dict[str, float] = field(default_factory=dict)  # since when a cause has held, so that it is one event
    blind: bool = False
    heard_at: float = 0.0
    counts: Counts = field(default_factory=Counts)
    seasons: Seasons = field(default_factory=Seasons)
    together: Together = field(default_factory=Together)

    @classmethod
    def begin(cls, reference: Reference, rules: Rules, now: float, counts: Counts | None = None) -> Watch:
        together = Together(reference.rows, rules.multivariate, rules.embeddings)
        windows = Windows(rules.cut, layout=together.layout)
        detector = begun(rules.concept, rules.alarms, rules.error_shift, reference.calibration)
        seasons = Seasons(rules.season, rules.utc_offset_s)
        watch = cls(reference, rules, windows, detector=detector, seasons=seasons, together=together)
        watch.heard_at, watch.counts = now, counts or Counts()
        return watch

    # ---- what comes in ----------------------------------------------------------------------------------------------

    def rows(self, batch: Batch, at: float, now: float) -> list[Judged]:
        """Rows that were received `at`. Raises SketchError and ValueError as `Windows.add` does."""
        before = list(self.windows.recent)
        columns = self._fitting(batch)
        self._heard(at if columns else 0.0, batch.rows)  # rows of which nothing is watched are no sign of stability
        ended = self.windows.add(columns, np.minimum(batch.times, at), batch.vectors) if columns else []
        told = self._labelled(self._joined(batch), at, now)
        return [*told, *self._judged(before, ended, now)]

    def labels(self, batch: Batch, at: float, now: float) -> list[Judged]:
        """Labels that became known later, with the answers beside them or not."""
        if PREDICTION in batch.columns:
            return self._labelled(self._joined(batch), at, now)
        requests = batch.requests or []
        labels = _values(batch.labels) if batch.labels is not None else []
        return self._labelled(self.joining.labelled(requests, labels), at, now)

    def sketch(self, table: TableSummary, at: float, now: float) -> list[Judged]:
        """What a replica saw, as a summary. Raises SketchError where a column is of another kind than the window's."""
        self._heard(at, table.rows)
        before = list(self.windows.recent)
        kept = {name: each for name, each in table.columns.items() if self._watches(name)}
        ended = self.windows.merge(TableSummary(table.rows, kept, table.k), at)
        return self._judged(before, ended, now)

    def expect(self, rows: int) -> None:
        """So many rows wait: adaptive windows grow with them, so that what is judged keeps up with what comes."""
        if self.rules.cut.by == "adaptive":
            grown = max(self.rules.cut.rows, rows // _WINDOWS_AT_ONCE)
            self.windows.cut = replace(self.rules.cut, rows=grown)

    def passed(self, now: float) -> list[Judged]:
        """What time alone ends: windows by time, whether or not another row comes."""
        if self.rules.cut.by != "time":
            return []
        before = list(self.windows.recent)
        ended = self.windows.ended_by(now - self.rules.cut.late_s)
        self.windows.recent.extend(ended)
        return self._judged(before, ended, now)

    def silent(self, since: float, now: float) -> list[Judged]:
        """Whether nothing has been heard for too long, told once. `since`: when it could have been heard of at all."""
        heard_at = max(self.heard_at, since)
        if self.blind or now - heard_at <= self.rules.cut.length_s:
            return []
        self.blind = True
        verdict, _ = judge(self.reference.table, [Window(heard_at, now)], self.history, self.rules.policy)
        words = verdict.words
        if self.counts.other_versions:
            words += f"; {self.counts.other_versions} rows so far were answered by other versions than the reference, "
            words += str(self.reference.version)
        return [Judged(_recorded(replace(verdict, words=words), {}, now))]

    def _heard(self, at: float, rows: int) -> None:
        self.counts.rows += rows
        if at:
            self.heard_at, self.blind = max(self.heard_at, at), False

    # ---- features ---------------------------------------------------------------------------------------------------

    def _fitting(self, batch: Batch) -> dict[str, Column]:
        return {name: self._fit(name, column) for name, column in batch.columns.items() if self._watches(name)}

    def _watches(self, name: str) -> bool:
        """A feature that the reference has not is new, and told of, unless the reference has no features at all."""
        if name in (PREDICTION, CONFIDENCE):
            return name in self.reference.table.columns
        if self.rules.features is not None:
            return name in self.rules.features
        return any(each not in (PREDICTION, CONFIDENCE) for each in self.reference.table.columns)

    def _fit(self, name: str, column: Column) -> Column:
        """Of the kind that the reference has where that can be, and in any case of the kind that its window has."""
        if _numeric(column):
            assert isinstance(column, np.ndarray)
            known = self.reference.table.columns.get(name)
            return [word(each) for each in column.tolist()] if isinstance(known, CategorySummary) else column
        begun = (each.table.columns.get(name) for each in self.windows.open.values())
        if not any(isinstance(each, NumberSummary) for each in begun):
            return column
        rows = _length(column)
        self.counts.wrong_kind += rows
        return np.full(rows, np.nan)

    # ---- labels -----------------------------------------------------------------------------------------------------

    def _joined(self, batch: Batch) -> Iterator[Joined]:
        """Of a batch's own answers: those whose label is beside them, or came before."""
        if PREDICTION not in batch.columns or (batch.labels is None and batch.requests is None):
            return
        answers = _values(batch.columns[PREDICTION])
        sure = batch.columns.get(CONFIDENCE)
        confidences = [_number(each) for each in _values(sure)] if sure is not None else [None] * batch.rows
        labels = _values(batch.labels) if batch.labels is not None else [None] * batch.rows
        waiting = list(batch.requests) if batch.requests is not None else []
        for place, (answer, label) in enumerate(zip(answers, labels, strict=True)):
            if label is None:
                continue
            if waiting:
                waiting[place] = None
            if answer is not None:
                yield Joined(answer, label, confidences[place])
            else:
                self.joining.given_up += 1  # whoever sent it has not seen the request either
        if waiting:
            yield from self.joining.answered(waiting, answers, confidences)

    def _labelled(self, joined: Iterable[Joined], at: float, now: float) -> list[Judged]:
        found = [(each, loss) for each in joined if (loss := self._loss(each)) is not None]
        if not found:
            return []
        losses = np.array([loss for _, loss in found])
        self.counts.labels += len(found)
        if self.reference.classifies:
            self._note_outcomes(found)
        alarm = self.detector.update(losses)
        return [self._alarmed(alarm, at, now)] if alarm is not None else []

    def _loss(self, joined: Joined) -> float | None:
        """Between 0 and 1: wrong or not, or how far off in two deviations of the label."""
        if self.reference.classifies:
            return float(word(joined.answer) != word(joined.label))
        answer, label = _number(joined.answer), _number(joined.label)
        if answer is None or label is None:
            self.counts.wrong_kind += 1
            return None
        return min(1.0, abs(answer - label) / (2 * (self.reference.deviation or 1.0)))

    def _note_outcomes(self, found: Sequence[tuple[Joined, float]]) -> None:
        errors, rows = self.outcomes
        if self.reference.calibration is None and (lacks := LEARNED_ROWS - int(self.learned.labelled.sum())) > 0:
            first, found = found[:lacks], found[lacks:]
            sure = np.array([each.confidence if each.confidence is not None else 1.0 for each, _ in first])
            self.learned.update(np.clip(sure, 0.0, 1.0), np.array([loss == 0 for _, loss in first]))
        self.outcomes = errors + sum(int(loss) for _, loss in found), rows + len(found)

    def _alarmed(self, alarm: Alarm, at: float, now: float) -> Judged:
        """What the model's errors tell. The detector begins anew, from the rate that it finds: one rise is told once."""
        rules = self.rules
        self.detector = begun(rules.concept, rules.alarms, rules.error_shift)
        rise = alarm.after - alarm.before
        severity = Severity.MAJOR if rise >= _MAJOR else Severity.MODERATE if rise >= _MODERATE else Severity.MINOR
        words = f"drift ({severity.name.lower()}): {alarm.words} (by {NAMES[rules.concept]})"
        told = {"detector": rules.concept, **asdict(alarm)}
        judgement = Judgement(0, now, at, at, 0, Status.DRIFT.value, int(severity), words, {"alarm": told})
        return Judged(judgement, (self._trigger(Cause.PERFORMANCE, at, severity, words),))

    # ---- verdicts ---------------------------------------------------------------------------------------------------

    def _judged(self, before: Sequence[Window], ended: Sequence[Window], now: float) -> list[Judged]:
        judged = []
        recent = list(before)
        for window in ended:
            recent = [*recent, window][-max(self.rules.cut.spans) :]
            judged.append(self._judge(_spans(recent, self.rules.cut), now))
        return judged

    def _judge(self, spans: Sequence[Window], now: float) -> Judged:
        window = spans[0]
        part, against = self.seasons.at(window.start)
        reference = self._missed(self.reference.table if part is None else part.table, window.table)
        confidence = window.table.columns.get(CONFIDENCE)
        sure = Confidences.of(confidence) if isinstance(confidence, NumberSummary) and confidence.count else None
        performance, labelled = self._performance(sure), self.outcomes[1]
        jointly = self._jointly(window, part)
        beside = self._beside(sure)
        beside |= {name: each.evidence for name, each in jointly.items() if each.evidence is not None}
        verdict, self.history = judge(reference, spans, self.history, self.rules.policy, beside, describe=False)
        evidence: dict[str, Any] = {**evidence_of(verdict, reference, window.table), "performance": performance}
        if jointly:
            evidence["together"] = [told_together(name, each) for name, each in jointly.items()]
        if verdict.status not in (Status.TOO_FEW, Status.BLIND):
            self.outcomes = (0, 0)
            if against:
                verdict, evidence["against"] = replace(verdict, words=f"{verdict.words}; {against}"), against
                if not looks_broken(verdict):
                    self.seasons.learn(window, self.reference.table)
        return Judged(_recorded(verdict, evidence, now), self._triggers(verdict, labelled, now))

    def _missed(self, reference: TableSummary, sent: TableSummary) -> TableSummary:
        """Without what nobody is bound to send, where it is not there: answers, and what images look like."""
        looks = self.reference.looks
        free = {PREDICTION, CONFIDENCE} | (looks if not looks & sent.columns.keys() else set())
        kept = {name: each for name, each in reference.columns.items() if name in sent.columns or name not in free}
        return replace(reference, columns=kept)

    def _jointly(self, window: Window, part: Part | None) -> dict[str, Compared]:
        """Of the newest window alone, where there is one to speak of."""
        if window.rows < self.rules.policy.least_rows:
            return {}
        of_season = None if part is None else part.sample.rows if part.sample is not None else NO_ROWS
        return self.together.compare(window.sample, of_season)

    def _known(self) -> Confidences | None:
        """How often the version was right, by how sure it was: on its test part, else on the first labelled rows."""
        known = self.reference.calibration
        if known is None and self.learned.labelled.sum() >= LEARNED_ROWS:
            known = self.learned
        return known if known is not None and known.labelled.sum() else None

    def _beside(self, sure: Confidences | None) -> dict[str, Evidence]:
        """Whether the model does worse than it did: by its labels, and by how sure it is."""
        known, (errors, labelled) = self._known(), self.outcomes
        beside: dict[str, Evidence] = {}
        if known is not None and labelled:
            rows = int(known.labelled.sum())
            beside[_PERFORMANCE] = measured_drop(errors, labelled, rows - int(known.right.sum()), rows)
        if known is not None and sure is not None:
            beside[_ESTIMATE] = estimated_drop(known, sure)
        return beside

    def _performance(self, sure: Confidences | None) -> dict[str, float]:
        """As it is, whether or not that is worse than it was."""
        known, (errors, labelled) = self._known(), self.outcomes
        told = {"labels": labelled, "error_rate": errors / labelled} if labelled else {}
        if known is not None and sure is not None:
            estimate = estimated_accuracy(known, sure)
            told |= {"estimated_accuracy": estimate.accuracy, "estimated_accuracy_error": estimate.error}
        return told

    def _triggers(self, verdict: Verdict, labelled: int, now: float) -> tuple[Trigger, ...]:
        if verdict.status is Status.DATA_FAULT:
            trigger = self._trigger(Cause.DRIFT, verdict.start, verdict.severity, verdict.words)
            return (replace(trigger, key=trigger.key + "/data", broken_data=True),)
        lasting = [each for each in verdict.findings if each.streak.windows >= self.rules.policy.persistence]
        drifted = [each for each in lasting if each.nature == "drift"]
        worse = [each for each in drifted if each.feature in (_PERFORMANCE, _ESTIMATE)]
        moved = [each for each in drifted if each not in worse]
        self._close_episodes(verdict, moved, worse, labelled)
        told = [(Cause.DRIFT, moved, verdict.severity), (Cause.PERFORMANCE, worse, _worst(worse))]
        return tuple(
            self._trigger(cause, min(each.streak.since for each in found), severity, verdict.words)
            for cause, found, severity in told
            if found
        )

    def _trigger(self, cause: Cause, since: float, severity: Severity, words: str) -> Trigger:
        since = self.episodes.setdefault(cause.value, since)
        version = self.reference.version
        return Trigger(cause, f"{cause}/v{version}/{since:.0f}", since, words, int(severity), version=version)

    def _close_episodes(
        self, verdict: Verdict, moved: Sequence[Finding], worse: Sequence[Finding], labelled: int
    ) -> None:
        """What is over may begin again, as another event."""
        if verdict.status is Status.STABLE and not moved:
            self.episodes.pop(Cause.DRIFT.value, None)
        if verdict.status is Status.STABLE and not worse and labelled >= _LEAST_LABELLED:
            self.episodes.pop(Cause.PERFORMANCE.value, None)


def looks_broken(verdict: Verdict) -> bool:
    """Whether a window holds faults rather than another season: columns whose gaps or extremes are new, or that are not what
    they were, while the rest of their values is as before."""
    moved = {each.feature for each in verdict.findings if each.nature == "drift"}
    faults = [each for each in verdict.findings if each.nature == "data" and each.feature not in moved]
    return any(each.test != "schema" or each.severity is Severity.MAJOR for each in faults)


def _recorded(verdict: Verdict, evidence: Mapping[str, Any], now: float) -> Judgement:
    return Judgement(
        0,
        now,
        verdict.start,
        verdict.end,
        verdict.rows,
        verdict.status.value,
        int(verdict.severity),
        verdict.words,
        evidence,
    )


def _spans(recent: Sequence[Window], cut: Cut) -> list[Window]:
    """The newest window, and it merged with those before it, as far back as their columns are of one kind."""
    spans = []
    for length in cut.spans:
        if length <= len(recent):
            try:
                spans.append(merged(recent[-length:]))
            except SketchError:
                break
    return spans


def _worst(findings: Sequence[Finding]) -> Severity:
    return max((each.severity for each in findings), default=Severity.NONE)


def _numeric(column: Column) -> bool:
    return isinstance(column, np.ndarray) and column.dtype.kind in "fiub"


def _length(column: Column) -> int:
    return len(column.codes if isinstance(column, Coded) else column)


def _values(column: Column) -> list[Value | None]:
    """Row by row; None is missing."""
    if isinstance(column, Coded):
        return [column.words[code] if code >= 0 else None for code in column.codes.tolist()]
    if isinstance(column, np.ndarray):
        return [None if each is None or each != each else each for each in column.tolist()]
    return list(column)


def _number(value: Value | None) -> float | None:
    try:
        return None if value is None else float(value)
    except ValueError:
        return None
