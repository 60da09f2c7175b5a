from dataclasses import replace

from orchestrator.core.runs import ReasonCode
from orchestrator.core.scheduling.admission import (
    GONE_AFTER_S,
    Admit,
    Away,
    ClusterView,
    Entry,
    Reject,
    Wait,
    Yielding,
    admit,
)
from orchestrator.core.scheduling.fit import GangShape, fit
from tests.builders import node

NOW = 1000.0


def entry(name: str, workers: int = 1, **facts) -> Entry:
    values = {"priority": 50, "submitted_at": 900.0, "queued_since_s": 999.0, "project": "default"}
    return Entry(run_id=f"run-{name}", name=name, shape=GangShape(workers=workers), **{**values, **facts})


def cluster(cpu: float = 4, free: float | None = None, **facts) -> ClusterView:
    values = {"name": "local", "project": "*", "connected": True, "draining": False}
    return ClusterView(**{**values, "nodes": (node("a", cpu=cpu, free_cpu=cpu if free is None else free),), **facts})


def verdicts(entries, clusters) -> dict[str, object]:
    return {each.run_id.removeprefix("run-"): each for each in admit(entries, clusters, NOW)}


def test_priority_goes_before_age_and_age_before_the_rest():
    entries = [
        entry("late", submitted_at=950.0),
        entry("early", submitted_at=940.0),
        entry("urgent", priority=90, submitted_at=990.0),
    ]
    order = [each.run_id for each in admit(entries, [cluster()], NOW)]
    assert order == ["run-urgent", "run-early", "run-late"]


def test_what_one_entry_took_is_not_given_to_the_next():
    answers = verdicts([entry("a", 3, submitted_at=1.0), entry("b", 2, submitted_at=2.0)], [cluster(cpu=4)])
    assert isinstance(answers["a"], Admit)
    assert isinstance(answers["b"], Wait)
    assert "room for 1 of 2 workers now" in answers["b"].reason.message


def test_a_small_run_may_pass_a_big_one_that_only_just_began_to_wait():
    answers = verdicts([entry("big", 4, submitted_at=1.0), entry("small", 1, submitted_at=2.0)], [cluster(4, free=2)])
    assert isinstance(answers["big"], Wait)
    assert isinstance(answers["small"], Admit)


def test_nothing_passes_a_big_run_that_has_waited_long():
    big = entry("big", 4, submitted_at=1.0, queued_since_s=NOW - 301)
    answers = verdicts([big, entry("small", 1, submitted_at=2.0)], [cluster(4, free=2)])
    assert isinstance(answers["small"], Wait)
    assert answers["small"].reason.code == ReasonCode.WAITING_BEHIND
    assert "makes room for big" in answers["small"].reason.message


def test_a_starving_gang_blocks_only_the_clusters_that_it_waits_for():
    big = entry("big", 4, submitted_at=1.0, queued_since_s=NOW - 301, project="vision")
    small = entry("small", 1, submitted_at=2.0)
    busy = cluster(4, free=2, project="vision")
    answers = verdicts([big, small], [busy, cluster(4, name="other", project="default")])
    assert isinstance(answers["big"], Wait)
    assert answers["small"].cluster == "other"


def test_a_wait_says_the_place_what_is_missing_and_who_holds_it():
    answers = verdicts([entry("a", 4)], [cluster(4, free=0, holders=("digits",))])
    message = answers["a"].reason.message
    assert "place 1 in the queue" in message
    assert "room for 0 of 4 workers" in message
    assert "held by digits" in message


def test_without_any_cluster_it_waits_and_says_how_to_attach_one():
    answers = verdicts([entry("a")], [])
    assert answers["a"].reason.code == ReasonCode.WAITING_FOR_CLUSTER
    assert "evertrain up" in answers["a"].reason.message


