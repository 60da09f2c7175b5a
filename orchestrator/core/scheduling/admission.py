"""Who starts next: one pass over one snapshot.

Five phases: sort, fit, judge, look ahead, answer. Every entry of the snapshot leaves with a decision and its reason. The
order is priority, then age. An entry that does not fit lets smaller ones behind it pass, until it has waited
`BLOCK_AFTER_S`: from then on nothing behind it may take anything of the clusters that it waits for, so a big gang is never
starved by small ones.

The trials of sweeps yield: where what goes first would fit without trials of a lower priority, as many of them as it takes
are to seal and end, the least important and the youngest first, and nothing behind it takes what they leave.

What no node could hold that is there waits for the nodes that were. A run waits for as long as its owner lets it; a trial
has failed once such a node has been away for `GONE_AFTER_S`, so that its sweep goes on without it, and where every trial
of the sweep asks for as much, the sweep ends with what it has found.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from orchestrator.core.runs import NodeShare, Reason, ReasonCode
from orchestrator.core.scheduling.fit import Fits, GangShape, NeverFits, Node, Waits, fit, release, reserve, still_fits

BLOCK_AFTER_S = 300.0
NEVER_FITS_GRACE_S = 30.0
GONE_AFTER_S = 900.0  # longer than a host takes to start again, or a cloud to replace it: no trial waits any more


@dataclass(frozen=True)
class Entry:
    """A queued run as the scheduler sees it."""

    run_id: str
    name: str
    project: str
    shape: GangShape
    priority: int
    submitted_at: float
    queued_since_s: float  # monotonic: a wall clock that is moved makes nobody wait longer
    backing_off_s: float = 0.0  # how long it still has to wait, whatever is free
    tried_before: bool = False  # an attempt of it has been placed before: the cluster was large enough once
    waits_for: ReasonCode = ReasonCode.SUBMITTED  # what its record says now: only a change is written
    sweep: str = ""  # of a trial: its sweep's id
    slots: int = 0  # trials of that sweep that may hold workers at once; 0: as many as fit
    sized: bool = False  # of a trial: it asks for other resources than its sweep does
    ahead: Admit | None = None  # where its gang gets ready

    @property
    def rank(self) -> tuple[int, float, str]:
        """Sorts by who is first."""
        return (-self.priority, self.submitted_at, self.run_id)


@dataclass(frozen=True)
class Yielding:
    """A trial that holds workers."""

    run_id: str
    name: str
    priority: int
    shape: GangShape
    shares: tuple[NodeShare, ...]
    since_s: float  # monotonic


@dataclass(frozen=True)
class Away:
    """A node that a cluster had, and does not have now."""

    node: Node
    since_s: float  # monotonic


@dataclass(frozen=True)
class ClusterView:
    """A cluster as of now; what our living attempts hold is already taken out of its nodes."""

    name: str
    project: str  # "*": open to all
    connected: bool
    draining: bool
    nodes: tuple[Node, ...]
    holders: tuple[str, ...] = ()  # names of the runs that hold something there
    trials: tuple[Yielding, ...] = ()  # those of sweeps among them
    autoscaling: bool = False  # Ray adds nodes there when it is asked to
    away: tuple[Away, ...] = ()


@dataclass(frozen=True)
class Admit:
    run_id: str
    cluster: str
    shares: tuple[NodeShare, ...]


@dataclass(frozen=True)
class Wait:
    """`ahead`: it lacks nothing but a slot, so its gang may get ready there. It holds nothing by that.

    `yielding`: ids of the trials that make room for it, told so before or not.
    """

    run_id: str
    reason: Reason
    ahead: Admit | None = None
    yielding: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reject:
    """`ends`: id of the sweep whose trials all ask for what nobody has; empty: of none."""

    run_id: str
    reason: Reason
    ends: str = ""


Decision = Admit | Wait | Reject


def admit(
    entries: Sequence[Entry],
    clusters: Sequence[ClusterView],
    now_s: float,
    trials: Mapping[str, int] | None = None,
) -> list[Decision]:
    """Decide for every entry, first come first. `now_s` is monotonic; `trials` are those that hold workers, by sweep."""
    held = Counter(trials or {})
    nodes = {each.name: list(each.nodes) for each in clusters}
    blocked: dict[str, Entry] = {}
    decisions: list[Decision] = []
    for place, entry in enumerate(sorted(entries, key=lambda each: each.rank), 1):
        decision, waits_for = _no_slot(entry, held) or _judge(entry, clusters, nodes, blocked, place, now_s)
        if isinstance(decision, Admit):
            held[entry.sweep] += 1
            nodes[decision.cluster] = reserve(nodes[decision.cluster], entry.shape, decision.shares)
        elif now_s - entry.queued_since_s >= BLOCK_AFTER_S or (isinstance(decision, Wait) and decision.yielding):
            blocked |= dict.fromkeys(waits_for, entry)
        decisions.append(decision)
    open_to = [each for each in clusters if each.connected and not each.draining and each.name not in blocked]
    return _with_places_ahead(entries, decisions, open_to, nodes)


def _no_slot(entry: Entry, held: Mapping[str, int]) -> tuple[Decision, list[str]] | None:
    """Why a trial waits for another one of its sweep. It is submitted ahead, so that its gang starts without a pause."""
    if not entry.slots or held.get(entry.sweep, 0) < entry.slots:
        return None
    words = f"its sweep trains {entry.slots} at a time (search.max_concurrent)"
    return Wait(entry.run_id, Reason(ReasonCode.WAITING_SLOT, words)), []


def _with_places_ahead(
    entries: Sequence[Entry],
    decisions: Sequence[Decision],
    clusters: Sequence[ClusterView],
    nodes: Mapping[str, Sequence[Node]],
) -> list[Decision]:
    """For each trial that lacks only a slot, as many of a sweep as it has of those, a place in what everybody else leaves."""
    by_id = {each.run_id: each for each in entries}
    left, ready = dict(nodes), Counter[str]()
    answers: list[Decision] = []
    for decision in decisions:
        entry = by_id[decision.run_id]
        if (
            isinstance(decision, Wait)
            and decision.reason.code is ReasonCode.WAITING_SLOT
            and ready[entry.sweep] < entry.slots
        ):
            mine = [each for each in clusters if each.project in ("*", entry.project)]
            place = _place_ahead(entry, mine, left)
            if place is not None:
                ready[entry.sweep] += 1
                left[place.cluster] = reserve(left[place.cluster], entry.shape, place.shares)
            decision = replace(decision, ahead=place)
        answers.append(decision)
    return answers


def _place_ahead(entry: Entry, clusters: Sequence[ClusterView], nodes: Mapping[str, Sequence[Node]]) -> Admit | None:
    if entry.tried_before:
        return None
    if (kept := _kept_place(entry, clusters, nodes)) is not None:
        return kept
    for cluster in clusters:
        if isinstance(answer := fit(entry.shape, nodes[cluster.name]), Fits):
            return Admit(entry.run_id, cluster.name, answer.shares)
    return None


def _kept_place(entry: Entry, clusters: Sequence[ClusterView], nodes: Mapping[str, Sequence[Node]]) -> Admit | None:
    """Where its gang gets ready, if that place is still free."""
    place = entry.ahead
    if place is None or place.cluster not in {each.name for each in clusters}:
        return None
    return place if still_fits(entry.shape, nodes[place.cluster], place.shares) else None


def _judge(
    entry: Entry,
    clusters: Sequence[ClusterView],
    nodes: Mapping[str, Sequence[Node]],
    blocked: Mapping[str, Entry],
    place: int,
    now_s: float,
) -> tuple[Decision, list[str]]:
    """The decision, and the clusters whose resources the entry waits for."""
    if entry.backing_off_s > 0:
        words = f"waits {entry.backing_off_s:.0f} s more before its next attempt"
        return Wait(entry.run_id, Reason(ReasonCode.BACKING_OFF, words)), []
    mine = [each for each in clusters if each.project in ("*", entry.project) and each.connected]
    open_to = [each for each in mine if not each.draining]
    if not open_to:
        return Wait(entry.run_id, _no_cluster(clusters, mine, place)), []
    candidates = [each for each in open_to if each.name not in blocked]
    if not candidates:
        first = blocked[open_to[0].name].name
        words = f"place {place} in the queue: makes room for {first}, which goes first and does not fit yet"
        return Wait(entry.run_id, Reason(ReasonCode.WAITING_BEHIND, words)), []
    if (kept := _kept_place(entry, candidates, nodes)) is not None:
        return kept, []
    lacks: list[str] = []
    waits_for: list[str] = []
    never: list[str] = []
    for cluster in candidates:
        answer = fit(entry.shape, nodes[cluster.name])
        match answer:
            case Fits():
                return Admit(entry.run_id, cluster.name, answer.shares), []
            case Waits():
                waits_for.append(cluster.name)
                lacks.append(f"{cluster.name}: {answer.lacks}{_held(cluster)}")
            case NeverFits() if cluster.autoscaling:
                # It blocks nobody: whether such nodes ever come, only the autoscaler knows.
                lacks.append(f"{cluster.name}: {answer.why}; Ray's autoscaler is asked for nodes")
            case NeverFits():
                never.append(f"{cluster.name}: {answer.why}")
    for cluster in candidates:
        if leaving := _who_yields(entry, cluster, nodes[cluster.name]):
            who = ", ".join(each.name for each in leaving)
            words = f"place {place} in the queue: {who} of lower priority seal and make room on {cluster.name}"
            reason = Reason(ReasonCode.WAITING_FOR_CAPACITY, words)
            return Wait(entry.run_id, reason, yielding=tuple(each.run_id for each in leaving)), [cluster.name]
    if not lacks and len(candidates) == len(open_to):
        return _nowhere(entry, clusters, candidates, "; ".join(never), place, now_s), []
    words = f"place {place} in the queue: " + "; ".join(lacks or never)
    return Wait(entry.run_id, Reason(ReasonCode.WAITING_FOR_CAPACITY, words)), waits_for


def _nowhere(
    entry: Entry,
    clusters: Sequence[ClusterView],
    candidates: Sequence[ClusterView],
    never: str,
    place: int,
    now_s: float,
) -> Decision:
    """What becomes of an entry that no node could hold which is there. `never` says so of each cluster."""

    def wait(words: str) -> Wait:
        return Wait(entry.run_id, Reason(ReasonCode.WAITING_FOR_NODE, f"place {place} in the queue: {words}. {never}"))

    others = [each for each in clusters if each.project in ("*", entry.project) and each not in candidates]
    able = [each.name for each in others if not isinstance(fit(entry.shape, each.nodes), NeverFits)]
    too_long = now_s - entry.queued_since_s >= GONE_AFTER_S
    if able and not (entry.sweep and too_long):
        return wait(f"only {', '.join(able)} could hold it, which takes nothing now")
    if missed := _missed(entry.shape, candidates, now_s, GONE_AFTER_S):
        return wait(f"only with {_named(missed, now_s)} could it be held: it waits for that")
    gone = _missed(entry.shape, candidates, now_s)
    nobody = "no node that is there can ever hold it" + (
        f", and {_named(gone, now_s)} has not come back" if gone else ""
    )
    if entry.sweep:
        if gone or too_long:
            reason = Reason(ReasonCode.NEVER_FITS, f"{nobody}. {never}")
            return Reject(entry.run_id, reason, "" if entry.sized else entry.sweep)
        return wait(nobody)
    if gone or entry.tried_before:
        return wait(f"{nobody}: add such a node again, or cancel it and submit it with smaller `resources`")
    if now_s - entry.queued_since_s >= NEVER_FITS_GRACE_S:
        return Reject(entry.run_id, Reason(ReasonCode.NEVER_FITS, never))
    return wait(nobody)


def _missed(shape: GangShape, clusters: Sequence[ClusterView], now_s: float, within_s: float = math.inf) -> list[Away]:
    """Of the nodes that went away within that time, those with which the gang would fit their cluster again."""
    worker, found = replace(shape, workers=1), list[Away]()
    for cluster in clusters:
        lately = [each for each in cluster.away if now_s - each.since_s < within_s]
        able = [each for each in lately if not isinstance(fit(worker, [each.node]), NeverFits)]
        if able and not isinstance(fit(shape, [*cluster.nodes, *(each.node for each in able)]), NeverFits):
            found += able
    return found


def _named(away: Sequence[Away], now_s: float) -> str:
    return ", ".join(f"{each.node.host} (away for {(now_s - each.since_s) / 60:.0f} min)" for each in away)


def _who_yields(entry: Entry, cluster: ClusterView, nodes: Sequence[Node]) -> list[Yielding]:
    """The fewest trials, in their order, without which the entry would fit; none where nothing helps."""
    lower = [each for each in cluster.trials if each.priority < entry.priority]
    leaving: list[Yielding] = []
    for trial in sorted(lower, key=lambda each: (each.priority, -each.since_s, each.run_id)):
        nodes = release(nodes, trial.shape, trial.shares)
        leaving.append(trial)
        if isinstance(fit(entry.shape, nodes), Fits):
            return leaving
    return []


def _no_cluster(clusters: Sequence[ClusterView], connected: Sequence[ClusterView], place: int) -> Reason:
    if connected:
        words = f"{', '.join(each.name for each in connected)} is draining"
    elif clusters:
        words = f"no cluster is connected ({', '.join(each.name for each in clusters)} was seen before)"
    else:
        words = "no cluster has attached yet: start an agent, or `evertrain up`"
    return Reason(ReasonCode.WAITING_FOR_CLUSTER, f"place {place} in the queue: {words}")


def _held(cluster: ClusterView) -> str:
    if not cluster.holders:
        return ""
    shown = ", ".join(cluster.holders[:3]) + (
        f" and {len(cluster.holders) - 3} more" if len(cluster.holders) > 3 else ""
    )
    return f", held by {shown}"
