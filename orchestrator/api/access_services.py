"""The services `Tokens` and `Secrets`: who may come in, and what runs may know."""

from __future__ import annotations

import math
import re
from typing import Any

from orchestrator.api.auth import EVERY_PROJECT, LABEL, LABEL_RULE, caller, make_token
from orchestrator.api.pages import page_of
from orchestrator.api.parts import Parts, bad_request
from orchestrator.core.records import Role
from orchestrator.errors import TooLarge
from orchestrator.protocol import convert
from orchestrator.protocol.v1.generated import evertrain_pb2 as pb
from orchestrator.protocol.v1.generated import evertrain_pb2_grpc as rpc

SECRET_BYTES = 64 * 1024
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")


class TokensService(rpc.TokensServicer):
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def Create(self, request: pb.CreateTokenRequest, context: Any) -> pb.CreateTokenResponse:
        parts = self._parts
        # An administrator of every project may ask for such a token by name; leaving it out never widens anything.
        project = EVERY_PROJECT if request.project == EVERY_PROJECT else caller().target(request.project)
        caller().scope(project)
        if not LABEL.fullmatch(request.name):
            raise bad_request("name", request.name, LABEL_RULE)
        if request.role not in tuple(Role):
            raise bad_request("role", request.role, f"must be one of {', '.join(Role)}")
        expires_s = request.expires_s if request.HasField("expires_s") else None
        if expires_s is not None and not (0 < expires_s < math.inf):
            raise bad_request("expires_s", expires_s, "must be a positive number of seconds")
        secret, token = make_token(request.name, project, Role(request.role), parts.clock.now(), expires_s)
        await parts.blocking(parts.store.add_token, token)
        return pb.CreateTokenResponse(secret=secret, token=convert.to_proto(token, pb.Token))

    async def List(self, request: pb.ListTokensRequest, context: Any) -> pb.ListTokensResponse:
        tokens = await self._parts.blocking(self._parts.store.tokens, caller().scope(request.project))
        shown, following = page_of(tokens, lambda each: each.id, request.page)
        return pb.ListTokensResponse(tokens=[convert.to_proto(each, pb.Token) for each in shown], next_page=following)

    async def Revoke(self, request: pb.RevokeTokenRequest, context: Any) -> pb.RevokeTokenResponse:
        parts = self._parts
        project = caller().scope(request.project)
        await parts.blocking(parts.store.revoke_token, project, request.id, parts.clock.now())
        parts.authenticator.forget()
        return pb.RevokeTokenResponse()


class SecretsService(rpc.SecretsServicer):
    """Values go in and never come out here: only ranks get them."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def Put(self, request: pb.PutSecretRequest, context: Any) -> pb.PutSecretResponse:
        parts = self._parts
        if not _ENV_NAME.fullmatch(request.name):
            raise bad_request("name", request.name, "must be the name of an environment variable, such as HF_TOKEN")
        if not request.value or "\0" in request.value:
            raise bad_request("value", "(not shown)", "must not be empty and must hold no NUL")
        if len(request.value.encode()) > SECRET_BYTES:
            raise TooLarge(f"the secret {request.name} is over {SECRET_BYTES} bytes: keep files in storage")
        await parts.blocking(parts.store.put_secret, caller().target(request.project), request.name, request.value)
        return pb.PutSecretResponse()

    async def List(self, request: pb.ListSecretsRequest, context: Any) -> pb.ListSecretsResponse:
        names = await self._parts.blocking(self._parts.store.secret_names, caller().target(request.project))
        return pb.ListSecretsResponse(names=names)

    async def Delete(self, request: pb.DeleteSecretRequest, context: Any) -> pb.DeleteSecretResponse:
        parts = self._parts
        await parts.blocking(parts.store.delete_secret, caller().target(request.project), request.name)
        return pb.DeleteSecretResponse()
