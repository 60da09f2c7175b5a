"""The service `Models`: versions, their facts, and which of them serves."""

from __future__ import annotations

import json
import re
from functools import partial
from typing import Any

from orchestrator.api.auth import caller
from orchestrator.api.pages import page_of
from orchestrator.api.parts import Parts, bad_request
from orchestrator.control.ancestry import ancestry
from orchestrator.control.model_versions import find_version
from orchestrator.core.aliases import CHAMPION
from orchestrator.core.records import ModelVersion
from orchestrator.errors import Refused
from orchestrator.protocol import convert
from orchestrator.protocol.v1.generated import evertrain_pb2 as pb
from orchestrator.protocol.v1.generated import evertrain_pb2_grpc as rpc

_ALIAS = re.compile(r"[a-z][a-z0-9_-]{0,62}")  # never a number: that is a version
_FACT = _ALIAS
_OF_RANKS = ("proof",)  # facts that only a run itself knows
FACT_BYTES = 2**20


class ModelsService(rpc.ModelsServicer):
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def List(self, request: pb.ListModelsRequest, context: Any) -> pb.ListModelsResponse:
        versions = await self._versions(caller().scope(request.project), request.name)
        shown, following = page_of(versions, lambda each: f"{each.project}/{each.name}/{each.version}", request.page)
        return pb.ListModelsResponse(
            versions=[convert.to_proto(each, pb.ModelVersion) for each in shown], next_page=following
        )

    async def Get(self, request: pb.GetModelRequest, context: Any) -> pb.ModelVersion:
        found = await self._find(caller().scope(request.project), request.name, request.version)
        return convert.to_proto(found, pb.ModelVersion)

    async def SetAlias(self, request: pb.SetAliasRequest, context: Any) -> pb.ModelVersion:
        parts = self._parts
        _insist_on_alias(request.alias)
        version = await self._find(caller().scope(request.project), request.name, str(request.version))
        expected = 0 if request.alias == CHAMPION else None  # one that stands moves by its proof, or by a reason
        move = partial(parts.store.move_alias, expected=expected, at=parts.clock.now(), by=caller().name)
        named = (version.project, request.name, request.alias, version.version)
        moved = partial(move, *named, reason="set by hand", tell=True)
        if await parts.blocking(moved) is None:
            raise Refused(
                f"{request.name} has a champion, which a challenger is proven against: `evertrain model promote "
                f"{request.name}@{version.version}`, where the proof does not hold with --anyway and a --reason"
            )
        changed = await self._find(version.project, request.name, str(version.version))
        return convert.to_proto(changed, pb.ModelVersion)

    async def Facts(self, request: pb.GetModelRequest, context: Any) -> pb.ModelFacts:
        return await self._facts(await self._find(caller().scope(request.project), request.name, request.version))

    async def PutFact(self, request: pb.PutFactRequest, context: Any) -> pb.ModelFacts:
        found = await self._find(caller().scope(request.project), request.name, request.version)
        if not _FACT.fullmatch(request.fact):
            raise bad_request("fact", request.fact, "must begin with a letter: lower-case letters, digits, '_', '-'")
        if request.fact in _OF_RANKS:
            raise bad_request("fact", request.fact, "is written by the version's run alone")
        if len(request.json) > FACT_BYTES:
            raise bad_request("json", f"{len(request.json)} characters", f"must have at most {FACT_BYTES}")
        try:
            value = json.loads(request.json)
        except ValueError as error:
            raise bad_request("json", request.json[:80], f"must be JSON: {error}") from None
        store = self._parts.store
        await self._parts.blocking(store.put_fact, found.project, found.name, found.version, request.fact, value)
        return await self._facts(found)

    async def Promote(self, request: pb.PromoteRequest, context: Any) -> pb.AliasMove:
        project, alias = caller().scope(request.project), request.alias or CHAMPION
        _insist_on_alias(alias)
        version = await self._find(project, request.name, request.version)
        promote = partial(
            self._parts.promotions.promote,
            alias=alias,
            by=caller().name,
            reason=request.reason,
            anyway=request.anyway,
        )
        return convert.to_proto(await self._parts.blocking(promote, version), pb.AliasMove)

    async def Rollback(self, request: pb.RollbackRequest, context: Any) -> pb.AliasMove:
        project = caller().scope(request.project)
        if not request.reason:
            raise bad_request("reason", "", "must say why: the history keeps it")
        roll_back = partial(
            self._parts.promotions.roll_back,
            alias=request.alias or CHAMPION,
            by=caller().name,
            reason=request.reason,
            expected=request.expected if request.HasField("expected") else None,
        )
        version = await self._find(project, request.name, "")
        return convert.to_proto(await self._parts.blocking(roll_back, version.project, version.name), pb.AliasMove)

    async def History(self, request: pb.AliasHistoryRequest, context: Any) -> pb.AliasHistory:
        found = await self._find(caller().scope(request.project), request.name, "")
        history = self._parts.store.alias_history
        moves = await self._parts.blocking(history, found.project, found.name, request.alias)
        shown, following = page_of(moves, lambda each: str(each.number), request.page)
        return pb.AliasHistory(moves=[convert.to_proto(each, pb.AliasMove) for each in shown], next_page=following)

    async def Compare(self, request: pb.CompareRequest, context: Any) -> pb.Comparison:
        project = caller().scope(request.project)
        champion = await self._find(project, request.name, request.champion or CHAMPION)
        challenger = await self._find(champion.project, request.name, request.challenger)
        judgement = await self._parts.blocking(self._parts.promotions.compare, challenger, champion)
        return pb.Comparison(
            champion=convert.to_proto(champion, pb.ModelVersion),
            challenger=convert.to_proto(challenger, pb.ModelVersion),
            judgement=convert.to_struct(judgement.report()),
        )

    async def Lineage(self, request: pb.GetModelRequest, context: Any) -> pb.ModelLineage:
        version = await self._find(caller().scope(request.project), request.name, request.version)
        found = await self._parts.blocking(ancestry, self._parts.store, version)
        return pb.ModelLineage(ancestors=[convert.to_proto(each, pb.Ancestor) for each in found])

    async def _facts(self, of: ModelVersion) -> pb.ModelFacts:
        facts = await self._parts.blocking(self._parts.store.facts, of.project, of.name, of.version)
        return pb.ModelFacts(version=of.version, json={fact: json.dumps(value) for fact, value in facts.items()})

    async def _versions(self, project: str, name: str) -> list[ModelVersion]:
        return await self._parts.blocking(self._parts.store.models, project, name)

    async def _find(self, project: str, name: str, wanted: str) -> ModelVersion:
        """A version by number, alias, or, with "", the newest. Raises NotFound."""
        if not name:
            raise bad_request("name", name, "the name of a model is needed")
        versions = await self._versions(project, name)
        if len({each.project for each in versions}) > 1:
            raise bad_request("project", project, f"must be named: several projects have a model {name!r}")
        return find_version(versions, project, name, wanted)


def _insist_on_alias(alias: str) -> None:
    if not _ALIAS.fullmatch(alias):
        raise bad_request("alias", alias, "must begin with a letter: lower-case letters, digits, '_', '-'")
