"""The service `Runs`: submit, look, watch, cancel, inspect ranks, read logs."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, Literal

from orchestrator.api.auth import caller
from orchestrator.api.parts import Parts, bad_request
from orchestrator.api.run_feed import RunFeed
from orchestrator.api.run_history import checkpoints_page, events_page
from orchestrator.api.run_logs import RunLogs
from orchestrator.control.commands import MAX_BATCH, SubmitCommand
from orchestrator.core.inspections import DEFAULT_STEPS, MOST_STEPS, MOST_WITHIN_S, Question
from orchestrator.core.records import LogQuery, RunFilter
from orchestrator.core.runs import STATE_NAMES
from orchestrator.errors import TooLarge
from orchestrator.ports import Submitted
from orchestrator.protocol import convert
from orchestrator.protocol.v1.generated import evertrain_pb2 as pb
from orchestrator.protocol.v1.generated import evertrain_pb2_grpc as rpc

MAX_PAGE = 1000
_UPLOADS = 4  # at a time: each holds a whole bundle in memory
_KEY = re.compile(r"[\x21-\x7e]{1,200}")


class RunsService(rpc.RunsServicer):
    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._uploads = asyncio.Semaphore(_UPLOADS)

    async def Submit(self, request: pb.SubmitRequest, context: Any) -> pb.SubmitResponse:
        parts = self._parts
        answers = await parts.blocking(parts.commands.submit, [self._command(request)])
        return self._submitted(answers[0])

    async def SubmitBatch(self, request: pb.SubmitBatchRequest, context: Any) -> pb.SubmitBatchResponse:
        parts = self._parts
        if len(request.submissions) > MAX_BATCH:
            raise TooLarge(
                f"{len(request.submissions)} submissions in one batch, at most {MAX_BATCH}: send several batches"
            )
        if not request.submissions:
            raise bad_request("submissions", "none", "a batch needs at least one submission")
        commands = [self._command(each) for each in request.submissions]
        answers = await parts.blocking(parts.commands.submit, commands)
        return pb.SubmitBatchResponse(results=[self._submitted(each) for each in answers])

    async def Plan(self, request: pb.PlanRequest, context: Any) -> pb.PlanResponse:
        parts = self._parts
        self._check_size(request.spec)
        plan = await parts.blocking(parts.commands.plan, caller().target(request.project), request.spec)
        answer = convert.to_proto(plan, pb.PlanResponse)
        answer.spec_json = convert.dump_spec(plan.spec)
        return answer

    async def Get(self, request: pb.GetRunRequest, context: Any) -> pb.Run:
        run = await self._parts.find_run(request.run, request.project)
        return await self._parts.blocking(self._parts.detail, run)

    async def List(self, request: pb.ListRunsRequest, context: Any) -> pb.ListRunsResponse:
        parts = self._parts
        if not 0 <= request.page_size <= MAX_PAGE:
            raise bad_request("page_size", request.page_size, f"must be 1 to {MAX_PAGE}, or 0 for the default of 100")
        states = tuple(state.upper() for state in request.states)
        for state in states:
            if state not in STATE_NAMES:
                raise bad_request("states", state, f"must be one of {', '.join(STATE_NAMES)}")
        if request.kind not in ("", "run", "sweep", "trial"):
            raise bad_request("kind", request.kind, "must be run, sweep or trial")
        scope = caller().scope(request.project)
        asked = request.name_prefix, request.queue, request.kind, request.sweep, request.without_trials
        where = RunFilter(scope, states, *asked)
        page = await parts.blocking(parts.store.runs, where, page=request.page, limit=request.page_size or 100)
        return pb.ListRunsResponse(runs=parts.summaries(page.runs), next_page=page.next_page)

    async def Watch(self, request: pb.WatchRunRequest, context: Any) -> AsyncIterator[pb.RunUpdate]:
        run = await self._parts.find_run(request.run, request.project)
        async with aclosing(RunFeed(self._parts, run, request.after_event).updates()) as updates:
            async for update in updates:
                yield update

    async def Cancel(self, request: pb.CancelRunRequest, context: Any) -> pb.Run:
        parts, who = self._parts, caller()
        run = await parts.find_run(request.run, request.project)
        changed = await parts.blocking(
            parts.commands.cancel, run.project, run.id, by=who.name, message=request.reason[:1000]
        )
        return await parts.blocking(parts.detail, changed)

    async def Pause(self, request: pb.PauseRunRequest, context: Any) -> pb.Run:
        parts, who = self._parts, caller()
        run = await parts.find_run(request.run, request.project)
        changed = await parts.blocking(
            parts.commands.pause, run.project, run.id, by=who.name, message=request.reason[:1000]
        )
        return await parts.blocking(parts.detail, changed)

    async def Resume(self, request: pb.ResumeRunRequest, context: Any) -> pb.Run:
        parts, who = self._parts, caller()
        run = await parts.find_run(request.run, request.project)
        changed = await parts.blocking(parts.commands.resume, run.project, run.id, by=who.name)
        return await parts.blocking(parts.detail, changed)

    async def Inspect(self, request: pb.InspectRequest, context: Any) -> pb.InspectResponse:
        parts, who = self._parts, caller()
        run = await parts.find_run(request.run, request.project)
        question = _question(request)
        inspection, after = await parts.blocking(parts.commands.inspect, run.project, run.id, question, by=who.name)
        asked = convert.to_proto(inspection, pb.Inspection)
        return pb.InspectResponse(inspection=asked, after_event=after, run_id=run.id)

    async def Logs(self, request: pb.LogsRequest, context: Any) -> AsyncIterator[pb.LogChunk]:
        run = await self._parts.find_run(request.run, request.project)
        query = LogQuery(
            rank=request.rank if request.HasField("rank") else None,
            attempt=request.attempt if request.HasField("attempt") else None,
            since_at=request.since_at if request.HasField("since_at") else None,
            tail=request.tail if request.HasField("tail") else None,
        )
        if query.tail is not None and query.tail < 0:
            raise bad_request("tail", query.tail, "must be 0 or more lines")
        logs = RunLogs(self._parts, run, query, request.after)
        async with aclosing(logs.follow() if request.follow else logs.all()) as chunks:
            async for chunk in chunks:
                yield chunk

    async def Events(self, request: pb.EventsRequest, context: Any) -> pb.EventsResponse:
        parts = self._parts
        run = await parts.find_run(request.run, request.project)
        return await events_page(parts, run.id, request.after, _size(request.limit))

    async def Checkpoints(self, request: pb.CheckpointsRequest, context: Any) -> pb.CheckpointsResponse:
        parts = self._parts
        run = await parts.find_run(request.run, request.project)
        return await checkpoints_page(parts, run.id, request.page, _size(request.page_size))

    async def UploadBundle(self, request_iterator: AsyncIterator[pb.BundleChunk], context: Any) -> pb.Bundle:
        limit = self._parts.settings.bundle_bytes
        async with self._uploads:
            data, project = bytearray(), ""
            async for chunk in request_iterator:
                project = project or chunk.project
                data += chunk.data
                if len(data) > limit:
                    raise TooLarge(
                        f"the code bundle is over {limit} bytes: list what the run does not need in .evertrainignore"
                    )
            put = self._parts.bundles.put
            return pb.Bundle(sha256=await self._parts.blocking(put, caller().target(project), bytes(data)))

    def _command(self, request: pb.SubmitRequest) -> SubmitCommand:
        self._check_size(request.spec)
        key = request.idempotency_key
        if key and not _KEY.fullmatch(key):
            raise bad_request("idempotency_key", key, "must be 1 to 200 printable ASCII characters without spaces")
        who = caller()
        return SubmitCommand(who.target(request.project), request.spec, who.name, key or None)

    def _check_size(self, spec: str) -> None:
        limit = self._parts.settings.spec_bytes
        if len(spec.encode()) > limit:
            raise TooLarge(
                f"the run file has {len(spec.encode())} bytes, at most {limit}: keep data and code out of it"
            )

    def _submitted(self, answer: Submitted) -> pb.SubmitResponse:
        return pb.SubmitResponse(run=self._parts.summary(answer.run), created=answer.created)


def _question(request: pb.InspectRequest) -> Question:
    """Raises InvalidSpec."""
    if not _KEY.fullmatch(request.id):
        raise bad_request("id", request.id, "must be 1 to 200 printable ASCII characters without spaces")
    if request.kind not in ("stacks", "profile"):
        raise bad_request("kind", request.kind, "must be stacks or profile")
    if not 0 <= request.steps <= MOST_STEPS:
        raise bad_request("steps", request.steps, f"must be 1 to {MOST_STEPS}, or 0 for the default of {DEFAULT_STEPS}")
    if not 0 <= request.within_s <= MOST_WITHIN_S:
        raise bad_request("within_s", request.within_s, f"must be at most {MOST_WITHIN_S:g} seconds, or 0")
    kind: Literal["stacks", "profile"] = "profile" if request.kind == "profile" else "stacks"
    return Question(request.id, kind, tuple(request.ranks), request.steps, request.within_s)


def _size(asked: int) -> int:
    """How many of a run's events or checkpoints one answer may hold."""
    return min(max(asked, 0) or MAX_PAGE, MAX_PAGE)
