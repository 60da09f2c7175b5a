"""Which step and which samples are told when a loss is no number."""

from __future__ import annotations

import math

import torch

from trainers.bad_loss import RecentLosses
from trainers.data.sampler import Sampler
from trainers.layout import BatchPlan, Degrees
from trainers.parallel import Place

ALONE = Place(0, 1, Degrees())
PLAN = BatchPlan(global_batch=8, micro_batch=2, accumulation=4, data=1)


def losses(*values: float) -> list[torch.Tensor]:
    return [torch.tensor(each) for each in values]


def test_the_first_bad_step_since_the_ranks_agreed_is_told_with_the_samples_of_its_micro_batches() -> None:
    sampler, recent = Sampler(64, 8, seed=1), RecentLosses()
    recent.add(1, 0, losses(math.nan, 1, 1, 1))
    recent.clear()  # the ranks agreed on something else: that step is no longer known
    recent.add(2, 8, losses(1, 1, 1, 1))
    recent.add(3, 16, losses(1, math.inf, 1, math.nan))
    recent.add(4, 24, losses(*[math.nan] * 4))
    message = str(recent.explain(sampler, PLAN, ALONE))
    batch = sampler.batch(16).tolist()
    samples = sorted([*batch[2:4], *batch[6:8]])
    assert message.startswith(f"the loss became inf at step 3, on sample ids {', '.join(map(str, samples))}:")
    assert "whole batch" not in message


def test_a_whole_batch_without_a_number_points_at_the_update_before() -> None:
    recent = RecentLosses()
    recent.add(3, 16, losses(*[math.nan] * 4))
    message = str(recent.explain(Sampler(64, 8, seed=1), PLAN, ALONE))
    assert message.endswith("It was the whole batch: the update of step 2 may have spoilt the weights")


def test_of_a_large_batch_a_hundred_samples_are_in_the_message_and_all_in_the_log(capsys) -> None:
    recent = RecentLosses()
    recent.add(1, 0, losses(math.nan))
    plan = BatchPlan(global_batch=256, micro_batch=256, accumulation=1, data=1)
    message = str(recent.explain(Sampler(256, 256, seed=1), plan, ALONE))
    assert "98, 99 and 156 more (all are in rank 0's log)" in message
    assert str(list(range(256))) in capsys.readouterr().out
