"""The service `Models`: versions and their aliases."""

from __future__ import annotations

import re
from typing import Any

from orchestrator.api.auth import caller
from orchestrator.api.pages import page_of
from orchestrator.api.parts import Parts, bad_request
from orchestrator.control.model_versions import find_version
from orchestrator.core.records import ModelVersion
from orchestrator.protocol import convert
from orchestrator.protocol.v1.generated import evertrain_pb2 as pb
from orchestrator.protocol.v1.generated import evertrain_pb2_grpc as rpc

_ALIAS = re.compile(r"[a-z][a-z0-9_-]{0,62}")  # never a number: that is a version


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
        if not _ALIAS.fullmatch(request.alias):
            raise bad_request("alias", request.alias, "must begin with a letter: lower-case letters, digits, '_', '-'")
        version = await self._find(caller().scope(request.project), request.name, str(request.version))
        await parts.blocking(parts.store.set_alias, version.project, request.name, version.version, request.alias)
        changed = await self._find(version.project, request.name, str(version.version))
        return convert.to_proto(changed, pb.ModelVersion)

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
