"""Of the service `Monitors`: decisions on retraining, and what people say to them."""

from __future__ import annotations

from typing import Any

from orchestrator.api.auth import caller
from orchestrator.api.parts import Parts, bad_request
from orchestrator.protocol.decisions import decision_message
from orchestrator.protocol.v1.generated import evertrain_pb2 as pb

MAX_PAGE = 1000
REASON_CHARS = 1000
KEY_CHARS = 200


class DecisionCalls:
    """A part of the servicer: the generated class wants all methods in one."""

    _parts: Parts

    async def Decisions(self, request: pb.DecisionsRequest, context: Any) -> pb.DecisionsResponse:
        parts, scope = self._parts, caller().scope(request.project)
        if not 0 <= request.page_size <= MAX_PAGE:
            raise bad_request("page_size", request.page_size, f"must be 1 to {MAX_PAGE}, or 0 for the default of 100")
        if request.page and not request.page.isdecimal():
            raise bad_request("page", request.page, "use the next_page of an earlier answer, or leave it empty")
        size = min(request.page_size or 100, MAX_PAGE - 1)  # one more is asked for, to see whether there is one
        monitor = await parts.blocking(parts.store.monitor, scope, _named(request.model))
        below = int(request.page) if request.page else None
        found = await parts.blocking(parts.store.decisions, monitor.project, monitor.model, below=below, limit=size + 1)
        shown = found[:size]
        return pb.DecisionsResponse(
            decisions=[decision_message(each) for each in shown],
            next_page=str(shown[-1].number) if len(found) > len(shown) else "",
        )

    async def Retrain(self, request: pb.RetrainRequest, context: Any) -> pb.RetrainingDecision:
        parts, who = self._parts, caller()
        scope, model = who.scope(request.project), _named(request.model)
        if not 0 < len(request.idempotency_key) <= KEY_CHARS:
            raise bad_request("idempotency_key", request.idempotency_key, f"is needed, at most {KEY_CHARS} characters")
        record = await parts.blocking(
            parts.retraining.retrain,
            scope,
            model,
            by=who.name,
            reason=request.reason[:REASON_CHARS],
            key=request.idempotency_key,
        )
        return decision_message(record)

    async def Approve(self, request: pb.AnswerRequest, context: Any) -> pb.RetrainingDecision:
        parts, who = self._parts, caller()
        scope, model = who.scope(request.project), _named(request.model)
        record = await parts.blocking(parts.retraining.approve, scope, model, request.number, by=who.name)
        return decision_message(record)

    async def Reject(self, request: pb.AnswerRequest, context: Any) -> pb.RetrainingDecision:
        parts, who = self._parts, caller()
        scope, model, reason = who.scope(request.project), _named(request.model), request.reason[:REASON_CHARS]
        record = await parts.blocking(parts.retraining.reject, scope, model, request.number, by=who.name, reason=reason)
        return decision_message(record)


def _named(model: str) -> str:
    if not model:
        raise bad_request("model", model, "the name of a watched model is needed")
    return model