def test_a_cluster_that_is_away_or_draining_takes_nothing():
    away = verdicts([entry("a")], [cluster(connected=False)])["a"]
    draining = verdicts([entry("a")], [cluster(draining=True)])["a"]
    assert "no cluster is connected (local was seen before)" in away.reason.message
    assert "local is draining" in draining.reason.message


def test_a_cluster_of_another_project_is_not_used():
    answer = verdicts([entry("a")], [cluster(project="vision")])["a"]
    assert answer.reason.code == ReasonCode.WAITING_FOR_CLUSTER


def test_a_gang_that_never_fits_is_rejected_after_a_grace_unless_it_once_ran():
    old = {"queued_since_s": NOW - 31}
    answers = verdicts(
        [entry("fresh", 9), entry("old", 9, **old), entry("ran", 9, tried_before=True, **old)], [cluster(4)]
    )
    assert isinstance(answers["fresh"], Wait)
    assert isinstance(answers["old"], Reject)
    assert answers["old"].reason.code == ReasonCode.NEVER_FITS
    assert isinstance(answers["ran"], Wait)


def test_a_trial_waits_for_a_node_that_is_away_and_stands_in_nobodys_way():
    trial = entry("trial", 9, sweep="run-s", submitted_at=1.0, queued_since_s=NOW - 301)
    answers = verdicts([trial, entry("plain")], [cluster(4)])
    assert answers["trial"].reason.code == ReasonCode.WAITING_FOR_NODE
    assert isinstance(answers["plain"], Admit)


def without_big(away_s: float, **facts) -> ClusterView:
    """A small cluster whose big node went away so long ago."""
    return cluster(4, away=(Away(node("big", cpu=16), NOW - away_s), Away(node("small", cpu=2), NOW - 1)), **facts)


def test_what_only_a_node_could_hold_that_is_away_waits_for_it_and_says_so():
    old = {"queued_since_s": NOW - 10_000}
    for each in (entry("plain", 9, **old), entry("ran", 9, tried_before=True, **old), entry("trial", 9, sweep="s")):
        (answer,) = admit([each], [without_big(120)], NOW)
        assert isinstance(answer, Wait)
        assert answer.reason.code == ReasonCode.WAITING_FOR_NODE
        assert "only with big (away for 2 min)" in answer.reason.message
        assert "room for 4 such workers" in answer.reason.message


def test_once_the_node_is_gone_a_run_still_waits_and_says_what_to_do():
    (answer,) = admit([entry("plain", 9, queued_since_s=NOW - 10_000)], [without_big(GONE_AFTER_S)], NOW)
    assert isinstance(answer, Wait)
    assert "no node that is there can ever hold it, and big (away for 15 min)" in answer.reason.message
    assert "add such a node again, or cancel it and submit it with smaller `resources`" in answer.reason.message


def test_once_the_node_is_gone_a_trial_that_is_larger_than_its_sweep_has_failed_and_the_sweep_goes_on():
    trial = entry("trial", 9, sweep="run-s", sized=True, tried_before=True)
    (answer,) = admit([trial], [without_big(GONE_AFTER_S)], NOW)
    assert isinstance(answer, Reject)
    assert (answer.reason.code, answer.ends) == (ReasonCode.NEVER_FITS, "")
    assert "big (away for 15 min)" in answer.reason.message
    assert isinstance(admit([trial], [without_big(GONE_AFTER_S - 1)], NOW)[0], Wait)


def test_where_every_trial_asks_for_the_node_that_is_gone_the_sweep_ends():
    (answer,) = admit([entry("trial", 9, sweep="run-s")], [without_big(GONE_AFTER_S)], NOW)
    assert isinstance(answer, Reject)
    assert answer.ends == "run-s"


def test_a_trial_that_nobody_knows_a_node_for_is_given_up_after_the_same_time():
    trial = entry("trial", 40, sweep="run-s", sized=True)
    late = replace(trial, queued_since_s=NOW - GONE_AFTER_S)
    assert isinstance(admit([trial], [without_big(GONE_AFTER_S)], NOW)[0], Wait)
    assert isinstance(admit([late], [without_big(0)], NOW)[0], Reject)


