"""The HTTP side: /metrics, /healthz, /readyz.

/healthz says that the process answers; /readyz that it can also read its store. Neither needs a token nor tells more than
one word. /metrics names projects and runs: it wants a bearer token of at least a viewer of every project ("*"), except
where `Settings.open_metrics` lets a loopback scraper in without one (the default on loopback binds only).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Iterator

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from orchestrator.api.auth import EVERY_PROJECT, allows, bearer
from orchestrator.api.parts import Parts
from orchestrator.api.server import port_taken
from orchestrator.core.records import Role
from orchestrator.errors import Denied, EvertrainError, NotFound, Unauthenticated
from orchestrator.telemetry.metrics import CONTENT_TYPE, MONITORS_SHOWN, SWEEPS_SHOWN, Metrics

log = logging.getLogger(__name__)

READY_WITHIN_S = 2.0


class HttpSide:
    """The routes."""

    def __init__(self, parts: Parts, metrics: Metrics) -> None:
        self._parts = parts
        self._metrics = metrics

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/healthz", self._healthz),
                Route("/readyz", self._readyz),
                Route("/metrics", self._show_metrics),
            ]
        )

    async def _healthz(self, request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def _readyz(self, request: Request) -> Response:
        try:
            async with asyncio.timeout(READY_WITHIN_S):
                await self._parts.blocking(self._parts.store.clusters)
        except (EvertrainError, TimeoutError) as error:
            log.warning("not ready: the store does not answer: %s", error or "no answer in time")
            return PlainTextResponse("the store does not answer\n", status_code=503)
        return PlainTextResponse("ok\n")

    async def _show_metrics(self, request: Request) -> Response:
        try:
            body = await self._parts.blocking(self._scrape, request.headers.get("authorization"))
        except Unauthenticated as error:
            return PlainTextResponse(f"{error}\n", status_code=401, headers={"www-authenticate": "Bearer"})
        except Denied as error:
            return PlainTextResponse(f"{error}\n", status_code=403)
        except EvertrainError as error:
            log.warning("/metrics: %s", error)
            return PlainTextResponse("the store does not answer\n", status_code=503)
        return Response(body, media_type=CONTENT_TYPE)

    def _scrape(self, authorization: str | None) -> bytes:
        parts, metrics = self._parts, self._metrics
        if not parts.settings.open_metrics:
            self._check(authorization)
        metrics.state_counts(parts.store.count_by_state())
        # What began before this process did, or ended without a word from its cluster, is only in the store.
        metrics.sweeps(parts.sweeps.living(SWEEPS_SHOWN))
        metrics.monitors(parts.monitors.watched(EVERY_PROJECT, MONITORS_SHOWN))
        shown, held = metrics.living(), {each.run_id: None for each in parts.board.holdings()}
        unseen = [run_id for run_id in held if run_id not in shown]
        for run_id in [*(shown - held.keys()), *unseen[: metrics.room()]]:
            with contextlib.suppress(NotFound):
                metrics.track(parts.store.run("*", run_id))
        return metrics.render()

    def _check(self, authorization: str | None) -> None:
        token = self._parts.authenticator.authenticate(bearer(authorization)).token
        if not allows(Role.VIEWER, token.role) or token.project != EVERY_PROJECT:
            raise Denied(f"/metrics shows every project: token {token.name!r} must be a viewer of all ('*')")


class _Uvicorn(uvicorn.Server):
    """Leaves signals to the process that it lives in."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class HttpServer:
    """Start it, then `port` says where it listens."""

    def __init__(self, parts: Parts, metrics: Metrics) -> None:
        settings = parts.settings
        self._settings = settings
        config = uvicorn.Config(
            HttpSide(parts, metrics).app(),
            log_config=None,
            access_log=False,
            lifespan="off",
            ssl_certfile=settings.tls_cert,
            ssl_keyfile=settings.tls_key,
        )
        self._server = _Uvicorn(config)
        self._task: asyncio.Task[None] | None = None
        self.port = 0

    async def start(self) -> None:
        """Raises Refused when the port is taken."""
        bound = self._bind()
        self.port = bound.getsockname()[1]
        self._task = asyncio.create_task(self._server.serve(sockets=[bound]), name="http")
        while not self._server.started:
            if self._task.done():
                self._task.result()
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        self._server.should_exit = True
        if self._task is not None:
            await self._task

    def _bind(self) -> socket.socket:
        host, port = self._settings.http_host, self._settings.http_port
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            bound = socket.socket(family, kind, protocol)
        except OSError as error:
            raise port_taken("HTTP side", host, port, "EVERTRAIN_HTTP_PORT") from error
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
            bound.listen(128)
        except OSError as error:
            bound.close()
            raise port_taken("HTTP side", host, port, "EVERTRAIN_HTTP_PORT") from error
        return bound
