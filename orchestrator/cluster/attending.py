"""What the agent asks of whoever attends an attempt."""

from __future__ import annotations

from abc import ABC, abstractmethod

from orchestrator.core.observations import Observation
from orchestrator.core.orders import AttemptOrder


class Attending(ABC):
    """`order` is the newest one."""

    def __init__(self, order: AttemptOrder) -> None:
        self.order = order
        self._unacknowledged: list[Observation] = []

    @property
    def key(self) -> tuple[str, int]:
        return self.order.run_id, self.order.attempt

    @property
    def unacknowledged(self) -> tuple[Observation, ...]:
        return tuple(self._unacknowledged)

    @property
    def host_names(self) -> tuple[str, ...]:
        """The host actors that are its own."""
        return ()

    @property
    def starting(self) -> bool:
        """Its ranks have not done a step yet, as far as is known here, and are not over either."""
        return False

    @property
    def lends(self) -> bool:
        """Its ranks are held by a placement group that is not named as ours are."""
        return False

    @abstractmethod
    def update(self, order: AttemptOrder) -> None:
        """The server's newest word on the attempt."""

    @abstractmethod
    def acknowledge(self, seq: int) -> None:
        """The server keeps observations up to `seq`; 0: the oldest of those without a number."""

    @abstractmethod
    async def dismiss(self) -> None:
        """The server wants nothing of the attempt any more."""

    @abstractmethod
    async def leave(self) -> None:
        """The agent ends; what trains lives on."""
