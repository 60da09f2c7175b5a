from orchestrator.core.scheduling.demand import Workers, demand
from orchestrator.core.scheduling.fit import GangShape


def test_workers_that_are_alike_are_asked_for_together_whatever_gang_they_are_of():
    large = {"cpu": 4, "gpu": 1, "accelerator": "H100"}
    gangs = [GangShape(2, **large), GangShape(3, cpu=1), GangShape(6, **large)]
    assert demand(gangs) == (Workers(1, 0, 0, None, 3), Workers(4, 1, 0, "H100", 8))
    assert demand(reversed(gangs)) == demand(gangs)


def test_nothing_is_asked_for_where_nothing_is_to_run():
    assert demand(()) == ()
