"""What a gang's coordinator remembers of what its ranks said."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.cluster.gang_messages import RankView
from orchestrator.cluster.gang_story import GangStory
from orchestrator.cluster.outbox import Outbox
from orchestrator.core.observations import AttemptEnded, RankProgress
from orchestrator.core.orders import AttemptOrder
from orchestrator.core.runs import NodeShare
from trainers import contract


def story(directory: Path, *, sealed_before: bool = False, told_ranks: int = 0) -> GangStory:
    share = NodeShare("node-1", "host-1", "10.0.0.1", 2)
    order = AttemptOrder(
        "run-1",
        "default",
        "run",
        2,
        (share,),
        {},
        "/checkpoints",
        sealed_before=sealed_before,
        told_ranks=told_ranks,
    )
    return GangStory(order, Outbox(directory, "run-1", 2))


def sealed(step: int) -> contract.Sealed:
    return contract.Sealed(f"/checkpoints/{step}", step, 1, 0.1, 0.1)


def test_the_newest_seal_is_remembered_for_the_next_incarnation(tmp_path: Path) -> None:
    told = story(tmp_path)
    assert told.sealed_step is None
    for step in (3, 9, 6):
        told.said(0, sealed(step))
    assert told.sealed_step == 9


def test_seals_of_earlier_attempts_are_known_without_their_step(tmp_path: Path) -> None:
    assert story(tmp_path, sealed_before=True).sealed_step == 0


async def test_what_must_be_known_of_a_result_is_in_the_words_of_the_end(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, "run-1", 2)
    share = NodeShare("node-1", "host-1", "10.0.0.1", 2)
    told = GangStory(AttemptOrder("run-1", "default", "run", 2, (share,), {}, "/checkpoints"), outbox)
    told.succeeded(contract.Done(9, note="the best checkpoint is damaged"))
    assert told.furthest_step == 9
    (end,) = await outbox.wait_after(0, 1.0)
    assert isinstance(end.what, AttemptEnded)
    assert end.what.reason.message == "finished at step 9; the best checkpoint is damaged"


@pytest.mark.parametrize(("asked", "told"), [(0, []), (2, [0]), (9, [0, 3])])
async def test_ranks_that_live_are_told_of_one_by_one_as_far_as_the_order_asks(
    tmp_path: Path, asked: int, told: list[int]
) -> None:
    gang = story(tmp_path, told_ranks=asked)
    step = contract.Step(step=7, epoch=0, at_ns=0, step_s=0.5)
    alive = {0: step, 1: None, 3: None}
    gang.look(
        [RankView(rank, rank != 1, True, "training", 0.25, step is not None, step) for rank, step in alive.items()]
    )
    progress = (await gang.report(0, 0, 0.0)).progress
    assert progress is not None
    assert [each.rank for each in progress.ranks] == told
    assert (RankProgress(0, 7, 0.5, 0.25) in progress.ranks) == bool(told)
