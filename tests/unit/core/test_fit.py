from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.scheduling.fit import Fits, GangShape, NeverFits, Waits, fit, reserve
from tests.builders import node


def ranks(answer) -> dict[str, int]:
    assert isinstance(answer, Fits), answer
    return {share.host: share.ranks for share in answer.shares}


def test_packing_takes_the_tightest_node_that_holds_the_whole_gang():
    assert ranks(fit(GangShape(workers=2), [node("a", cpu=8), node("b", cpu=2), node("c", cpu=4)])) == {"b": 2}


def test_packing_over_several_nodes_uses_as_few_as_possible():
    nodes = [node("a", cpu=1), node("b", cpu=4), node("c", cpu=2)]
    assert ranks(fit(GangShape(workers=6), nodes)) == {"b": 4, "c": 2}


def test_spreading_gives_every_node_a_worker_before_any_gets_two():
    nodes = [node("a", cpu=4), node("b", cpu=4), node("c", cpu=1)]
    assert ranks(fit(GangShape(workers=5, spread=True), nodes)) == {"a": 2, "b": 2, "c": 1}


def test_a_gang_larger_than_the_empty_cluster_never_fits_and_the_reason_says_what_there_is():
    answer = fit(GangShape(workers=5), [node("a", cpu=4, free_cpu=0)])
    assert isinstance(answer, NeverFits)
    assert "5 workers of 1 CPU asked" in answer.why
    assert "room for 4" in answer.why


def test_a_gang_that_only_waits_for_others_says_what_it_lacks():
    answer = fit(GangShape(workers=4), [node("a", cpu=4, free_cpu=3)])
    assert isinstance(answer, Waits)
    assert "room for 3 of 4 workers now" in answer.lacks


def test_memory_and_gpus_bound_a_node_as_cpus_do():
    assert isinstance(fit(GangShape(workers=2, memory=10), [node("a", memory=19)]), NeverFits)
    assert isinstance(fit(GangShape(workers=2, gpu=1), [node("a", gpu=1)]), NeverFits)


def test_only_nodes_with_the_asked_accelerator_count():
    nodes = [node("a", gpu=8, accelerator="A100"), node("b", gpu=8, accelerator="H100")]
    assert ranks(fit(GangShape(workers=2, gpu=1, accelerator="H100"), nodes)) == {"b": 2}
    assert isinstance(fit(GangShape(workers=1, gpu=1, accelerator="H200"), nodes), NeverFits)


NODES = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=1, max_size=6).map(
    lambda sizes: [node(chr(97 + i), cpu=cpu, free_cpu=min(cpu, free)) for i, (cpu, free) in enumerate(sizes)]
)


@given(NODES, st.integers(1, 20), st.integers(1, 3), st.booleans())
def test_a_placement_holds_every_worker_and_overloads_no_node(nodes, workers, cpu, spread):
    shape = GangShape(workers=workers, cpu=cpu, spread=spread)
    answer = fit(shape, nodes)
    room = sum(int(each.free_cpu // cpu) for each in nodes)
    assert isinstance(answer, Fits) == (room >= workers)
    if isinstance(answer, Fits):
        assert sum(share.ranks for share in answer.shares) == workers
        assert all(left.free_cpu >= 0 for left in reserve(nodes, shape, answer.shares))