def test_several_nodes_that_are_away_may_hold_together_what_none_of_them_could():
    back = cluster(4, away=tuple(Away(node(name, cpu=3), NOW - 60) for name in "bc"))
    (answer,) = admit([entry("wide", 10, queued_since_s=0.0)], [back], NOW)
    assert "only with b (away for 1 min), c (away for 1 min)" in answer.reason.message
    partly = replace(back, away=(back.away[0], replace(back.away[1], since_s=NOW - GONE_AFTER_S)))
    (answer,) = admit([entry("wide", 10, sweep="run-s")], [partly], NOW)
    assert isinstance(answer, Reject), "one that is back would not be enough"


def test_a_cluster_that_takes_nothing_now_is_no_reason_to_give_up_what_only_it_could_hold():
    old = {"queued_since_s": NOW - 31}
    for other in (cluster(16, name="large", connected=False), cluster(16, name="large", draining=True)):
        for each in (entry("plain", 9, **old), entry("trial", 9, sweep="run-s", **old)):
            (answer,) = admit([each], [cluster(4), other], NOW)
            assert isinstance(answer, Wait)
            assert "only large could hold it, which takes nothing now" in answer.reason.message
    (answer,) = admit([entry("trial", 9, sweep="s", queued_since_s=NOW - GONE_AFTER_S)], [cluster(4), other], NOW)
    assert isinstance(answer, Reject)
    (answer,) = admit([entry("plain", 9, **old)], [cluster(4), replace(other, project="vision")], NOW)
    assert isinstance(answer, Reject)


def test_a_run_that_backs_off_is_not_placed_before_its_time():
    answers = verdicts([entry("a", backing_off_s=7.0)], [cluster()])
    assert answers["a"].reason.code == ReasonCode.BACKING_OFF
    assert "7 s more" in answers["a"].reason.message


def test_a_trial_beyond_its_sweeps_slots_waits_in_the_queue_and_holds_nobody_up():
    entries = [entry(name, sweep="run-s", slots=2, submitted_at=at) for at, name in enumerate("abc")]
    entries[2] = replace(entries[2], queued_since_s=0.0)
    others = [entry("x", sweep="run-t", slots=1, submitted_at=8.0), entry("plain", submitted_at=9.0)]
    answers = {each.run_id[4:]: each for each in admit([*entries, *others], [cluster(cpu=8)], NOW, {"run-s": 1})}
    assert [name for name, answer in answers.items() if isinstance(answer, Admit)] == ["a", "x", "plain"]
    assert answers["b"].reason.code == ReasonCode.WAITING_SLOT
    assert "trains 2 at a time" in answers["b"].reason.message


def trials_that_wait(*names: str, **facts) -> list[Entry]:
    return [entry(name, 2, sweep="run-s", slots=1, submitted_at=at, **facts) for at, name in enumerate(names)]


def place_ahead(entries: list[Entry], clusters: list[ClusterView]) -> dict[str, Admit | None]:
    answers = admit(entries, clusters, NOW, {"run-s": 1})
    return {each.run_id[4:]: each.ahead for each in answers if isinstance(each, Wait)}


def test_the_next_trial_of_a_sweep_may_get_ready_in_what_everybody_else_leaves():
    entries = [*trials_that_wait("a", "b"), entry("plain", 2, submitted_at=9.0)]
    found = place_ahead(entries, [cluster(cpu=8, free=4)])
    assert [share.ranks for share in found["a"].shares] == [2]
    assert found["b"] is None, "one of a sweep"
    assert place_ahead(entries, [cluster(cpu=8, free=3)])["a"] is None, "the plain run takes what it would need"
    assert place_ahead(entries[:1], [cluster(draining=True)])["a"] is None
    assert place_ahead(entries[:1], [cluster(project="other")])["a"] is None


