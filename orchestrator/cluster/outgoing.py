"""What waits for the line to the server. It never overflows and drops nothing that matters: the line takes as it can.

Observations are references to what their attendants keep until it is acknowledged; of progress and inventory only the
newest counts. So a server that is slow, or a long time away, costs no more memory than is in use anyway.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence

from orchestrator.core.observations import Observation, Progress
from orchestrator.core.scheduling.fit import Node
from orchestrator.protocol.convert import to_proto
from orchestrator.protocol.v1.generated import evertrain_pb2 as pb

log = logging.getLogger(__name__)

_Told = tuple[Node, ...] | Progress | Observation


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
            what = self._take()
            if what is None:
                self._news.clear()
                await self._news.wait()
            elif (message := _encoded(what)) is not None:
                yield message

    def _take(self) -> _Told | None:
        if self._nodes is not None:  # also the heartbeat: it waits for no backlog
            nodes, self._nodes = self._nodes, None
            return tuple(nodes)
        if self._progress and not self._observations:
            return self._progress.pop(next(iter(self._progress)))
        return self._observations.popleft() if self._observations else None


def _encoded(what: _Told) -> pb.AgentMessage | None:
    """None, and a word in the log, for what the wire cannot hold: to raise would end the line, and the next one as well."""
    try:
        match what:
            case Observation():
                return pb.AgentMessage(observation=to_proto(what, pb.Observation))
            case Progress():
                return pb.AgentMessage(progress=to_proto(what, pb.Progress))
            case nodes:
                return pb.AgentMessage(inventory=pb.Inventory(nodes=[to_proto(node, pb.Node) for node in nodes]))
    except (ValueError, TypeError) as error:
        log.error("not told to the server, for the wire cannot hold it (%s): %.1000r", error, what)
        return None
