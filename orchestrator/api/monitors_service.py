"""The service `Monitors`: live traffic of models, and what is judged of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from orchestrator.api.auth import caller
from orchestrator.api.decision_calls import DecisionCalls
from orchestrator.api.observation_intake import KnownVersions, ObservationIntake
from orchestrator.api.pages import page_of
from orchestrator.api.parts import Parts, bad_request
from orchestrator.core.monitors import Watched
from orchestrator.protocol import convert
from orchestrator.protocol.v1.generated import evertrain_pb2 as pb
from orchestrator.protocol.v1.generated import evertrain_pb2_grpc as rpc

MOST_JUDGEMENTS = 1000


class MonitorsService(DecisionCalls, rpc.MonitorsServicer):
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

    async def List(self, request: pb.ListMonitorsRequest, context: Any) -> pb.ListMonitorsResponse:
        found = await self._parts.blocking(self._parts.monitors.watched, caller().scope(request.project))
        shown, following = page_of(found, lambda each: f"{each.project}/{each.model}", request.page)
        return pb.ListMonitorsResponse(monitors=[_message(each) for each in shown], next_page=following)

    async def Get(self, request: pb.GetMonitorRequest, context: Any) -> pb.Watched:
        scope, model = caller().scope(request.project), _named(request.model)
        return _message(await self._parts.blocking(self._parts.monitors.get, scope, model))

    async def Judgements(self, request: pb.JudgementsRequest, context: Any) -> pb.JudgementsResponse:
        if not 0 <= request.limit <= MOST_JUDGEMENTS:
            raise bad_request("limit", request.limit, f"must be 1 to {MOST_JUDGEMENTS}, or 0 for the default of 100")
        scope, model = caller().scope(request.project), _named(request.model)
        read = self._parts.monitors.judgements
        found = await self._parts.blocking(read, scope, model, below=request.below or None, limit=request.limit or 100)
        return pb.JudgementsResponse(judgements=[convert.to_proto(each, pb.Judgement) for each in found])

    async def Pause(self, request: pb.PauseMonitorRequest, context: Any) -> pb.Watched:
        who = caller()
        scope, model, reason = who.scope(request.project), _named(request.model), request.reason[:1000]
        pause = self._parts.monitors.pause
        return _message(await self._parts.blocking(pause, scope, model, by=who.name, reason=reason))

    async def Resume(self, request: pb.GetMonitorRequest, context: Any) -> pb.Watched:
        scope, model = caller().scope(request.project), _named(request.model)
        return _message(await self._parts.blocking(self._parts.monitors.resume, scope, model))


def _named(model: str) -> str:
    if not model:
        raise bad_request("model", model, "the name of a model is needed")
    return model


def _message(watched: Watched) -> pb.Watched:
    return convert.to_proto(watched, pb.Watched)
