"""A policy over discrete actions and the value of a state, as two small networks side by side."""

from __future__ import annotations

import math

import torch
from torch import nn


class ActorCritic(nn.Module):
    """Orthogonal weights; the policy begins near uniform. Takes observations on any device and in any precision."""

    def __init__(self, *, observations: int, actions: int, width: int) -> None:
        super().__init__()
        self.policy = _network(observations, width, actions, gain=0.01)
        self.value = _network(observations, width, 1, gain=1.0)

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """`observations` [batch, observations]; [batch, actions + 1]: a logit for each action and, last, the value."""
        x = observations.to(next(self.value.parameters()))
        return torch.cat([self.policy(x), self.value(x)], dim=1)


def _network(inputs: int, width: int, outputs: int, gain: float) -> nn.Sequential:
    layers = (nn.Linear(inputs, width), nn.Linear(width, width), nn.Linear(width, outputs))
    for layer, its_gain in zip(layers, (math.sqrt(2), math.sqrt(2), gain), strict=True):
        nn.init.orthogonal_(layer.weight, its_gain)
        nn.init.zeros_(layer.bias)
    first, second, head = layers
    return nn.Sequential(first, nn.Tanh(), second, nn.Tanh(), head)
