"""Advantages, and what an epoch collects."""

from __future__ import annotations

import pytest
import torch

from trainers.tasks.policy import Rollout, advantages


def test_advantages_sum_discounted_surprises_up_to_an_episodes_end() -> None:
    rewards = torch.tensor([[1.0], [1.0], [1.0], [1.0]])
    values = torch.tensor([[2.0], [3.0], [4.0], [5.0]])
    following = torch.tensor([[3.0], [0.0], [5.0], [6.0]])  # the second step ended the episode
    goes_on = torch.tensor([[True], [False], [True], [True]])
    estimated = advantages(rewards, values, following, goes_on=goes_on, discount=0.5, smoothing=0.5)
    last = 1 + 0.5 * 6 - 5
    third = (1 + 0.5 * 5 - 4) + 0.25 * last
    second = 1 - 3
    first = (1 + 0.5 * 3 - 2) + 0.25 * second
    assert estimated.flatten().tolist() == pytest.approx([first, second, third, last])


def test_a_cut_episode_counts_on_what_would_have_followed_but_not_on_the_next_episode() -> None:
    ones = torch.ones(2, 1)
    cut = torch.tensor([[False], [True]])
    estimated = advantages(ones, 0 * ones, 10 * ones, goes_on=cut, discount=1.0, smoothing=1.0)
    assert estimated.flatten().tolist() == [11.0, 11.0]


def test_every_transition_is_seen_once_a_pass() -> None:
    rollout = Rollout(transitions=4, passes=3, columns={"rewards": torch.arange(4.0)})
    seen = rollout.take(torch.arange(len(rollout)).numpy())["rewards"]
    assert sorted(seen.tolist()) == sorted([0.0, 1.0, 2.0, 3.0] * 3)
