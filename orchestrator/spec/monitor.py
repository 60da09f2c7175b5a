"""What watches the model that a run registers, and when it is trained again."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from orchestrator.core.cron import parse_cron
from orchestrator.spec.quantities import Duration, Money
from orchestrator.spec.search import Search
from orchestrator.spec.section import Count, Number, Section

_HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")

_HOUR_S, _DAY_S = 3600.0, 86_400.0

_ALONE: Mapping[str, Mapping[str, Any]] = {"drift": {"drift": "minor"}, "performance": {"performance": True}}

Severity = Literal["minor", "moderate", "major"]
Probability = Annotated[Number, Field(gt=0, lt=1)]
Share = Annotated[Number, Field(ge=0, lt=1)]


def _cron(text: str) -> str:
    parse_cron(text)
    return text


def _hours(text: str) -> str:
    if not _HOURS.fullmatch(text):
        raise ValueError("must be hours such as 22:00-06:00")
    return text


class Window(Section):
    """The live rows that are judged together."""

    together = True

    by: Annotated[
        Literal["adaptive", "count", "time"],
        Field(description="adaptive: as many as the evidence needs; count: rows; time: every length."),
    ] = "adaptive"
    rows: Annotated[Count, Field(ge=50, description="Of a window by count, and of the smallest adaptive one.")] = 500
    length: Annotated[Duration, Field(description="Of a window by time.")] = 3600.0
    late: Annotated[Duration | None, Field(description="How long a window by time waits for late rows.")] = None
    minimum: Annotated[Count, Field(ge=20, description="A window with fewer rows is not judged.")] = 200
    season: Annotated[
        Literal["none", "hour", "weekday", "hour_of_week"],
        Field(
            description="Windows are judged against the first ones of the same hour or day, once these hold enough rows; "
            "until then against the training profile."
        ),
    ] = "none"

    @model_validator(mode="after")
    def _enough(self) -> Window:
        if self.by != "time" and self.minimum > self.rows:
            raise ValueError(f"minimum {self.minimum} is above rows {self.rows}: no window would ever be judged")
        return self

    @model_validator(mode="after")
    def _in_one_season(self) -> Window:
        if self.season == "none":
            return self
        longest = _DAY_S if self.season == "weekday" else _HOUR_S
        if self.by != "time" or longest % self.length:
            whole = "a day" if self.season == "weekday" else "an hour"
            raise ValueError(
                f"season {self.season} needs windows within one: by: time, with {whole} or a whole part of it as length"
            )
        return self


class Judge(Section):
    """How sure a verdict must be, and what matters."""

    false_alarms: Annotated[
        Probability, Field(description="Probability of ever raising a false alarm against one model version.")
    ] = 0.01
    persistence: Annotated[Count, Field(ge=1, le=100, description="Windows that a change must last.")] = 2
    least_effect: Annotated[
        Number, Field(ge=0, le=1, description="Smallest distance of two distributions that matters.")
    ] = 0.05
    error_shift: Annotated[
        Number | None,
        Field(gt=0, le=1, description="Smallest rise of the error rate that matters; default: by the rate."),
    ] = None


class Detect(Section):
    """What is looked at beside each feature by itself."""

    concept: Annotated[
        Literal["page_hinkley", "adwin", "hddm_a"],
        Field(description="What tells from labels, item by item, that the model errs more often than it did."),
    ] = "page_hinkley"
    multivariate: Annotated[
        Literal["classifier", "mmd", "none"],
        Field(description="Test of all features together, on rows kept of the training data and of the window."),
    ] = "classifier"
    embeddings: Annotated[
        tuple[Annotated[str, Field(min_length=1)], ...],
        Field(
            max_length=8,
            description="Columns of vectors that are sent with the rows; judged against the first of them.",
        ),
    ] = ()


class Trigger(Section):
    """One thing that may start a retraining; `drift` and `performance` may stand alone, as words."""

    drift: Annotated[Severity | None, Field(description="Drift of at least this severity.")] = None
    performance: Annotated[Literal[True] | None, Field(description="Worse than on the reference.")] = None
    alert: Annotated[str | None, Field(min_length=1, max_length=200, description="An alert, by its name.")] = None
    cron: Annotated[
        str | None,
        AfterValidator(lambda text: text if text is None else _cron(text)),
        Field(description="At fixed times: five fields, such as 0 3 * * 1."),
    ] = None
    rows: Annotated[Count | None, Field(ge=1, description="So many new rows.")] = None

    @model_validator(mode="before")
    @classmethod
    def _one(cls, raw: Any) -> Any:
        raw = _ALONE.get(raw, raw) if isinstance(raw, str) else raw
        if isinstance(raw, str) or (isinstance(raw, dict) and sum(each is not None for each in raw.values()) != 1):
            raise ValueError("must be drift, performance, or a mapping with one of drift, alert, cron and rows")
        return raw

    @property
    def kind(self) -> str:
        return next(name for name in type(self).model_fields if getattr(self, name) is not None)


class Budget(Section):
    """Of one calendar month."""

    runs: Annotated[Count | None, Field(ge=1, description="Retrainings.")] = None
    cost: Annotated[Money | None, Field(description="Money.")] = None


class Recall(Section):
    """Versions that stand by answer the same requests in shadow; one that is better serves, and nothing is trained."""

    versions: Annotated[
        Count, Field(ge=2, le=64, description="So many, the champion among them: those that served last.")
    ] = 8
    rows: Annotated[Count, Field(ge=20, le=10_000, description="Rows with a label that are one comparison.")] = 500
    confidence: Annotated[Probability, Field(ge=0.5, description="Of one comparison with one version.")] = 0.95


class Retrain(Section):
    """When and how the model is trained again."""

    mode: Annotated[
        Literal["auto", "approve", "dry-run"],
        Field(description="approve: a person agrees to each; dry-run: it is only told what would be done."),
    ] = "approve"
    triggers: Annotated[
        tuple[Trigger, ...],
        Field(max_length=50, description="What may start a retraining, beside a person."),
    ] = (Trigger(drift="minor"), Trigger(performance=True))
    cooldown: Annotated[Duration | None, Field(description="At least so long after the last one.")] = 86400.0
    minimum_rows: Annotated[
        Count, Field(ge=0, description="New rows, and rows with a label, without which nothing is to be learned.")
    ] = 1_000
    newest_rows: Annotated[
        Count | None, Field(ge=1, description="So many newest rows are learned from, in whole batches; null: all.")
    ] = None
    budget: Annotated[Budget, Field(description="Limits of a month.")] = Budget()
    quiet_hours: Annotated[
        tuple[Annotated[str, AfterValidator(_hours)], ...],
        Field(max_length=20, description="When none is started, such as 22:00-06:00."),
    ] = ()
    utc_offset: Annotated[
        Number, Field(ge=-12, le=14, description="Hours by which cron, quiet hours and seasons differ from UTC.")
    ] = 0.0
    recall: Annotated[
        Recall | None, Field(description="Leave it out: then only what a retraining made replaces the champion.")
    ] = None
    start: Annotated[
        Literal["warm", "scratch"], Field(description="warm: from the weights of the serving version.")
    ] = "warm"
    priority: Annotated[Count | None, Field(ge=0, le=100, description="Default: that of this run.")] = None
    search: Annotated[
        Search | None, Field(description="Each retraining is a small sweep, whose best trial is the challenger.")
    ] = None

    @model_validator(mode="after")
    def _said_once(self) -> Retrain:
        if not self.triggers:
            raise ValueError("has no triggers: name one, or leave retrain out to watch only")
        times = Counter(each.kind for each in self.triggers if each.alert is None)
        if twice := [kind for kind, number in times.items() if number > 1]:
            raise ValueError(f"has two triggers of {twice[0]}: keep one")
        return self


class Probation(Section):
    """The time after a promotion in which a version that serves worse than it was proven is taken back by itself."""

    length: Annotated[Duration | None, Field(description="Null: none.")] = 86400.0
    drop: Annotated[Share, Field(description="By how much the error rate may rise.")] = 0.02
    false_alarms: Annotated[
        Probability, Field(description="Probability that a version is taken back which is no worse than that.")
    ] = 0.01


class Promote(Section):
    """What a challenger must show to become the champion. Losses are shares: of all rows where the metric is accuracy, else
    of the champion's own mean; null: not looked at."""

    metric: Annotated[
        str | None,
        Field(min_length=1, description="Default: accuracy of classes, else what the best epoch is judged by."),
    ] = None
    margin: Annotated[Share, Field(description="The gain must be sure to be more than this.")] = 0.0
    confidence: Annotated[Probability, Field(ge=0.5, description="Of the interval of the gain.")] = 0.95
    slice_loss: Annotated[Share | None, Field(description="What any class, or value of a column, may lose.")] = 0.05
    reference_loss: Annotated[Share | None, Field(description="What may be lost on the champion's own data.")] = 0.05
    calibration_loss: Annotated[Share | None, Field(description="By how much confidence may mislead more.")] = 0.05
    slower: Annotated[Number | None, Field(gt=0, description="Latency, in those of the champion.")] = 1.5
    minimum: Annotated[Count, Field(ge=20, description="Rows without which nothing is proven.")] = 100
    probation: Annotated[Probation, Field(description="When it is taken back.")] = Probation()


class Monitor(Section):
    """Live data judged against the training profile of the registered version."""

    window: Annotated[Window, Field(description="What is judged together.")] = Window()
    judge: Annotated[Judge, Field(description="How sure a verdict must be.")] = Judge()
    detect: Annotated[Detect, Field(description="What is looked at beside each feature.")] = Detect()
    features: Annotated[
        tuple[Annotated[str, Field(min_length=1)], ...] | None,
        Field(min_length=1, max_length=10_000, description="Columns to watch; default: all of the profile."),
    ] = None
    retrain: Annotated[Retrain | None, Field(description="Leave it out to watch only.")] = None
    promote: Annotated[Promote, Field(description="When a challenger takes the champion's place.")] = Promote()

    @model_validator(mode="after")
    def _local_time(self) -> Monitor:
        offset_s = 3600.0 * self.retrain.utc_offset if self.retrain is not None else 0.0
        if self.window.season != "none" and offset_s % self.window.length:
            raise ValueError(
                f"windows of {self.window.length:g} s begin at whole multiples of it in UTC, and no season does where "
                f"retrain.utc_offset is {self.retrain.utc_offset if self.retrain else 0:g} hours: choose shorter windows"
            )
        return self
