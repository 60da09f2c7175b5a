import pytest

from orchestrator.core.scheduling.admission import ClusterView
from orchestrator.core.scheduling.fit import GangShape
from orchestrator.core.scheduling.plan import cluster_fit
from tests.builders import node


@pytest.mark.parametrize(
    ("facts", "free_cpu", "workers", "verdict", "said"),
    [
        ({}, 4, 4, "fits", "all workers can start now"),
        ({}, 1, 4, "waits", "room for 1 of 4 workers now"),
        ({}, 4, 5, "never", "room for 4 such workers"),
        ({"draining": True}, 4, 4, "waits", "draining"),
        ({"draining": True}, 4, 5, "never", "room for 4 such workers"),
        ({"connected": False}, 4, 5, "waits", "not connected"),  # nobody knows what it has now
    ],
)
def test_a_plan_says_where_a_gang_would_fit_and_why_not(facts, free_cpu, workers, verdict, said):
    values = {"name": "local", "project": "*", "connected": True, "draining": False, **facts}
    answer = cluster_fit(GangShape(workers), ClusterView(**values, nodes=(node("a", cpu=4, free_cpu=free_cpu),)))
    assert (answer.cluster, answer.verdict) == ("local", verdict)
    assert said in answer.reason
    assert sum(share.ranks for share in answer.shares) == (workers if verdict == "fits" else 0)
