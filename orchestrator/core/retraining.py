"""Whether to retrain: one pure decision for each trigger, and its reason, also where nothing is done.

What asks for a retraining (drift, worse performance, an alert, the schedule, enough new data, a person) is a `Trigger`. Its
key says what it is about: two triggers of one key are the same event told twice, and start one run.
"""

from __future__ import annotations

import datetime
import enum
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.core.cron import Cron, next_after
from orchestrator.core.prospects import IMAGES, Proof

_LABELS_SOONEST_S, _LABELS_LATEST_S = 15.0, 86_400.0


class Cause(enum.StrEnum):
    DRIFT = "drift"
    PERFORMANCE = "performance"
    ALERT = "alert"
    SCHEDULE = "schedule"
    DATA_VOLUME = "data_volume"
    MANUAL = "manual"


class Mode(enum.StrEnum):
    """`approve`: a person must agree to each retraining. `dry_run`: it is told what would have been done."""

    AUTO = "auto"
    APPROVE = "approve"
    DRY_RUN = "dry_run"


class Action(enum.StrEnum):
    RETRAIN = "retrain"
    ASK = "ask"  # waits for a person's approval
    TELL = "tell"  # dry run
    WAIT = "wait"  # not now: ask again at `Decision.again_at`, or when data have come
    REFUSE = "refuse"  # this trigger is done with


class Because(enum.StrEnum):
    """Machine-readable, stable; the decision's words are for people."""

    ACCEPTED = "accepted"
    NOT_ENABLED = "not_enabled"
    DUPLICATE = "duplicate"
    IN_PROGRESS = "in_progress"
    BROKEN_DATA = "broken_data"
    TOO_MILD = "too_mild"
    COOLDOWN = "cooldown"
    TOO_LITTLE_DATA = "too_little_data"
    BUDGET_SPENT = "budget_spent"
    QUIET_HOURS = "quiet_hours"
    UNPROVABLE = "unprovable"
    UNLEARNABLE = "unlearnable"


@dataclass(frozen=True)
class Trigger:
    """`severity`: 1 minor, 2 moderate, 3 major; 0 where it has none. `broken_data`: the data look faulty, not changed.
    `version`: whose traffic it was seen in; 0: it is about no version.
    """

    cause: Cause
    key: str
    at: float
    words: str
    severity: int = 0
    broken_data: bool = False
    version: int = 0


@dataclass(frozen=True)
class QuietHours:
    """From one minute of the day to another, over midnight where the end is not later; local to `utc_offset_s`."""

    from_minute: int
    to_minute: int

    def minutes_left(self, minute: int) -> int:
        """Until they end; 0 outside of them. `from` equal to `to`: the whole day."""
        length = (self.to_minute - self.from_minute) % 1440 or 1440
        since = (minute - self.from_minute) % 1440
        return max(0, length - since)


@dataclass(frozen=True)
class Policy:
    """What a monitor allows. None: no limit."""

    causes: frozenset[Cause]
    mode: Mode = Mode.APPROVE
    cooldown_s: float = 0.0
    least_severity: int = 1
    least_new_rows: int = 0
    monthly_runs: int | None = None
    monthly_cost: float | None = None
    quiet: tuple[QuietHours, ...] = ()
    schedule: Cron | None = None
    volume_rows: int | None = None
    utc_offset_s: float = 0.0


@dataclass(frozen=True)
class Retraining:
    """One that was accepted before. `done_at` None: it runs, or waits for approval."""

    run: str
    trigger_key: str
    at: float
    done_at: float | None = None
    cost: float = 0.0


@dataclass(frozen=True)
class Situation:
    """As of now. `new_rows`: since the data that the serving model was trained on. `expected_cost`: of one retraining.
    `rows`: that it would learn from, as far as they have labels. `proof`: of what it makes; None: it needs none, or nothing
    is known of it. `of_images`: the model learned from images, which live rows do not hold.
    """

    now: float
    new_rows: int
    past: Sequence[Retraining] = ()
    expected_cost: float = 0.0
    rows: int = 0
    proof: Proof | None = None
    of_images: bool = False


@dataclass(frozen=True)
class Decision:
    trigger: Trigger
    action: Action
    because: Because
    words: str
    again_at: float | None = None


