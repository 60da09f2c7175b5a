"""What may be asked of a run's ranks, and what becomes of the question."""

from dataclasses import replace

import pytest

from orchestrator.core import inspections, lifecycle
from orchestrator.core import observations as seen
from orchestrator.core.inspections import MOST_AT_ONCE, MOST_RANKS, Question
from orchestrator.core.lifecycle import Ignored, Transition
from orchestrator.core.runs import Budgets, Inspection, Run
from tests.builders import attempt_ended, changed, hear, observe, placed_run, queued_run

STACKS = Question("q-1", "stacks")


def running(world_size: int = 2) -> Run:
    return hear(hear(placed_run(), seen.IncarnationStarted(1, world_size), seq=1), seen.FirstStep(1, 1), seq=2)


def asked(run: Run, question: Question = STACKS) -> Run:
    inspection = inspections.admit(run, question, by="ada", now=1030.0)
    assert isinstance(inspection, Inspection), inspection
    return changed(lifecycle.inspect(run, inspection))


def answer(rank: int, inspection: str = "q-1") -> seen.Inspected:
    return seen.Inspected(inspection, rank, True, f"rank {rank} on alpha: its stacks", "Thread 1")


def orders(run: Run) -> list[tuple[str, tuple[int, ...]]]:
    order = lifecycle.order(run, checkpoint_root="/c", budgets=Budgets(), secrets={}, remaining_s=None)
    assert order is not None
    return [(each.id, each.ranks) for each in order.inspections]


def test_a_question_goes_to_every_rank_unless_it_names_some():
    assert orders(asked(running())) == [("q-1", (0, 1))]
    assert orders(asked(running(), replace(STACKS, ranks=(1, 1)))) == [("q-1", (1,))]


def test_the_same_question_twice_is_one():
    run = asked(running())
    assert isinstance(lifecycle.inspect(run, run.inspections[0]), Ignored)


def test_each_rank_answers_once_and_then_nothing_is_ordered_any_more():
    run = asked(running())
    first = observe(run, answer(1), seq=3)
    assert isinstance(first, Transition)
    assert [each.message for each in first.events] == ["rank 1 on alpha: its stacks"]
    assert first.events[0].data == {
        "inspection": "q-1",
        "kind": "stacks",
        "ranks": [1],
        "ok": True,
        "text": "Thread 1",
        "trace": None,
    }
    assert orders(first.run) == [("q-1", (0,))]
    assert isinstance(observe(first.run, answer(1), seq=4), Ignored)
    assert orders(hear(first.run, answer(0), seq=4)) == []


def test_an_answer_to_an_unknown_question_changes_nothing():
    assert isinstance(observe(asked(running()), answer(0, "another"), seq=3), Ignored)


@pytest.mark.parametrize("outcome", ["succeeded", "preempted", "lost"])
def test_the_end_of_the_attempt_tells_those_who_still_wait(outcome):
    run = hear(asked(running()), answer(0), seq=3)
    ended = observe(run, attempt_ended(outcome), seq=4)
    assert isinstance(ended, Transition)
    told, *_ = ended.events
    assert (told.kind, told.data["ranks"], told.data["ok"]) == ("inspected", [1], False)
    assert "its attempt is over" in told.message
    assert ended.run.inspections == ()


def test_what_nobody_answers_in_time_is_told_and_forgotten():
    run = asked(running())
    over = lifecycle.give_up_inspections(run, ["q-1"], 1200.0)
    assert isinstance(over, Transition)
    assert [each.data["ranks"] for each in over.events] == [[0, 1]]
    assert over.run.inspections == ()
    assert isinstance(lifecycle.give_up_inspections(over.run, ["q-1"], 1201.0), Ignored)


def test_what_was_answered_is_forgotten_without_a_word():
    run = hear(hear(asked(running()), answer(0), seq=3), answer(1), seq=4)
    over = lifecycle.give_up_inspections(run, ["q-1"], 1200.0)
    assert isinstance(over, Transition)
    assert over.events == ()


def test_a_profile_has_steps_and_more_time():
    run = asked(running(), Question("q-2", "profile", (0,)))
    assert [(each.steps, each.within_s) for each in run.inspections] == [(5, 300.0)]


def many_open() -> Run:
    run = running()
    for number in range(MOST_AT_ONCE):
        run = asked(run, replace(STACKS, id=f"q-{number}"))
    return run


@pytest.mark.parametrize(
    ("run", "question", "words"),
    [
        (queued_run(), STACKS, "no rank of digits has been started yet: it is QUEUED: submitted by ada"),
        (placed_run(), STACKS, "no rank of digits has been started yet: it is STARTING"),
        (hear(running(), attempt_ended("succeeded"), seq=3), STACKS, "digits has ended (SUCCEEDED)"),
        (replace(running(), kind="sweep"), STACKS, "digits is a sweep, which has no ranks"),
        (changed(lifecycle.cancel(running(), by="ada", message="", now=1.0)), STACKS, "digits is being stopped"),
        (running(), replace(STACKS, ranks=(0, 2)), "there is no rank 2: digits has ranks 0 to 1"),
        (running(1), replace(STACKS, ranks=(1,)), "there is no rank 1: digits has rank 0 only"),
        (running(MOST_RANKS + 1), STACKS, "65 ranks are asked for, at most 64 at once"),
        (replace(running(), spec={"launcher": "ray_train"}), Question("q", "profile"), "runs under Ray Train"),
        (many_open(), replace(STACKS, id="one more"), "8 questions to this run are open"),
    ],
)
def test_what_cannot_be_looked_at_is_refused_with_the_reason(run, question, words):
    refused = inspections.admit(run, question, by="ada", now=1030.0)
    assert isinstance(refused, str)
    assert refused.startswith(words) or words in refused
