"""The service `Clusters`: where agents dial in, and what platform teams see of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing
from typing import Any

from orchestrator.api.attachment import Attachment, superseded
from orchestrator.api.auth import EVERY_PROJECT, caller
from orchestrator.api.log_intake import LogIntake
from orchestrator.api.parts import Parts, bad_request
from orchestrator.control.clusters import NewerAgent
from orchestrator.core.records import Cluster
from orchestrator.errors import Denied, NotFound
from orchestrator.protocol import convert
from orchestrator.protocol.v1.generated import evertrain_pb2 as pb
from orchestrator.protocol.v1.generated import evertrain_pb2_grpc as rpc

CHUNK_BYTES = 256 * 1024


class ClustersService(rpc.ClustersServicer):
    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._intake = LogIntake(parts)

    async def Attach(
        self, request_iterator: AsyncIterator[pb.AgentMessage], context: Any
    ) -> AsyncIterator[pb.ServerMessage]:
        first = await anext(aiter(request_iterator), None)
        if first is None or first.WhichOneof("what") != "hello" or not first.hello.cluster:
            raise bad_request(
                "hello", "something else", "the first message of an agent must be a hello with its cluster"
            )
        hello, project = first.hello, caller().token.project
        living = [(each.run_id, each.attempt) for each in hello.living]
        try:
            session = await self._parts.fleet.attach(
                hello.cluster, project, hello.epoch, hello.ray_version, living, autoscaling=hello.autoscaling
            )
        except NewerAgent as newer:
            yield superseded(newer)
            return
        attachment = Attachment(self._parts, session, project, autoscaling=hello.autoscaling)
        async with aclosing(attachment.converse(request_iterator)) as answers:
            async for answer in answers:
                yield answer

    async def ShipLogs(self, request_iterator: AsyncIterator[pb.LogBatch], context: Any) -> AsyncIterator[pb.LogAck]:
        project = caller().token.project
        async for batch in request_iterator:
            for ack in await self._intake.keep(batch, project):
                yield ack

    async def GetBundle(self, request: pb.Bundle, context: Any) -> AsyncIterator[pb.BundleChunk]:
        data = await self._parts.blocking(self._parts.bundles.get, caller().token.project, request.sha256)
        for start in range(0, len(data), CHUNK_BYTES):
            yield pb.BundleChunk(data=data[start : start + CHUNK_BYTES])

    async def List(self, request: pb.ListClustersRequest, context: Any) -> pb.ListClustersResponse:
        scope = caller().scope(request.project)
        return pb.ListClustersResponse(clusters=[self._message(each) for each in self._visible(scope)])

    async def Drain(self, request: pb.DrainRequest, context: Any) -> pb.Cluster:
        parts, who = self._parts, caller()
        found = next((each for each in self._visible(who.token.project) if each.name == request.cluster), None)
        if found is None:
            raise NotFound(f"no cluster {request.cluster!r}: `evertrain cluster list` shows those there are")
        if who.token.project not in (EVERY_PROJECT, found.project):
            raise Denied(
                f"cluster {found.name!r} serves every project: draining it needs an admin token of every project"
            )
        changed = await parts.blocking(
            parts.commands.drain, found.name, evict=request.evict, undo=request.undo, by=who.name
        )
        return self._message(changed)

    def _visible(self, project: str) -> Iterable[Cluster]:
        """The project's own clusters and those that serve every project."""
        clusters = self._parts.fleet.clusters.all()
        return [each for each in clusters if EVERY_PROJECT in (project, each.project) or each.project == project]

    def _message(self, cluster: Cluster) -> pb.Cluster:
        message = convert.to_proto(cluster, pb.Cluster)
        message.connected = self._parts.fleet.connected(cluster.name)
        message.running = len(self._parts.board.holdings(cluster.name))
        return message
