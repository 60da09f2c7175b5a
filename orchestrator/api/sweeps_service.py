"""The service `Sweeps`: what people see of them, and what their drivers ask for."""

from __future__ import annotations

import json
from typing import Any

from orchestrator.api.auth import caller
from orchestrator.api.parts import Parts, bad_request
from orchestrator.control.sweeps import StartTrial
from orchestrator.core.records import RunFilter
from orchestrator.protocol.sweeps import sweep_message
from orchestrator.protocol.v1.generated import evertrain_pb2 as pb
from orchestrator.protocol.v1.generated import evertrain_pb2_grpc as rpc

MAX_PAGE = 1000
MAX_TRIALS = 1_000_000
POINT_BYTES = 64 * 1024


class SweepsService(rpc.SweepsServicer):
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def List(self, request: pb.ListSweepsRequest, context: Any) -> pb.ListSweepsResponse:
        parts = self._parts
        if not 0 <= request.page_size <= MAX_PAGE:
            raise bad_request("page_size", request.page_size, f"must be 1 to {MAX_PAGE}, or 0 for the default of 100")
        where = RunFilter(caller().scope(request.project), kind="sweep")
        page = await parts.blocking(parts.store.runs, where, page=request.page, limit=request.page_size or 100)
        return pb.ListSweepsResponse(sweeps=parts.summaries(page.runs), next_page=page.next_page)

    async def Get(self, request: pb.GetSweepRequest, context: Any) -> pb.Sweep:
        parts = self._parts
        found = await parts.blocking(parts.sweeps.get, caller().scope(request.project), _named(request.sweep))
        return sweep_message(found)

    async def StartTrial(self, request: pb.StartTrialRequest, context: Any) -> pb.Run:
        parts, who = self._parts, caller()
        sweep = await parts.blocking(parts.sweeps.find, who.scope(request.project), _named(request.sweep))
        if not 0 <= request.trial < MAX_TRIALS or request.generation < 0:
            raise bad_request("trial", f"{request.trial}, {request.generation}", "counts from 0")
        wish = StartTrial(
            sweep=sweep.id,
            attempt=request.attempt,
            trial=request.trial,
            generation=request.generation,
            point=_point(request.point_json),
            by=who.name,
            start=request.start,
            reason=request.reason[:1000],
        )
        run = await parts.blocking(parts.sweeps.start_trial, sweep.project, wish)
        return parts.summary(run)

    async def Stop(self, request: pb.StopSweepRequest, context: Any) -> pb.Run:
        parts, who = self._parts, caller()
        scope, message = who.scope(request.project), request.reason[:1000]
        stopped = await parts.blocking(parts.sweeps.stop, scope, _named(request.sweep), by=who.name, message=message)
        return await parts.blocking(parts.detail, stopped)


def _named(sweep: str) -> str:
    if not sweep:
        raise bad_request("sweep", sweep, "the id or the name of a sweep is needed")
    return sweep


def _point(text: str) -> dict[str, Any]:
    if len(text) > POINT_BYTES:
        raise bad_request("point_json", f"{len(text)} characters", f"must have at most {POINT_BYTES}")
    try:
        point = json.loads(text)
    except ValueError as error:
        raise bad_request("point_json", text[:80], f"must be JSON: {error}") from None
    if not isinstance(point, dict) or not all(
        value is None or isinstance(value, str | bool | int | float) for value in point.values()
    ):
        raise bad_request("point_json", text[:80], "must map paths to plain values")
    return point
