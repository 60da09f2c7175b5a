"""What every call passes: the token, the rule, the deadline, and on the way back the translation of errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Executor
from typing import Any

import grpc
import grpc.aio

from orchestrator.api.auth import ANYBODY, RULES, Authenticator, Caller, allows, bearer, set_caller
from orchestrator.api.status import DeadlinePassed, to_status
from orchestrator.errors import Denied

Context = grpc.aio.ServicerContext[Any, Any]


class Guard(grpc.aio.ServerInterceptor):
    """Wraps every handler once. A streaming call's token is looked at again with each message, either way."""

    def __init__(self, authenticator: Authenticator, executor: Executor, unary_deadline_s: float) -> None:
        self._authenticator = authenticator
        self._executor = executor
        self._unary_deadline_s = unary_deadline_s
        self._wrapped: dict[str, Any] = {}

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        method = handler_call_details.method
        if method not in self._wrapped:
            handler = await continuation(handler_call_details)
            if handler is None:
                return None
            self._wrapped[method] = self._wrap(method, handler)
        return self._wrapped[method]

    def _wrap(self, method: str, handler: Any) -> Any:
        make: Any
        if handler.response_streaming:
            behaviour = self._streaming(
                method, handler.stream_stream or handler.unary_stream, handler.request_streaming
            )
            kinds = (grpc.unary_stream_rpc_method_handler, grpc.stream_stream_rpc_method_handler)
        else:
            behaviour = self._single(method, handler.stream_unary or handler.unary_unary, handler.request_streaming)
            kinds = (grpc.unary_unary_rpc_method_handler, grpc.stream_unary_rpc_method_handler)
        make = kinds[handler.request_streaming]
        return make(behaviour, handler.request_deserializer, handler.response_serializer)

    def _single(self, method: str, behaviour: Callable[..., Awaitable[Any]], stream_in: bool) -> Any:
        async def call(request: Any, context: Context) -> Any:
            try:
                secret = await self._admit(method, context)
                if stream_in:
                    return await behaviour(self._checked(secret, request), context)
                return await self._within_deadline(behaviour(request, context))
            except grpc.aio.AbortError:
                raise
            except Exception as error:
                code, message, trailing = to_status(error)
            return await context.abort(code, message, trailing)

        return call

    def _streaming(self, method: str, behaviour: Callable[..., AsyncIterator[Any]], stream_in: bool) -> Any:
        async def call(request: Any, context: Context) -> AsyncIterator[Any]:
            try:
                secret = await self._admit(method, context)
                answers = behaviour(self._checked(secret, request) if stream_in else request, context)
                async for answer in self._checked(secret, answers):
                    yield answer
                return
            except grpc.aio.AbortError:
                raise
            except Exception as error:
                code, message, trailing = to_status(error)
            await context.abort(code, message, trailing)

        return call

    async def _within_deadline(self, call: Awaitable[Any]) -> Any:
        scope = asyncio.timeout(self._unary_deadline_s)
        try:
            async with scope:
                return await call
        except TimeoutError as error:
            if not scope.expired():
                raise
            raise DeadlinePassed(
                f"the server gave this call up after {self._unary_deadline_s:g} s; whether it took effect is not known: "
                "look before you repeat it"
            ) from error

    async def _admit(self, method: str, context: Context) -> str | None:
        """Denies by default. Answers the secret, to be looked at again; None where none is needed."""
        rule = RULES.get(method)
        if rule is None:
            raise Denied(f"{method} has no rule that lets anybody call it")
        if rule == ANYBODY:
            return None
        secret = bearer(
            next((value for key, value in context.invocation_metadata() or () if key == "authorization"), None)
        )
        caller = await self._authenticate(secret)
        if not allows(rule, caller.token.role):
            raise Denied(f"{method} needs the role {rule}; token {caller.name!r} has {caller.token.role}")
        set_caller(caller)
        return secret

    async def _authenticate(self, secret: str) -> Caller:
        caller = self._authenticator.cached(secret)
        if caller is not None:
            return caller
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, self._authenticator.authenticate, secret)

    async def _checked(self, secret: str | None, messages: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """The messages, for as long as the token holds."""
        async for message in messages:
            if secret is not None:
                await self._authenticate(secret)
            yield message
