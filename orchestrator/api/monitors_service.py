"""The service `Monitors`: live traffic of models."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from orchestrator.api.observation_intake import KnownVersions, ObservationIntake
from orchestrator.api.parts import Parts
from orchestrator.protocol.v1.generated import evertrain_pb2 as pb
from orchestrator.protocol.v1.generated import evertrain_pb2_grpc as rpc


class MonitorsService(rpc.MonitorsServicer):
    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._versions = KnownVersions(parts)

    async def Observe(
        self, request_iterator: AsyncIterator[pb.ObserveRequest], context: Any
    ) -> AsyncIterator[pb.ObserveReply]:
        intake = ObservationIntake(self._parts, self._versions)
        async with aclosing(intake.converse(request_iterator)) as replies:
            async for reply in replies:
                yield reply