def test_as_many_trials_get_ready_as_the_sweep_has_slots_and_there_is_room_each_in_its_own_place():
    entries = [replace(each, slots=2) for each in trials_that_wait("a", "b", "c")]

    def places(free: int) -> dict[str, Admit | None]:
        answers = admit(entries, [cluster(cpu=8, free=free)], NOW, {"run-s": 2})
        return {each.run_id[4:]: each.ahead for each in answers if isinstance(each, Wait)}

    assert [name for name, place in places(8).items() if place is not None] == ["a", "b"]
    assert [name for name, place in places(3).items() if place is not None] == ["a"], "no CPU is promised twice"


def test_a_trial_that_ran_before_does_not_get_ready():
    assert place_ahead(trials_that_wait("a", tried_before=True), [cluster()])["a"] is None


def test_a_trial_is_placed_where_its_gang_got_ready_unless_somebody_else_has_taken_that():
    fullest_first = cluster(nodes=(node("a", cpu=2), node("b", cpu=4)))
    (trial,) = trials_that_wait("a")
    there = Admit(trial.run_id, "local", fit(trial.shape, [node("b", cpu=4)]).shares)
    ready = replace(trial, ahead=there)
    assert place_ahead([ready], [fullest_first])["a"] == there
    assert admit([ready], [fullest_first], NOW) == [there]
    assert admit([trial], [fullest_first], NOW)[0].shares[0].node_id == "node-a"
    taken = cluster(nodes=(node("a", cpu=2), node("b", cpu=4, free_cpu=1)))
    assert admit([ready], [taken], NOW)[0].shares[0].node_id == "node-a"


def holding(name: str, ranks: int, **facts) -> Yielding:
    shares = fit(GangShape(workers=ranks), [node("a", cpu=ranks)]).shares
    values = {"priority": 40, "shape": GangShape(workers=ranks), "shares": shares, "since_s": 1.0}
    return Yielding(run_id=f"run-{name}", name=name, **{**values, **facts})


def test_trials_make_room_for_what_has_a_higher_priority_the_least_important_and_the_youngest_first():
    trials = (
        holding("old", 1),
        holding("young", 1, since_s=2.0),
        holding("least", 1, priority=10),
        holding("equal", 1, priority=60),
    )
    full = cluster(cpu=4, free=0, trials=trials)
    urgent, small = entry("urgent", 2, priority=60), entry("small", 1, priority=20)
    answers = verdicts([urgent, small], [full])
    assert answers["urgent"].yielding == ("run-least", "run-young")
    assert "least, young of lower priority seal and make room on local" in answers["urgent"].reason.message
    assert "makes room for urgent" in answers["small"].reason.message
    partly = verdicts([urgent, small], [cluster(cpu=4, free=1, trials=trials[:2])])
    assert partly["urgent"].yielding == ("run-young",)
    assert isinstance(partly["small"], Wait), "what a trial has left is for whom it made room"
    assert verdicts([entry("huge", 4, priority=60)], [full])["huge"].yielding == (), "nothing ends in vain"
    assert verdicts([entry("equal", 1, priority=10)], [full])["equal"].yielding == ()


def test_where_ray_adds_nodes_nothing_is_too_large_to_wait_and_what_is_blocks_nobody():
    growing = cluster(cpu=4, autoscaling=True)
    huge = entry("huge", 40, submitted_at=1.0, queued_since_s=NOW - 301)
    answers = verdicts([huge, entry("small", 1, submitted_at=2.0)], [growing])
    assert isinstance(answers["huge"], Wait)
    assert answers["huge"].reason.code == ReasonCode.WAITING_FOR_CAPACITY
    assert "room for 4 such workers" in answers["huge"].reason.message
    assert "Ray's autoscaler is asked for nodes" in answers["huge"].reason.message
    assert isinstance(answers["small"], Admit)
