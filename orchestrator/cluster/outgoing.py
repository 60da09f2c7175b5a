"""What waits for the line to the server. It never overflows and drops nothing that matters: the line takes as it can.

Observations are references to what their attendants keep until it is acknowledged; of progress and inventory only the
newest counts. So a server that is slow, or a long time away, costs no more memory than is in use anyway.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence

from orchestrator.core.observations import Observation, Progress
from orchestrator.core.scheduling.fit import Node
from orchestrator.protocol.convert import to_proto
from orchestrator.protocol.v1.generated import evertrain_pb2 as pb


class Outgoing:
    """One for each connection; for one event loop."""

    def __init__(self, hello: pb.Hello, nodes: Sequence[Node] | None) -> None:
        self._hello = hello
        self._nodes = nodes
        self._progress: dict[tuple[str, int], Progress] = {}
        self._observations: deque[Observation] = deque()
        self._welcomed = False
        self._news = asyncio.Event()

    def welcome(self, backlog: Iterable[Observation]) -> None:
        """The server listens: tell it `backlog` first, all that is not acknowledged."""
        self._welcomed = True
        self._observations.extend(backlog)
        self._news.set()

    def observe(self, observation: Observation) -> None:
        """Does nothing before `welcome`: the observation is in the backlog then, and must not overtake what is older."""
        if self._welcomed:
            self._observations.append(observation)
            self._news.set()

    def progress(self, progress: Progress) -> None:
        self._progress[progress.run_id, progress.attempt] = progress
        self._news.set()

    def inventory(self, nodes: Sequence[Node]) -> None:
        self._nodes = nodes
        self._news.set()

    async def messages(self) -> AsyncIterator[pb.AgentMessage]:
        """For ever. What takes them sets the pace."""
        yield pb.AgentMessage(hello=self._hello)
        while True:
            message = self._next()
            if message is not None:
                yield message
            else:
                self._news.clear()
                await self._news.wait()

    def _next(self) -> pb.AgentMessage | None:
        if self._nodes is not None:  # also the heartbeat: it waits for no backlog
            nodes, self._nodes = self._nodes, None
            return pb.AgentMessage(inventory=pb.Inventory(nodes=[to_proto(node, pb.Node) for node in nodes]))
        if self._progress and not self._observations:
            return pb.AgentMessage(progress=to_proto(self._progress.pop(next(iter(self._progress))), pb.Progress))
        if self._observations:
            return pb.AgentMessage(observation=to_proto(self._observations.popleft(), pb.Observation))
        return None
