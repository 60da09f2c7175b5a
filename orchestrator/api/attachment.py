"""One attached agent's conversation: observations up, each acknowledged once it is durable; desired state down.

Three tasks share a session. `_read` takes messages, `_keep` makes observations durable and acknowledges them, `_tell` sends
the desired state. A fourth, `_ask`, says what a cluster that grows would have to have. The queues between them are
bounded: an agent that sends faster than the store writes, or does not read
its answers, is simply not read from.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress

from orchestrator.api.auth import EVERY_PROJECT
from orchestrator.api.parts import Parts, bad_request, parse
from orchestrator.control.clusters import NewerAgent
from orchestrator.control.fleet import Session
from orchestrator.core.observations import Observation, Progress
from orchestrator.core.scheduling.fit import Node
from orchestrator.errors import NotFound
from orchestrator.protocol import convert
from orchestrator.protocol.v1.generated import evertrain_pb2 as pb

log = logging.getLogger(__name__)

QUEUED = 256
AT_ONCE = 100  # observations made durable together


def superseded(by: NewerAgent) -> pb.ServerMessage:
    return pb.ServerMessage(superseded=pb.Superseded(message=str(by), epoch=by.epoch))


class Attachment:
    def __init__(self, parts: Parts, session: Session, project: str, *, autoscaling: bool = False) -> None:
        self._parts = parts
        self._session = session
        self._project = project
        self._autoscaling = autoscaling
        self._observed: asyncio.Queue[Observation] = asyncio.Queue(QUEUED)
        self._answers: asyncio.Queue[pb.ServerMessage | None] = asyncio.Queue(QUEUED)

    async def converse(self, messages: AsyncIterator[pb.AgentMessage]) -> AsyncGenerator[pb.ServerMessage, None]:
        """Ends when the agent does, or with a Superseded when a newer one has attached. Raises what any task raised."""
        work = [self._read(messages), self._keep(), self._tell()]
        if self._autoscaling:
            work.append(self._ask())
        tasks = [asyncio.create_task(each, name=f"attach {self._session.cluster}") for each in work]
        for task in tasks:
            task.add_done_callback(lambda _: self._wake())
        try:
            yield pb.ServerMessage(welcome=pb.Welcome(server_id=self._parts.server_id))
            while not any(task.done() for task in tasks) or not self._answers.empty():
                answer = await self._answers.get()
                if answer is not None:
                    yield answer
            for task in tasks:
                if task.done():
                    task.result()
            if self._session.superseded is not None:
                yield superseded(self._session.superseded)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._session.close()

    def _wake(self) -> None:
        with suppress(asyncio.QueueFull):  # full: its reader is awake anyway
            self._answers.put_nowait(None)

    async def _read(self, messages: AsyncIterator[pb.AgentMessage]) -> None:
        async for message in messages:
            match message.WhichOneof("what"):
                case "inventory":
                    await self._session.inventory(tuple(parse(node, Node) for node in message.inventory.nodes))
                case "observation":
                    await self._observed.put(parse(message.observation, Observation))
                case "progress":
                    progress = parse(message.progress, Progress)
                    if await self._is_mine(progress.run_id, progress.attempt):
                        self._session.progress(progress)
                case "hello":
                    raise bad_request("hello", "a second one", "an agent says hello once: open another stream")
                case _:
                    raise bad_request("what", "nothing that this version knows", "the agent is newer than the server")
        await self._observed.join()

    async def _keep(self) -> None:
        while True:
            some = [await self._observed.get()]
            while len(some) < AT_ONCE and not self._observed.empty():
                some.append(self._observed.get_nowait())
            await self._session.observe([each for each in some if await self._is_mine(each.run_id, each.attempt)])
            for each in some:
                ack = pb.Ack(run_id=each.run_id, attempt=each.attempt, seq=each.seq)
                await self._answers.put(pb.ServerMessage(ack=ack))
                self._observed.task_done()

    async def _tell(self) -> None:
        async for orders in self._session.desired():
            desired = pb.Desired()
            for each in orders:
                try:
                    (desired.ahead if each.ahead else desired.attempts).append(convert.to_proto(each, pb.AttemptOrder))
                except (ValueError, TypeError) as error:  # one run must not cut its cluster off from all others
                    await self._session.give_up(each, f"{type(error).__name__}: {error}")
            await self._answers.put(pb.ServerMessage(desired=desired))

    async def _ask(self) -> None:
        async for workers in self._session.demand():
            demand = pb.Demand(workers=[convert.to_proto(each, pb.Worker) for each in workers])
            await self._answers.put(pb.ServerMessage(demand=demand))

    async def _is_mine(self, run_id: str, attempt: int) -> bool:
        """Whether the attempt was placed on this cluster: an agent speaks for nothing else."""
        held = self._parts.board.holding(run_id)
        if held is not None and (held.attempt, held.cluster) == (attempt, self._session.cluster):
            return self._project in (EVERY_PROJECT, held.project)
        try:
            run = await self._parts.blocking(self._parts.store.run, self._project, run_id)
        except NotFound:
            run = None
        placed = run.attempts if run is not None and run.id == run_id else ()
        if any(each.number == attempt and each.cluster == self._session.cluster for each in placed):
            return True
        log.warning(
            "cluster %s speaks for run %s attempt %d, which it never got", self._session.cluster, run_id, attempt
        )
        return False
