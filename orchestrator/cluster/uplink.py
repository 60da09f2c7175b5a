"""The agent's line to the server: dialled out, opened again whenever it breaks."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from orchestrator.cluster.channel import CHANNEL_OPTIONS
from orchestrator.cluster.epochs import OlderEpoch
from orchestrator.cluster.gang_messages import Superseded
from orchestrator.cluster.outgoing import Outgoing
from orchestrator.core.observations import Observation, Progress
from orchestrator.core.orders import AttemptOrder
from orchestrator.core.scheduling.demand import Workers
from orchestrator.core.scheduling.fit import Node
from orchestrator.errors import NotFound, Refused, Unavailable
from orchestrator.protocol.convert import from_proto
from orchestrator.protocol.v1.generated import evertrain_pb2 as pb
from orchestrator.protocol.v1.generated import evertrain_pb2_grpc as rpc

log = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 5.0
_FINAL = {
    grpc.StatusCode.UNAUTHENTICATED: "the server does not know this token",
    grpc.StatusCode.PERMISSION_DENIED: "this token may not attach the cluster",
    grpc.StatusCode.FAILED_PRECONDITION: "the server refuses this agent",
    grpc.StatusCode.UNIMPLEMENTED: "the server speaks another version",
}


class Uplink:
    """One for the agent's life. `hello`, `desired`, `acknowledged`, `demanded` and `welcomed` are called on the loop."""

    def __init__(
        self,
        server: str,
        token: str,
        *,
        ca_cert: Path | None,
        hello: Callable[[], pb.Hello],
        welcomed: Callable[[], Iterable[Observation]],
        desired: Callable[[tuple[AttemptOrder, ...]], None],
        acknowledged: Callable[[str, int, int], None],
        demanded: Callable[[tuple[Workers, ...]], None] = lambda workers: None,
    ) -> None:
        """`welcomed` answers what is to be told again on a fresh line."""
        self.metadata = (("authorization", f"Bearer {token}"),)
        self.channel = _open(server, ca_cert)
        stubs: Any = rpc
        self.stub = stubs.ClustersStub(self.channel)
        self._server = server
        self._hello, self._welcomed, self._desired, self._acknowledged = hello, welcomed, desired, acknowledged
        self._demanded = demanded
        self._outgoing: Outgoing | None = None
        self._nodes: tuple[Node, ...] | None = None
        self._was_welcome = False

    @property
    def connected(self) -> bool:
        return self._outgoing is not None

    async def run(self) -> None:
        """Stay attached. Raises Refused with the reason once the server wants this agent no more: Superseded for a newer
        one, OlderEpoch when it was never welcome.
        """
        pause_s = FIRST_PAUSE_S
        while True:
            began_s = asyncio.get_running_loop().time()
            try:
                await self._converse()
            except grpc.aio.AioRpcError as error:
                if error.code() in _FINAL:
                    raise Refused(f"{_FINAL[error.code()]}: {error.details()}") from None
                log.warning("no line to %s (%s): trying again; the gangs go on", self._server, error.details())
            except asyncio.CancelledError:
                if _asked_to_end():
                    raise
                log.exception("the line to %s was given up from inside: opening another; the gangs go on", self._server)
            finally:
                self._outgoing = None
            if asyncio.get_running_loop().time() - began_s > LONGEST_PAUSE_S:
                pause_s = FIRST_PAUSE_S
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(LONGEST_PAUSE_S, pause_s * 2)

    def observe(self, observation: Observation) -> None:
        """Send if there is a line; the caller keeps it until it is acknowledged and answers it to `welcomed`."""
        if self._outgoing is not None:
            self._outgoing.observe(observation)

    def progress(self, progress: Progress) -> None:
        """Send if there is a line, unless a newer one comes before this one is sent."""
        if self._outgoing is not None:
            self._outgoing.progress(progress)

    def inventory(self, nodes: Sequence[Node]) -> None:
        self._nodes = tuple(nodes)
        if self._outgoing is not None:
            self._outgoing.inventory(self._nodes)

    async def bundle(self, sha256: str) -> bytes:
        """Raises NotFound, Unavailable."""
        try:
            chunks = [each.data async for each in self.stub.GetBundle(pb.Bundle(sha256=sha256), metadata=self.metadata)]
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                raise NotFound(f"the server has no code bundle {sha256}") from None
            raise Unavailable(f"code bundle {sha256} cannot be fetched: {error.details()}") from None
        return b"".join(chunks)

    async def close(self) -> None:
        await self.channel.close()

    async def _converse(self) -> None:
        outgoing = Outgoing(self._hello(), self._nodes)
        self._outgoing = outgoing
        call = self.stub.Attach(outgoing.messages(), metadata=self.metadata)
        try:
            async for message in call:
                self._take(message, outgoing)
        finally:
            call.cancel()

    def _take(self, message: pb.ServerMessage, outgoing: Outgoing) -> None:
        match message.WhichOneof("what"):
            case "welcome":
                log.info("attached to %s", self._server)
                self._was_welcome = True
                outgoing.welcome(self._welcomed())
            case "desired":
                orders = (*message.desired.attempts, *message.desired.ahead)
                self._desired(tuple(from_proto(each, AttemptOrder) for each in orders))
            case "demand":
                self._demanded(tuple(from_proto(each, Workers) for each in message.demand.workers))
            case "ack":
                self._acknowledged(message.ack.run_id, message.ack.attempt, message.ack.seq)
            case "superseded":
                newer = message.superseded
                if not self._was_welcome:
                    raise OlderEpoch(newer.message, newer.epoch)
                raise Superseded(f"another agent has taken over: {newer.message}")
            case _:
                pass  # of a newer server; what this version needs, it has


def _asked_to_end() -> bool:
    """Whether somebody cancelled this task: grpc.aio raises the same error where a call's own requests failed."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _open(server: str, ca_cert: Path | None) -> grpc.aio.Channel:
    if ca_cert is None:
        return grpc.aio.insecure_channel(server, options=CHANNEL_OPTIONS)
    credentials = grpc.ssl_channel_credentials(ca_cert.read_bytes())
    return grpc.aio.secure_channel(server, credentials, options=CHANNEL_OPTIONS)