def decide(trigger: Trigger, policy: Policy, situation: Situation) -> Decision:
    """The first of these that holds: not enabled, told twice, one under way, nothing to learn from, broken data, too mild,
    nothing that could be proven, cooling down, too little new data, too little for a proof, budget spent, quiet hours;
    otherwise it is accepted as the mode has it.

    A person who asks is held to the last retraining, what there is to learn from, the budget and a dry run only: the rest
    protects from machines. That nothing could be proven the person is told.
    """
    checks = (
        *(_enabled, _first_time, _alone, _learnable, _sound, _severe),
        *(_hopeful, _cooled, _fed, _provable, _affordable, _awake),
    )
    for check in checks:
        refusal = check(trigger, policy, situation)
        if refusal is not None:
            return refusal
    return _accept(trigger, policy, situation)


def due(policy: Policy, situation: Situation, since: float, scheduled_at: float = 0.0) -> list[Trigger]:
    """The triggers that time and data alone bring. `since`: when the monitor began. `scheduled_at`: the last time of the
    schedule that was decided on, whatever came of that: one that was rejected, or told in a dry run, is no retraining, and
    the next one is due all the same; rows ask again each time that they have doubled. Their keys are those of the occasion,
    so that asking often, or again after a crash, starts nothing twice.
    """
    triggers = []
    last = max((each.at for each in situation.past), default=since)
    if policy.schedule is not None:
        at = next_after(policy.schedule, max(last, scheduled_at), policy.utc_offset_s)
        if at is not None and at <= situation.now:
            triggers.append(Trigger(Cause.SCHEDULE, f"schedule/{at:.0f}", at, f"scheduled for {_time(at)}"))
    if policy.volume_rows is not None and situation.new_rows >= policy.volume_rows:
        words = f"{situation.new_rows:,} new rows, {policy.volume_rows:,} were asked for"
        doubled = (situation.new_rows // policy.volume_rows).bit_length() - 1
        key = f"data_volume/{last:.0f}" + (f"x{2**doubled}" if doubled else "")
        triggers.append(Trigger(Cause.DATA_VOLUME, key, situation.now, words))
    return triggers


def unlabelled(trigger: Trigger, words: str, now: float) -> Decision:
    """The answer where the rows sufficed and their labels, in those words, do not. Labels come late: it is asked again after
    as long as has passed since the trigger, at least fifteen seconds and at most a day.
    """
    again_at = now + min(max(now - trigger.at, _LABELS_SOONEST_S), _LABELS_LATEST_S)
    words = f"{words}; looked at again at {_time(again_at)}"
    return Decision(trigger, Action.WAIT, Because.TOO_LITTLE_DATA, words, again_at)


def _enabled(trigger: Trigger, policy: Policy, situation: Situation) -> Decision | None:
    if trigger.cause in policy.causes or trigger.cause is Cause.MANUAL:
        return None
    words = f"{trigger.cause} is not among the monitor's triggers ({', '.join(sorted(policy.causes)) or 'none'})"
    return Decision(trigger, Action.REFUSE, Because.NOT_ENABLED, words)


def _first_time(trigger: Trigger, policy: Policy, situation: Situation) -> Decision | None:
    same = [each for each in situation.past if each.trigger_key == trigger.key]
    if not same:
        return None
    words = f"the same trigger started {same[-1].run} at {_time(same[-1].at)}"
    return Decision(trigger, Action.REFUSE, Because.DUPLICATE, words)


def _alone(trigger: Trigger, policy: Policy, situation: Situation) -> Decision | None:
    open_one = next((each for each in situation.past if each.done_at is None), None)
    if open_one is None:
        return None
    words = f"{open_one.run} is still under way: it will have seen the data of this trigger too, or the next one will"
    return Decision(trigger, Action.REFUSE, Because.IN_PROGRESS, words)


def _learnable(trigger: Trigger, policy: Policy, situation: Situation) -> Decision | None:
    if not situation.of_images:
        return None
    return Decision(trigger, Action.REFUSE, Because.UNLEARNABLE, f"the model {IMAGES}")


def _sound(trigger: Trigger, policy: Policy, situation: Situation) -> Decision | None:
    if not trigger.broken_data or trigger.cause is Cause.MANUAL:
        return None
    words = f"the data look broken, and a model would learn that: mend their source first ({trigger.words})"
    return Decision(trigger, Action.REFUSE, Because.BROKEN_DATA, words)


def _severe(trigger: Trigger, policy: Policy, situation: Situation) -> Decision | None:
    if trigger.cause is not Cause.DRIFT or trigger.severity >= policy.least_severity:
        return None
    words = f"of severity {trigger.severity}, retraining is for {policy.least_severity} and more: {trigger.words}"
    return Decision(trigger, Action.REFUSE, Because.TOO_MILD, words)


def _hopeful(trigger: Trigger, policy: Policy, situation: Situation) -> Decision | None:
    why = situation.proof.hopeless if situation.proof is not None else ""
    if not why or trigger.cause is Cause.MANUAL:
        return None
    words = f"what it makes could never be promoted: {why}"
    return Decision(trigger, Action.REFUSE, Because.UNPROVABLE, words)


def _cooled(trigger: Trigger, policy: Policy, situation: Situation) -> Decision | None:
    last = max((each.done_at or each.at for each in situation.past), default=None)
    if last is None or trigger.cause is Cause.MANUAL or situation.now >= last + policy.cooldown_s:
        return None
    until = last + policy.cooldown_s
    words = f"cooling down until {_time(until)}: the last retraining ended at {_time(last)}"
    return Decision(trigger, Action.WAIT, Because.COOLDOWN, words, until)


def _fed(trigger: Trigger, policy: Policy, situation: Situation) -> Decision | None:
    if trigger.cause is Cause.MANUAL or situation.new_rows >= policy.least_new_rows:
        return None
    words = f"{situation.new_rows:,} new rows, at least {policy.least_new_rows:,} are needed to learn anything new"
    return Decision(trigger, Action.WAIT, Because.TOO_LITTLE_DATA, words)


def _provable(trigger: Trigger, policy: Policy, situation: Situation) -> Decision | None:
    lacking = situation.proof.lacking(situation.rows) if situation.proof is not None else ""
    if not lacking or trigger.cause is Cause.MANUAL:
        return None
    return Decision(trigger, Action.WAIT, Because.TOO_LITTLE_DATA, lacking)


def _affordable(trigger: Trigger, policy: Policy, situation: Situation) -> Decision | None:
    begin, end = _month(situation.now, policy.utc_offset_s)
    this_month = [each for each in situation.past if begin <= each.at < end]
    if policy.monthly_runs is not None and len(this_month) >= policy.monthly_runs:
        words = f"all {policy.monthly_runs} retrainings of this month are used; the next month begins at {_time(end)}"
        return Decision(trigger, Action.WAIT, Because.BUDGET_SPENT, words, end)
    spent = sum(each.cost for each in this_month)
    if policy.monthly_cost is not None and spent + situation.expected_cost > policy.monthly_cost:
        words = (
            f"{spent:.2f} of {policy.monthly_cost:.2f} are spent this month and a retraining costs about "
            f"{situation.expected_cost:.2f}; the next month begins at {_time(end)}"
        )
        return Decision(trigger, Action.WAIT, Because.BUDGET_SPENT, words, end)
    return None


def _awake(trigger: Trigger, policy: Policy, situation: Situation) -> Decision | None:
    if trigger.cause is Cause.MANUAL:
        return None
    local = _local(situation.now, policy.utc_offset_s)
    left = max((each.minutes_left(local.hour * 60 + local.minute) for each in policy.quiet), default=0)
    if not left:
        return None
    until = local.replace(second=0, microsecond=0).timestamp() + 60.0 * left
    return Decision(trigger, Action.WAIT, Because.QUIET_HOURS, f"quiet hours until {_time(until)}", until)


def _accept(trigger: Trigger, policy: Policy, situation: Situation) -> Decision:
    doubts = situation.proof.doubts(situation.rows) if situation.proof is not None else ""
    told = f"{trigger.words}{doubts}"
    match policy.mode:
        case Mode.DRY_RUN:
            return Decision(trigger, Action.TELL, Because.ACCEPTED, f"dry run: would retrain, for {told}")
        case Mode.APPROVE if trigger.cause is not Cause.MANUAL:
            return Decision(trigger, Action.ASK, Because.ACCEPTED, f"waits for approval: {told}")
        case _:
            return Decision(trigger, Action.RETRAIN, Because.ACCEPTED, f"retrains: {told}")


def _month(now: float, utc_offset_s: float) -> tuple[float, float]:
    first = _local(now, utc_offset_s).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    following = (first + datetime.timedelta(days=32)).replace(day=1)
    return first.timestamp(), following.timestamp()


def _local(time: float, utc_offset_s: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(time, datetime.timezone(datetime.timedelta(seconds=utc_offset_s)))


def _time(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
