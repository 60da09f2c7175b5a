from dataclasses import replace

from orchestrator.core.runs import ReasonCode
from orchestrator.core.scheduling.admission import Admit, ClusterView, Entry, Reject, Wait, admit
from orchestrator.core.scheduling.fit import GangShape
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
    assert answers["trial"].reason.code == ReasonCode.WAITING_FOR_CAPACITY
    assert isinstance(answers["plain"], Admit)


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


def test_where_ray_adds_nodes_nothing_is_too_large_to_wait_and_what_is_blocks_nobody():
    growing = cluster(cpu=4, autoscaling=True)
    huge = entry("huge", 40, submitted_at=1.0, queued_since_s=NOW - 301)
    answers = verdicts([huge, entry("small", 1, submitted_at=2.0)], [growing])
    assert isinstance(answers["huge"], Wait)
    assert answers["huge"].reason.code == ReasonCode.WAITING_FOR_CAPACITY
    assert "room for 4 such workers" in answers["huge"].reason.message
    assert "Ray's autoscaler is asked for nodes" in answers["huge"].reason.message
    assert isinstance(answers["small"], Admit)
