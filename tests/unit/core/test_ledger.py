import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.ledger import Ledger, TimeClass, WorkerClock, add

CLASSES = st.sampled_from(list(TimeClass))
MOMENTS = st.integers(min_value=0, max_value=10**15)


@given(st.lists(st.tuples(CLASSES, MOMENTS)), MOMENTS, MOMENTS)
def test_the_parts_add_up_to_the_whole_whatever_the_clock_does(switches, start_ns, end_ns):
    clock = WorkerClock(TimeClass.STARTING, start_ns)
    latest = start_ns
    for time_class, at_ns in switches:
        clock = clock.switch(time_class, at_ns)
        latest = max(latest, at_ns)
    assert clock.at(end_ns).total_ns == max(latest, end_ns) - start_ns
    assert all(part >= 0 for part in clock.at(end_ns).ns.values())


@given(st.lists(st.tuples(CLASSES, MOMENTS), max_size=5), MOMENTS, MOMENTS, MOMENTS)
def test_declaring_a_worker_hung_moves_time_and_makes_none(switches, start_ns, last_sign_ns, now_ns):
    clock = WorkerClock(TimeClass.STARTING, start_ns)
    for time_class, at_ns in switches:
        clock = clock.switch(time_class, at_ns)
    end_ns = max(now_ns, clock.since_ns)
    before = clock.at(end_ns).total_ns
    assert clock.declare_hung(last_sign_ns, now_ns).at(end_ns).total_ns == before


def test_time_since_the_last_sign_of_a_hung_worker_is_not_training():
    clock = WorkerClock(TimeClass.TRAINING, 100).declare_hung(last_sign_ns=400, now_ns=1000)
    assert clock.at(1000).ns == {TimeClass.TRAINING: 300, TimeClass.HUNG: 600}


def test_ledgers_add_class_by_class():
    one = Ledger({TimeClass.TRAINING: 3, TimeClass.IDLE: 1})
    other = Ledger({TimeClass.TRAINING: 4})
    assert add([one, other]).ns == {TimeClass.TRAINING: 7, TimeClass.IDLE: 1}


def test_negative_time_is_refused():
    with pytest.raises(ValueError, match="cannot take -1 ns of idle"):
        Ledger().plus(TimeClass.IDLE, -1)


def test_goodput_is_the_share_of_training_and_unknown_before_any_time():
    assert Ledger().goodput is None
    assert Ledger({TimeClass.TRAINING: 1, TimeClass.STARTING: 3}).goodput == 0.25
